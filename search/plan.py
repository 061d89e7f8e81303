"""What is to be searched, as far as it can be told to another process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parefront.search.budget import Budget
from parefront.search.study_file import StudyFile
from parefront.search.task import Task


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One launch of a study.

    Attributes:
        settings: The settings of the study.
        url: Its storage.
        task: The task if it is a Python object, `None` if the settings name it.
        base: Folder against which the task's file is resolved.
        budget: What the study may spend in all.
    """

    settings: StudyFile
    url: str
    task: Task | None
    base: Path | None
    budget: Budget
