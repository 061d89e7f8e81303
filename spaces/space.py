"""A space: stages in order, and the candidates they make."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import combinations
from typing import Any

import optuna
from pydantic import ValidationError
from torch import nn

from parefront.errors import SpaceError
from parefront.spaces.catalog import STAGES
from parefront.spaces.packing.stage import Packing
from parefront.spaces.stage import Form, Stage, StageConfig, StageContext, TargetTraits

AnyStage = Stage[Any, Any]
Parameter = float | int | str | bool


@dataclass(frozen=True)
class Candidate:
    """One point of a space: the configs of the stages that are on, in the order they run.

    Two candidates are equal, and have equal ids, when their configs are equal. Candidates that
    begin alike share the ids of their prefixes.

    Attributes:
        configs: Pairs of stage name and config; empty for the unchanged baseline.
    """

    configs: tuple[tuple[str, StageConfig], ...] = ()

    @classmethod
    def of(cls, configs: Mapping[str, Mapping[str, Any]]) -> Candidate:
        """The candidate of JSON-able configs as `as_dict` gave them, of whatever space.

        Raises:
            ValidationError: If a config is not valid.
        """
        types = {stage.name: stage.config_type for stage in STAGES}
        return cls(tuple((name, types[name].model_validate(x)) for name, x in configs.items()))

    @property
    def id(self) -> str:
        """Content address: 16 hexadecimal digits that depend on nothing but the configs."""
        canonical = json.dumps(
            [[name, config.model_dump(mode="json")] for name, config in self.configs],
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def prefix(self, length: int) -> Candidate:
        """The candidate of the first `length` stages."""
        return Candidate(self.configs[:length])

    def as_dict(self) -> dict[str, dict[str, Any]]:
        """JSON-able configs by stage name, in the order the stages run."""
        return {name: config.model_dump(mode="json") for name, config in self.configs}


class Space:
    """Stages in order, each optional unless an earlier one makes it necessary.

    Args:
        stages: Stages in the order in which they are applied, but for those of which a config says
            otherwise (`Stage.goes_before`).

    Raises:
        SpaceError: If two stages share a name, or a stage of a later form comes too early.
    """

    def __init__(self, stages: Sequence[AnyStage]) -> None:
        names = [stage.name for stage in stages]
        if len(set(names)) != len(names):
            raise SpaceError(f"expected stages with different names, got {names}")
        forms = [stage.form for stage in stages]
        if forms != sorted(forms, key=list(Form).index):
            raise SpaceError(
                "stages that change the exported file come after those that change the module, "
                f"got {dict(zip(names, forms, strict=True))}"
            )
        self.stages = tuple(stages)

    @classmethod
    def of(cls, choices: Mapping[str, object] | None, target: TargetTraits) -> Space:
        """Makes a space from what a study file says.

        Args:
            choices: Choices by stage name; `None` takes every stage that is on by default, with
                its defaults.
            target: What the stages may know of the target.

        Raises:
            SpaceError: If a stage is unknown, or its choices are not valid.
        """
        known = {stage.name: stage for stage in STAGES}
        if choices is None:
            return cls([s(s.choices_type(), target) for s in STAGES if s.by_default])
        for name in choices:
            if name not in known:
                near = get_close_matches(name, known, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
                raise SpaceError(f"[space] has no stage '{name}'; {hint}")
        packs = any(known[name].packs for name in choices)
        return cls(
            [
                stage(_choices(stage, choices.get(name, {})), target)
                for name, stage in known.items()
                if name in choices or (stage is Packing and packs)
            ]
        )

    def fitted(self, module: nn.Module, context: StageContext) -> tuple[Space, dict[str, str]]:
        """The space of the stages that have something to do in a model.

        Returns:
            The smaller space, and the reason for each stage that was left out.
        """
        left_out = {}
        for stage in self.stages:
            reason = stage.nothing_to_do(module, context)
            if reason is not None:
                left_out[stage.name] = reason
        stages = [s for s in self.stages if s.name not in left_out]
        if not any(stage.packs for stage in stages):
            stages = [stage for stage in stages if not isinstance(stage, Packing)]
        return Space(stages), left_out

    def suggest(self, trial: optuna.trial.BaseTrial) -> Candidate:
        """Draws a candidate.

        A boolean parameter named after the stage switches it on, unless the stages before it
        decide that; the stage's own parameters are drawn only then.
        """
        on: dict[str, StageConfig] = {}
        for stage in self.stages:
            if self._must(stage, on) or (
                self._clash(stage, on) is None
                and trial.suggest_categorical(stage.name, (True, False))
            ):
                on[stage.name] = stage.draw(trial, on)
        return self._ordered(on)

    def parameters(self, candidate: Candidate) -> dict[str, Parameter]:
        """The parameters with which `suggest` draws a candidate."""
        configs = dict(candidate.configs)
        parameters: dict[str, Parameter] = {}
        for stage in self.stages:
            parameters[stage.name] = stage.name in configs
            if stage.name in configs:
                for field, value in configs[stage.name].model_dump(mode="json").items():
                    if value is not None:
                        parameters[f"{stage.name}.{field}"] = value
        return parameters

    def candidate(self, configs: Mapping[str, Mapping[str, Any]]) -> Candidate:
        """The candidate of JSON-able configs, as `Candidate.as_dict` gave them.

        Raises:
            SpaceError: If a stage is not in the space, does not go with those before it, or a
                config is not valid.
        """
        stages = {stage.name: stage for stage in self.stages}
        unknown = [name for name in configs if name not in stages]
        if unknown:
            raise SpaceError(f"the space has no stage {unknown[0]!r}; it has {list(stages)}")
        on: dict[str, StageConfig] = {}
        for name, stage in stages.items():
            if name not in configs:
                continue
            clash = self._clash(stage, on)
            if clash is not None:
                raise SpaceError(f"stage '{name}' cannot be on beside {list(on)}: {clash}")
            try:
                on[name] = stage.config_type.model_validate(configs[name])
            except ValidationError as error:
                raise SpaceError(f"not a config of this space: {error}") from error
        return self._ordered(on)

    def outset(self) -> list[Candidate]:
        """Candidates to begin with, the most telling first.

        The unchanged baseline; all stages together, at their strongest, which shows where the front
        ends; each technique that changes the file on its own, which trains nothing; the strongest
        with weights of few bits; and all together, as they are best. Those that make weights pack,
        and nothing faster, are left out of what goes together otherwise.
        """
        core = self._core()
        first = {stage.name: stage.anchors()[0] for stage in core if stage.together}
        strongest = {s.name: s.anchors()[-1] for s in core if s.together and s.form is Form.MODULE}
        wanted: list[dict[str, StageConfig]] = [{}, first | strongest]
        wanted += [{s.name: c} for s in self.stages if s.form is Form.ONNX for c in s.anchors()]
        packed = [s for s in self.stages if s.packs and s.form is Form.MODULE]
        wanted += [first | strongest | {s.name: s.anchors()[-1]} for s in packed[-1:]]
        wanted.append(first)
        return list(dict.fromkeys(self.completed(configs) for configs in wanted))

    def anchors(self) -> list[Candidate]:
        """Candidates worth knowing before any sampling, the most telling first.

        Those of `outset`; each technique that changes the module with each that changes the file,
        whose gains multiply, the strongest first; each technique on its own, with what it makes
        necessary, for most of which nothing is left to train; and those that make weights pack,
        together.
        """
        core = self._core()
        wanted: list[dict[str, StageConfig]] = [
            {stage.name: config, later.name: later.anchors()[0]}
            for stage, later in combinations(core, 2)
            if stage.lossy and stage.form is not later.form
            for config in reversed(stage.anchors())
        ]
        wanted += [{s.name: config} for s in self.stages for config in s.anchors()]
        packed = [s for s in self.stages if s.packs and s.form is Form.MODULE]
        wanted.append({stage.name: stage.anchors()[0] for stage in packed})
        return list(dict.fromkeys([*self.outset(), *(self.completed(each) for each in wanted)]))

    def _core(self) -> list[AnyStage]:
        """The stages that do more than to make weights pack."""
        return [s for s in self.stages if not s.packs and not isinstance(s, Packing)]

    def siblings(self, candidate: Candidate) -> list[Candidate]:
        """What is nearly free once a candidate has been trained.

        Returns:
            The candidates that begin with the same trained stages and go on in another way: with
            each cheap stage after them off, or on with one of its anchors. Empty for a candidate
            that nothing was trained for.
        """
        dear = {stage.name for stage in self.stages if stage.dear}
        last = max((i for i, (name, _) in enumerate(candidate.configs) if name in dear), default=-1)
        if last < 0:
            return []
        trained = candidate.prefix(last + 1)
        names = [stage.name for stage in self.stages]
        later = self.stages[names.index(trained.configs[-1][0]) + 1 :]
        found = [trained]
        for stage in later:
            on = [each for each in found if self._clash(stage, dict(each.configs)) is None]
            found = [each for each in found if not self._must(stage, dict(each.configs))]
            found += [
                Candidate((*each.configs, (stage.name, config)))
                for each in on
                for config in stage.anchors()
            ]
        return [each for each in found if each != candidate]

    def completed(self, wanted: Mapping[str, StageConfig]) -> Candidate:
        """The candidate of some configs, with what they make necessary.

        Args:
            wanted: Configs by stage name, of stages of this space. A stage that must be on beside
                them and is not among them has its first anchor; one that does not go with those
                before it is left out.
        """
        on: dict[str, StageConfig] = {}
        for stage in self.stages:
            if stage.name in wanted and self._clash(stage, on) is None:
                on[stage.name] = wanted[stage.name]
            elif self._must(stage, on):
                on[stage.name] = stage.anchors()[0]
        return self._ordered(on)

    def _ordered(self, on: Mapping[str, StageConfig]) -> Candidate:
        """The candidate with its stages in the order they run."""
        names = list(on)
        for stage in self.stages:
            behind = stage.goes_before(on[stage.name]) if stage.name in on else None
            if behind in names:
                names.remove(stage.name)
                names.insert(names.index(behind), stage.name)
        return Candidate(tuple((name, on[name]) for name in names))

    def _must(self, stage: AnyStage, on: Mapping[str, StageConfig]) -> bool:
        return stage.required([type(s) for s in self.stages if s.name in on])

    def _clash(self, stage: AnyStage, on: Mapping[str, StageConfig]) -> str | None:
        return stage.clashes([type(s) for s in self.stages if s.name in on])


def _choices(stage: type[AnyStage], given: object) -> Any:  # noqa: ANN401 - the stage's own type
    try:
        return stage.choices_type.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        # Within a range or a choice only its key is the user's.
        key = str(first["loc"][0]) if first["loc"] else ""
        if first["type"] == "extra_forbidden":
            fields = stage.choices_type.model_fields
            near = get_close_matches(key, fields, 1)
            known = f"known are {', '.join(fields)}" if fields else "it has none"
            hint = f"did you mean '{near[0]}'?" if near else known
            raise SpaceError(f"[space] {stage.name} has no key '{key}'; {hint}") from error
        message = first["msg"].removeprefix("Value error, ")
        got = "" if ", got " in message else f", got {first['input']!r}"
        where = f"{stage.name}.{key}" if key else stage.name
        raise SpaceError(f"[space] {where}: {message}{got}") from error
