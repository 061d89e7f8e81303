"""The live display of a launch."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from threading import Thread
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from parefront.errors import ParefrontError, StorageError
from parefront.search.budget import Budget, describe, searched_seconds
from parefront.search.records import Outcome, Status
from parefront.search.study import Study
from parefront.spaces.space import Candidate
from parefront.tables import describe as describe_candidate
from parefront.tables import front_table

_ROWS = 8
"""Rows of the front that are shown while the search runs."""


class LiveDisplay:
    """Shows trials, the front, the best picks and the time left.

    On a terminal the display stands in place; elsewhere, such as in a log, it is a line a trial.

    Args:
        study: The study.
        budget: What it may spend.
        console: Where to write.
    """

    def __init__(self, study: Study, budget: Budget, console: Console) -> None:
        self._study = study
        self._budget = budget
        self._console = console
        self._phase = ""
        self._front: RenderableType = Text("")
        self._picks = Text("")
        self._outlook = ""
        self._ending = ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
        )
        self._task = self._bar.add_task("trials", total=budget.trials, left="")
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def phase(self, text: str) -> None:
        """Shows what takes a while."""
        self._phase = text
        if self._console.is_terminal:
            self._live.refresh()
        else:
            self._say(text)

    def began(self, trial: int, candidate: Candidate) -> None:
        """Shows the trial under way."""
        self._phase = f"trial {trial}: {describe_candidate(candidate.as_dict())}"
        if self._console.is_terminal:
            self._live.refresh()

    def ended(self, trial: int, outcome: Outcome) -> None:
        """Shows what came of a trial, and the front."""
        if not self._console.is_terminal:
            self._say(_line(trial, outcome))
            return
        with suppress(StorageError):  # what cannot be read now is shown after the next trial
            self._refresh()

    def _refresh(self) -> None:
        entries = self._study.opened().ledger.entries()
        done = sum(entry.counts for entry in entries)
        left = ""
        if self._budget.seconds is not None:
            spent = searched_seconds(entries, datetime.now())
            left = f"{describe(max(self._budget.seconds - spent, 0))} left"
        self._bar.update(self._task, completed=done, left=left)
        front = self._study.front()
        if len(front):
            shown = front.iloc[:: max(1, -(-len(front) // _ROWS))]
            title = f"front: {len(front)} candidates"
            self._front = front_table(shown, self._study.summary(), title=title)
            self._picks = self._best()

    def outlook(self, share: float, trials: int) -> None:
        """Shows what is left to gain."""
        self._outlook = f"expected gain of {trials} further trials: {share:.2%} of hypervolume"
        if not self._console.is_terminal:
            self._say(self._outlook)

    def ending(self) -> None:
        """Shows that no further trial begins; may be called from a signal handler."""
        self._ending = "ending after this trial; again to end now"
        if not self._console.is_terminal:
            # In a thread: the signal may have come while this one was printing a line, and a
            # console drops what is printed within that.
            Thread(target=self._say, args=(self._ending,)).start()

    def _say(self, text: str) -> None:
        # Reasons and names come from elsewhere, and may have brackets in them.
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _best(self) -> Text:
        try:
            knee = self._study.pick("knee")
        except ParefrontError:
            return Text("")
        return Text(
            f"knee: trial {knee['trial']}, {knee['speedup']:.1f}x faster, "
            f"{knee['shrink']:.1f}x smaller",
            style="bold",
        )

    def _render(self) -> RenderableType:
        return Group(
            self._front,
            self._picks,
            self._bar,
            Text(self._outlook),
            Text(self._phase, overflow="ellipsis"),
            Text(self._ending, style="bold"),
        )


def _line(trial: int, outcome: Outcome) -> str:
    if outcome.status != Status.COMPLETE:
        return f"trial {trial:>3}  {outcome.status}: {outcome.reason}"
    values = (
        f"{name} {m.value:.5g}{' ' + m.unit if m.unit else ''}"
        for name, m in outcome.measurements.items()
    )
    return f"trial {trial:>3}  " + "  ".join(values)
