"""Trials on a Ray cluster, as many at once as it has room for; Ray Tune runs them."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from contextlib import closing, nullcontext
from types import TracebackType
from typing import Self

import ray
from ray import tune
from ray.tune.experiment import Trial

from parefront.errors import EngineError
from parefront.objectives.targets.device import Device
from parefront.objectives.targets.target import Target
from parefront.search.attended import attended
from parefront.search.desk import Desk
from parefront.search.engines.ray.cluster import Cluster, kept
from parefront.search.engines.ray.conductor import Conductor
from parefront.search.engines.ray.cores import own_cores, pin
from parefront.search.engines.ray.devices import open_devices, own_resources, own_split
from parefront.search.engines.ray.job import Job, Mark
from parefront.search.engines.ray.scheduler import DeskScheduler, Gone, Leaving, Lookout
from parefront.search.engines.ray.scratch import Scratch
from parefront.search.engines.ray.searcher import DeskSearcher
from parefront.search.engines.ray.trainable import Evaluation
from parefront.search.engines.section import EngineSection
from parefront.search.files import StudyFiles
from parefront.search.launch import Stop
from parefront.search.pipeline import Pipeline
from parefront.search.plan import Plan


class RayEngine:
    """Evaluates candidates on the workers of a Ray cluster.

    Args:
        plan: The launch.
        stop: A request to end, shown that the launch goes on while nodes are waited for.
    """

    def __init__(self, plan: Plan, stop: Stop) -> None:
        self.plan = plan
        self._stop = stop
        section = plan.settings.engine
        self._needs = needs(section)
        targets = plan.settings.everywhere
        self._split = own_split(targets)
        self._cluster = Cluster(section.address, len(self._split.training), own_resources(targets))
        self._devices: Mapping[str | None, Device] = {}

    def __enter__(self) -> Self:
        """Starts Ray here, or joins a cluster.

        Raises:
            EngineError: If it cannot.
            Interrupted: If a stop is requested meanwhile.
        """
        section = self.plan.settings.engine
        with attended(self._stop):
            self._cluster.open()
        try:
            # Nodes that are started on demand can only come to a cluster that was joined.
            on_demand = section.workers is not None and section.address is not None
            if not on_demand and not self._cluster.room(self._needs):
                raise EngineError(
                    f"a trial needs {_told(self._needs)}, and no node of the cluster has that; ask "
                    "for less in [engine], or join a cluster by its address, and set workers too "
                    "where nodes are started on demand"
                )
            self._devices = open_devices(self.plan.settings.everywhere, self._stop)
            if section.address is None:
                pin(self._split.training)
        except BaseException:
            self._cluster.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends what was started."""
        pin(own_cores())
        self._cluster.close()

    def device(self, name: str | None, target: Target) -> Device:  # noqa: ARG002
        """The device of a target, as the workers use it."""
        return self._devices[name]

    def run(self, desk: Desk, pipeline: Pipeline) -> str:
        """Has the workers evaluate trials until there are no more, or a stop is requested.

        Raises:
            EngineError: If the cluster is gone, or the workers cannot work.
            StorageError: If the storage fails.
        """
        conductor = Conductor(
            desk,
            workers=self._room,
            lost=self._cluster.lost,
            hang=self.plan.settings.engine.hang,
            needs=_told(self._needs),
        )
        files = StudyFiles.of(self.plan.settings, self.plan.url)
        in_folder = files.remote is None
        with Mark.set_in(files.root) if in_folder else nullcontext() as mark:
            packed = Job.of(self.plan, pipeline, self._devices, mark).packed()
            try:
                with closing(Scratch()) as scratch, kept(signal.SIGUSR1):
                    self._tune(conductor, packed, str(scratch.path))
            except (Exception, Gone) as error:  # noqa: BLE001 - raised below
                conductor.error = conductor.error or self._cluster.lost() or error
            finally:
                conductor.leave()
        if isinstance(conductor.error, ray.exceptions.RayError | tune.TuneError):
            raise EngineError(f"Ray failed: {conductor.error}", again=True) from conductor.error
        if conductor.error is not None:
            raise conductor.error
        return conductor.ended or desk.was_stopped

    def _tune(self, conductor: Conductor, packed: bytes, folder: str) -> None:
        bundle = tune.PlacementGroupFactory([dict(self._needs)])
        tune.run(
            tune.with_resources(tune.with_parameters(Evaluation, job=packed), bundle),
            name="trials",
            storage_path=folder,
            search_alg=DeskSearcher(conductor),
            scheduler=DeskScheduler(conductor),
            callbacks=[Lookout(conductor)],
            stop=Leaving(conductor),
            num_samples=-1,
            reuse_actors=True,
            max_failures=0,  # what is tried again is the desk's to decide
            raise_on_failed_trial=False,
            trial_name_creator=_id,
            trial_dirname_creator=_id,
            verbose=0,
            progress_reporter=_NoReporter(),
        )

    def _room(self) -> int:
        """How many trials may be out at once."""
        most = self.plan.settings.engine.workers
        return most if most is not None else max(1, self._cluster.room(self._needs))


class _NoReporter(tune.ProgressReporter):
    """Shows nothing; a launch has its own display."""

    def should_report(self, trials: list[Trial], done: bool = False) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def report(self, trials: list[Trial], done: bool, *sys_info: object) -> None:
        """Nothing."""


def needs(section: EngineSection) -> dict[str, float]:
    """Resources that Ray keeps for a trial."""
    found = {"CPU": section.cpus}
    if section.gpus:
        found["GPU"] = section.gpus
    if section.memory_mb is not None:
        found["memory"] = section.memory_mb * 1e6
    return found | section.resources


def _told(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items())


def _id(trial: Trial) -> str:
    return str(trial.trial_id)
