"""What Tune asks for trials: the desk of the launch."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher

from parefront.search.engines.ray.conductor import Conductor


class DeskSearcher(Searcher):
    """Gives Tune the trials that a conductor takes from the desk.

    Args:
        conductor: Takes the trials.
    """

    def __init__(self, conductor: Conductor) -> None:
        super().__init__()
        self._conductor = conductor

    def suggest(  # type: ignore[override]  # as Tune has it, which says so in its docstring alone
        self, trial_id: str
    ) -> dict[str, Any] | str | None:
        """The next candidate, `None` while there is none, `FINISHED` at the end."""
        taken = self._conductor.take(trial_id)
        if taken is None:
            return None
        if isinstance(taken, str):
            return str(Searcher.FINISHED)
        return {
            "trial": taken.number,
            "candidate": taken.candidate.as_dict(),
            "gates": taken.checks.gates,
            "rungs": list(taken.checks.rungs),
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Nothing: the scheduler has heard of it, with the reason."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the storage of the study is the only truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to take up."""
