"""What leads a launch: a guide that draws, a surrogate that judges, and what is known before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parefront.errors import StudyFileError, TrialError
from parefront.objectives.measurement import Measurement
from parefront.objectives.objective import Bound
from parefront.search.budget import Budget
from parefront.search.checks import Hopeless, TrialChecks
from parefront.search.earlier import Earlier, earlier
from parefront.search.entry import Entry
from parefront.search.guide import Guide
from parefront.search.launch import Progress
from parefront.search.measures import Measure
from parefront.search.no_gain import NoGain
from parefront.search.opened import OpenedStudy
from parefront.search.optuna_guide import OptunaGuide
from parefront.search.pipeline import Checks, Pipeline
from parefront.search.proposer import Proposer
from parefront.search.rungs import EarlyStopping, RungRule
from parefront.search.samplers.auto import Choice, Situation, choose
from parefront.search.samplers.screening.observations import Told
from parefront.search.samplers.space_size import count_candidates, count_parameters
from parefront.search.seeds import derive_seed
from parefront.search.sensitivity import Sensitivity, probe
from parefront.search.storage import shown_study
from parefront.search.study_file import StudyFile
from parefront.search.study_record import SAMPLER_KEY, SENSITIVITY_KEY, WARM_KEY
from parefront.search.study_section import AUTO, SCREENING
from parefront.search.surrogate import Axis, Surrogate
from parefront.search.warm_start import Observation, own_candidates
from parefront.spaces.space import AnyStage, Candidate, Space

_TRAINING = 3.0
"""Forward passes that a step of training costs an example: one forward, two backward."""
_BATCHED = 0.5
"""What an example of a batch costs, relative to the latency of one by itself."""
_FIXED_SECONDS = 1.0
"""What a trial costs beside training and timing, such as its export."""
_LOOKING = 1.0
"""Seconds of what may be spared from which on untrained files are made only to look at them."""
_KNOWN_WELL = 10
"""Earlier trials from which on the anchors are not tried again."""


@dataclass(frozen=True)
class Guidance:
    """What leads a launch.

    Attributes:
        proposer: Proposes candidates.
        checks: Makes the checks of a trial from the storage's id of it.
        no_gain: Says why nothing more is to be gained, if the study asks for that.
    """

    proposer: Proposer
    checks: Callable[[int], Checks]
    no_gain: Callable[[Sequence[Entry]], str | None] | None


def guidance(
    opened: OpenedStudy,
    pipeline: Pipeline,
    settings: StudyFile,
    budget: Budget,
    *,
    url: str,
    progress: Progress,
    tick: Callable[[], None],
) -> Guidance:
    """What leads a launch; the first one of a study decides and keeps what others find.

    Callers hold the study's lock.

    Args:
        opened: The study, with its baseline kept.
        pipeline: What it evaluates candidates with.
        settings: The settings of this launch.
        budget: What the study may spend.
        url: Storage of the study.
        progress: Told what takes a while, and what was picked.
        tick: Called between short steps of work.

    Raises:
        StudyFileError: If a candidate of the user's or an earlier study does not fit.
        Interrupted: If `tick` did.
    """
    wanted, space = settings.study, pipeline.builder.space
    before = _earlier(opened, settings, space, url, progress)
    sensitivity = _sensitivity(opened, settings, pipeline, progress, tick)
    probed = sensitivity.observations() if sensitivity else []
    axes = _axes(opened, pipeline)
    directions = [axis.direction for axis in axes]
    costs = _Costs.of(pipeline)
    anchors = space.anchors()
    longest = max(anchors, key=costs.all)
    name = _sampler(opened, settings, space, len(axes), budget, costs.all(longest), progress)

    def optuna(sampler: str) -> Guide:
        return OptunaGuide(space, sampler, directions, wanted.seed)

    surrogate = None
    if name == SCREENING or wanted.gate or wanted.no_gain:
        surrogate = Surrogate(
            space,
            axes,
            derive_seed(wanted.seed, "screening"),
            bounds=pipeline.bounds,
            cost=costs.all,
            look=_look(pipeline, tick) if costs.training(longest) > _LOOKING else None,
            earlier=_told(axes, space, [*before.observations, *probed]),
            ideas=anchors,
            held=_held(space),
        )
    gate = surrogate.hopeless if surrogate and wanted.gate else None
    guide: Guide = surrogate if surrogate and name == SCREENING else optuna(name)
    proposer = Proposer(
        space,
        guide,
        optuna("random"),
        directions,
        warm=[
            *own_candidates(settings.start, space, opened.record.left_out),
            *before.candidates(space),
            *(sensitivity.candidates(space) if sensitivity else []),
        ],
        # Screening weighs the others against what it draws; without it they are all tried.
        anchors=()
        if _well_known(space, before)
        else space.outset()
        if guide is surrogate
        else anchors,
        # Without a cache they would be trained again.
        siblings=wanted.siblings and pipeline.builder.cache is not None,
        worth=_worth(pipeline, gate, tick, looks=costs.measuring > _LOOKING),
        listeners=[surrogate] if surrogate else [],
    )
    return Guidance(
        proposer,
        _checks(
            opened,
            pipeline.measures,
            gate,
            early=wanted.early_stop,
        ),
        NoGain(surrogate.rest, budget, wanted.no_gain, progress.outlook)
        if surrogate and wanted.no_gain
        else None,
    )


def _held(space: Space) -> dict[str, Any]:
    """Parameters of what trains, as they are known to do well."""
    dear = {stage.name for stage in space.stages if stage.dear and not stage.lossy}
    anchors = (space.parameters(anchor) for anchor in space.outset())
    return {
        name: value
        for anchor in anchors
        for name, value in anchor.items()
        if name.partition(".")[0] in dear and "." in name
    }


def _well_known(space: Space, before: Earlier) -> bool:
    """Whether the accuracy of this very task was told often enough, with every stage."""
    told = [each for each in before.observations if "accuracy" in each.values and not each.source]
    seen = {name for each in told for name in each.candidate}
    return len(told) >= _KNOWN_WELL and all(stage.name in seen for stage in space.stages)


def _axes(opened: OpenedStudy, pipeline: Pipeline) -> list[Axis]:
    """The objectives that a study optimises, in the order of its values."""
    return [
        Axis(
            name=measure.name,
            direction=measure.direction(opened.record.metric_direction),
            log=measure.objective.log,
            target=measure.target,
            everywhere=not measure.objective.on_device,
            bound=Bound(at_least=measure.goal.at_least, at_most=measure.goal.at_most),
            limit=pipeline.builder.task.metric.limit if measure.name == "accuracy" else None,
        )
        for measure in pipeline.measures
        if measure.goal.optimize
    ]


def _checks(
    opened: OpenedStudy, measures: Sequence[Measure], gate: Hopeless | None, *, early: bool
) -> Callable[[int], Checks]:
    """Makes the checks of trials."""
    rule = RungRule()
    compared = [
        m for m in measures if m.goal.optimize and (not m.objective.dear or m.name == "accuracy")
    ]
    directions = {m.name: m.direction(opened.record.metric_direction) for m in compared}
    log = {m.name: m.objective.log for m in compared}
    # Without accuracy all that is compared is known before training.
    stops = early and "accuracy" in directions

    def checks(trial_id: int) -> Checks:
        number = opened.ledger.number(trial_id)

        def rivals(share: float) -> Sequence[Mapping[str, float]]:
            return opened.ledger.rivals(share, number)

        stopping = EarlyStopping(rule, directions, log, rivals) if stops else None
        return TrialChecks(gate, stopping, opened.ledger, trial_id)

    return checks


@dataclass(frozen=True)
class _Costs:
    """Seconds that candidates are expected to take, from what the baseline takes.

    Nothing that was timed during the search goes into it, so that the same measurements lead to
    the same search.

    Attributes:
        stages: The stages of the space by name.
        each_pass: Seconds of one pass over the training examples.
        measuring: Seconds of everything that is timed.
    """

    stages: Mapping[str, AnyStage]
    each_pass: float
    measuring: float

    @classmethod
    def of(cls, pipeline: Pipeline) -> _Costs:
        """The costs in a study."""
        builder, scene = pipeline.builder, pipeline.scenes[None]
        example = _TRAINING * _BATCHED * scene.reference_ms / 1000.0 / builder.target.batch_size
        timed = sum(m.objective.on_device for m in pipeline.measures)
        free = builder.target.protocol == "fixed"
        return cls(
            {stage.name: stage for stage in builder.space.stages},
            len(builder.task.train) * example,
            0.0 if free else timed * scene.effort.seconds,
        )

    def training(self, candidate: Candidate) -> float:
        """Seconds of its training."""
        passes = sum(self.stages[name].passes(config) for name, config in candidate.configs)
        return passes * self.each_pass

    def all(self, candidate: Candidate) -> float:
        """Seconds of its trial."""
        return _FIXED_SECONDS + self.measuring + self.training(candidate)


def _worth(
    pipeline: Pipeline, gate: Hopeless | None, tick: Callable[[], None], *, looks: bool
) -> Callable[[Candidate], bool]:
    """Whether a candidate that needs no training is worth measuring, by its file if need be."""
    looked: dict[str, Mapping[str, Measurement]] = {}

    def worth(candidate: Candidate) -> bool:
        if gate is None:
            return True
        tick()
        if gate(candidate, {}) is not None:
            return False
        if not looks:
            return True
        try:
            if candidate.id not in looked:
                looked[candidate.id] = pipeline.look(candidate)
        except TrialError:
            return True  # the trial will say what is wrong
        return gate(candidate, looked[candidate.id]) is None

    return worth


def _look(pipeline: Pipeline, tick: Callable[[], None]) -> Callable[[Candidate], dict[str, float]]:
    """What is known of an untrained candidate without a device."""

    def look(candidate: Candidate) -> dict[str, float]:
        tick()
        found = pipeline.look(candidate)
        return {name: measurement.value for name, measurement in found.items()}

    return look


def _sampler(
    opened: OpenedStudy,
    settings: StudyFile,
    space: Space,
    objectives: int,
    budget: Budget,
    trial_seconds: float,
    progress: Progress,
) -> str:
    """The name of the sampler; what `auto` picks is decided once."""
    name = settings.study.sampler
    if name != AUTO:
        return name
    kept: Mapping[str, str] | None = opened.facts.get(SAMPLER_KEY)
    if kept is None:
        situation = Situation(
            candidates=count_candidates(space),
            parameters=count_parameters(space),
            objectives=objectives,
            trials=budget.trials,
            seconds=budget.seconds,
            trial_seconds=trial_seconds,
        )
        choice = choose(situation)
        opened.keep(SAMPLER_KEY, {"name": choice.name, "reason": choice.reason})
    else:
        choice = Choice(**kept)
    progress.phase(f"sampler: {choice.name}, because {choice.reason}")
    return choice.name


def _earlier(
    opened: OpenedStudy, settings: StudyFile, space: Space, url: str, progress: Progress
) -> Earlier:
    names = settings.study.warm_start
    told = [shown_study(name) for name in names]
    kept = opened.facts.get(WARM_KEY)
    if kept is not None:
        before = Earlier.model_validate(kept["earlier"])
        if told != kept["names"]:
            raise StudyFileError(
                f"study '{opened.record.settings.study.name}' began with [study] warm_start = "
                f"{kept['names']} and is launched with {told}; put it back to go on, or "
                "give the new study another name"
            )
        return before
    if not names:
        return Earlier()
    found = earlier(names, url, space, opened)
    opened.keep(WARM_KEY, {"names": told, "earlier": found.model_dump(mode="json")})
    progress.phase(str(found))
    return found


def _sensitivity(
    opened: OpenedStudy,
    settings: StudyFile,
    pipeline: Pipeline,
    progress: Progress,
    tick: Callable[[], None],
) -> Sensitivity | None:
    if not settings.study.sensitivity:
        return None
    kept = opened.facts.get(SENSITIVITY_KEY)
    if kept is not None:
        return Sensitivity.model_validate(kept)
    found = probe(pipeline, tick=tick, phase=progress.phase)
    opened.keep(SENSITIVITY_KEY, found.model_dump(mode="json"))
    return found


def _told(axes: Sequence[Axis], space: Space, seen: Sequence[Observation]) -> list[Told]:
    index = {axis.name: position for position, axis in enumerate(axes)}
    found = []
    for each in seen:
        drawn = each.drawn(space)
        values = {index[name]: value for name, value in each.values.items() if name in index}
        if drawn is not None and values:
            found.append(
                Told(drawn.parameters, drawn.distributions, values, each.fidelity, each.source)
            )
    return found
