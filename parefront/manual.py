"""The manual of the study file, from the models that check it."""

from __future__ import annotations

import inspect
import re
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from parefront.objectives.targets.target import Target
from parefront.search.engines.section import EngineSection
from parefront.search.study_file import StudyFile
from parefront.search.study_section import StudySection
from parefront.spaces.catalog import STAGES

_EXAMPLE = """\
[study]
name = "mnist-cnn"
task = "mnist_cnn.py:task"
trials = 40
time = "3m"

[objectives]
accuracy = { at_least = 0.95 }
latency = {}
size = {}

[target]
runtime = "onnxruntime"
threads = 1
batch_size = 1

[space]                              # leave it out for every stage that fits, but for share
prune = { ratio = [0.0, 0.8] }       # a pair is a range, a list of names a choice,
recover = { epochs = 3 }             # one value is fixed, {} takes the defaults
"""


def study_manual() -> RenderableType:
    """The keys of a study file with their defaults and their meaning."""
    sections: list[RenderableType] = [Text(_EXAMPLE)]
    sections.append(_table("[study]", StudySection))
    objectives = StudyFile.model_fields["objectives"].description
    sections.append(Text(f"[objectives]\n  {objectives}\n"))
    sections.append(_table("[target]", Target))
    sections.append(_table("[engine]", EngineSection))
    sections.append(Text(f"[[start]]\n  {StudyFile.model_fields['start'].description}\n"))
    sections.append(Text(f"[space]\n  {StudyFile.model_fields['space'].description}\n"))
    for stage in STAGES:
        summary = (stage.__doc__ or "").strip().splitlines()[0]
        sections.append(_table(f"{stage.name} = {{ ... }}   {summary}", stage.choices_type))
    return Group(*sections)


def _table(title: str, model: type[BaseModel]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", expand=False)
    table.add_column("key")
    table.add_column("default")
    table.add_column("meaning")
    meanings = _meanings(model)
    for name, field in model.model_fields.items():
        default = (
            "needed"
            if field.is_required()
            else _plain(field.get_default(call_default_factory=True))
        )
        meaning = field.description or meanings.get(name, "")
        known = [each for each in _literals(field.annotation) if isinstance(each, str | int)]
        known = [each for each in known if not isinstance(each, bool)]
        if len(known) > 1 and not all(repr(each) in f"{default}{meaning}" for each in known):
            meaning += f" Possible are {', '.join(map(repr, known))}."
        table.add_row(Text(name), Text(default), Text(meaning))
    return table


def _literals(annotation: object) -> list[object]:
    """The values that a type allows by name, within unions and choices too."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    generic = getattr(annotation, "__pydantic_generic_metadata__", {"args": ()})
    parts = (*get_args(annotation), *generic["args"])
    return [value for part in parts for value in _literals(part)]


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """What the docstring of a model says of its fields."""
    listed = (inspect.getdoc(model) or "").partition("Attributes:\n")[2]
    found = re.finditer(r"^    (\w+): (.*(?:\n {8}.*)*)", listed, re.MULTILINE)
    return {each[1]: " ".join(each[2].split()) for each in found}


def _plain(value: object) -> str:
    low, high = getattr(value, "low", None), getattr(value, "high", None)
    if low is not None:
        return str(low) if low == high else f"[{low}, {high}]"
    options = getattr(value, "options", None)
    if options is not None:
        written = [_plain(each) if isinstance(each, bool) else repr(each) for each in options]
        return f"[{', '.join(written)}]" if len(written) > 1 else written[0]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return "-" if value is None else str(value)
