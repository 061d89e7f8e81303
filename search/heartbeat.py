"""Signs of life of launches, for those on other machines.

Whether a process of the same machine runs can be asked of the machine. A launch elsewhere writes a
counter into the study that it changes every few seconds, and is dead for those who have looked
often enough without seeing it change. No clocks are compared: what counts is how often one looked,
so that time in which the storage did not answer, or the one who looks was asleep, counts for
nothing.

A counter lies in one of a few numbered places, which are given back and taken over, so that there
are never more of them than there were launches at once.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import optuna
from pydantic import BaseModel, ConfigDict

from parefront.search.patience import failures
from parefront.search.records import Owner

BEAT_KEY = "parefront:beat:{place}"
"""Attribute of a study with the sign of life of a launch."""
INTERVAL = 20.0
"""Seconds between two signs of life, and two looks at those of others."""
MISSES = 6
"""After so many looks without a change a launch is dead: two minutes."""


class Beat(BaseModel):
    """The sign of life of a launch.

    Attributes:
        owner: The process.
        count: Grows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: Owner
    count: int


class Heartbeat:
    """Gives signs of life of this launch while it is entered, and watches for those of others.

    Args:
        study: The study.
        owner: This process.
        interval: Seconds between two signs of life.
        misses: After how many looks without a change a launch is dead.

    Attributes:
        interval: Seconds between two signs of life.
    """

    def __init__(
        self,
        study: optuna.Study,
        owner: Owner | None = None,
        *,
        interval: float = INTERVAL,
        misses: int = MISSES,
    ) -> None:
        self._study = study
        self._owner = owner or Owner.me()
        self.interval = interval
        self._limit = misses
        self._count = 0
        self._beats: dict[Owner, int | None] = {}
        self._missed: dict[Owner, int] = {}
        self._heard: set[Owner] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        """Gives the first sign, unless the storage does not answer, and goes on doing so."""
        self._beat()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Gives its place back."""
        self._over.set()
        self._thread.join()
        with suppress(*failures()):  # the place is taken over by whoever finds no life in it
            for place, beat in _beats(self._study.user_attrs).items():
                if beat is not None and beat.owner == self._owner:
                    self._study.set_user_attr(BEAT_KEY.format(place=place), None)

    def alive(self, owner: Owner) -> bool:
        """Whether a launch lives, or may; one elsewhere is taken to until it was watched enough."""
        if owner.here:
            return owner.alive()
        return self._missed.setdefault(owner, 0) < self._limit

    def doubtful(self, owner: Owner) -> bool:
        """Whether a launch elsewhere may live, and nothing was heard of it yet."""
        return not owner.here and owner not in self._heard and self.alive(owner)

    def _go_on(self) -> None:
        while not self._over.wait(self.interval):
            self._beat()

    def _beat(self) -> None:
        try:
            attrs = self._study.user_attrs
            self._watch(attrs)
            self._count += 1
            beat = Beat(owner=self._owner, count=self._count)
            key = BEAT_KEY.format(place=self._place(attrs))
            self._study.set_user_attr(key, beat.model_dump(mode="json"))
        except failures():  # nobody sees a sign now, and nobody counts that
            return

    def _watch(self, attrs: Mapping[str, Any]) -> None:
        found = {beat.owner: beat.count for beat in _beats(attrs).values() if beat is not None}
        for owner in found.keys() | set(self._missed):
            count, before = found.get(owner), self._beats.get(owner)
            changed = count is not None and count != before
            self._missed[owner] = 0 if changed else self._missed.get(owner, 0) + 1
            self._beats[owner] = count
            if changed and before is not None:
                self._heard.add(owner)

    def _place(self, attrs: Mapping[str, Any]) -> int:
        """The place of this launch, or one that is free.

        Two that take the same at once see it at their next sign, and one of them moves on.
        """
        beats = _beats(attrs)
        for place, beat in beats.items():
            if beat is not None and beat.owner == self._owner:
                return place
        for place, beat in beats.items():
            if beat is None or not self.alive(beat.owner):
                return place
        return len(beats)


def _beats(attrs: Mapping[str, Any]) -> dict[int, Beat | None]:
    """Signs of life by place, from the first; `None` for a place that was given back."""
    beats: dict[int, Beat | None] = {}
    while (key := BEAT_KEY.format(place=len(beats))) in attrs:
        found = attrs[key]
        beats[len(beats)] = None if found is None else Beat.model_validate(found)
    return beats
