"""Which candidates are compared: random ones, and children of the best.

What is drawn depends on the seed, on the number of candidates tried and on the parents, and on
nothing that happened before, so that an interrupted search goes on with the same draws. What stays
the same from one call to the next is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from parefront.search.samplers.screening.candidates import (
    Candidate,
    CandidateSpace,
    Key,
    child,
    generator,
    hash_of,
)

SAMPLE = 128
"""Random candidates that show what the space is like, and the first to choose from."""
_CHILDREN = 128
"""Children of the best in all."""
_FEWEST = 4
"""Children of each of the best at least."""
_PARENTS = 32
"""Parents at most."""
_RENEWAL = 8
"""Calls after which a child gives way to another, and parents are chosen anew."""
_NUMBERS = 1000
"""More than a parent has children at a time."""


class Pool:
    """Draws candidates to compare.

    Args:
        space: Where they come from.
        seed: Seed of the draws.
    """

    def __init__(self, space: CandidateSpace, seed: int) -> None:
        self._space = space
        self._seed = seed
        self._random: dict[tuple[int, int], Candidate] = {}
        self._children: dict[tuple[Key, Key | None, int], Candidate] = {}
        self._chances: dict[tuple[Key, int], tuple[float, float]] = {}
        self.sample = [self._drawn(slot, 0) for slot in range(SAMPLE)]

    def random(self, index: int) -> list[Candidate]:
        """Random candidates, of which one is new for each index.

        Args:
            index: How many candidates were tried.
        """
        turns = {slot: (index + slot) // SAMPLE for slot in range(SAMPLE)}
        self._random = {(slot, turn): self._drawn(slot, turn) for slot, turn in turns.items()}
        return list(self._random.values())

    def children(self, index: int, parents: Sequence[Candidate]) -> list[Candidate]:
        """Children of the best, of which some are new for each index.

        Args:
            index: How many candidates were tried.
            parents: The best so far.
        """
        if not parents:
            return []
        if len(parents) > _PARENTS:
            # Which are parents changes with the front and now and then, not from call to call.
            turn = index // _RENEWAL
            parents = sorted(parents, key=lambda each: hash_of(self._seed, turn, each.key))
            parents = parents[:_PARENTS]
        each = max(_FEWEST, _CHILDREN // len(parents))
        brood: dict[tuple[Key, Key | None, int], Candidate] = {}
        chances: dict[tuple[Key, int], tuple[float, float]] = {}
        for parent in parents:
            for slot in range(each):
                # One of so many children of each parent is new each time.
                number = slot + _NUMBERS * ((index + slot) // _RENEWAL)
                named = (parent.key, number)
                crossed, which = chances[named] = self._chances.get(named) or self._chance(*named)
                partner = None
                if crossed < 0.5 and len(parents) > 1:
                    partner = parents[int(which * len(parents))]
                name = (parent.key, partner.key if partner else None, number)
                brood[name] = self._children.get(name) or child(
                    self._space, parent, partner, generator(self._seed, "child", name)
                )
        self._children, self._chances = brood, chances
        return list(brood.values())

    def near(self, parents: Sequence[Candidate], count: int, *parts: object) -> list[Candidate]:
        """Children of single parents, `count` each.

        Args:
            parents: The parents.
            count: Children of each.
            parts: What else the draw depends on.
        """
        random = generator(self._seed, "near", *parts)
        return [
            child(self._space, parent, None, random) for parent in parents for _ in range(count)
        ]

    def more(self, index: int, count: int) -> list[Candidate]:
        """Further random candidates, for when the others are used up."""
        random = generator(self._seed, "more", index)
        return [self._space.draw(random, {}) for _ in range(count)]

    def _drawn(self, slot: int, generation: int) -> Candidate:
        known = self._random.get((slot, generation))
        if known is not None:
            return known
        return self._space.draw(generator(self._seed, "random", slot, generation), {})

    def _chance(self, key: Key, number: int) -> tuple[float, float]:
        random = generator(self._seed, "chance", key, number)
        return random.random(), random.random()
