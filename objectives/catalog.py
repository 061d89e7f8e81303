"""All objectives, in the order in which they are shown."""

from __future__ import annotations

from parefront.objectives.accuracy import Accuracy
from parefront.objectives.download_size import DownloadSize
from parefront.objectives.energy import Energy
from parefront.objectives.latency import Latency
from parefront.objectives.load_time import LoadTime
from parefront.objectives.macs import Macs
from parefront.objectives.memory import Memory
from parefront.objectives.objective import Objective
from parefront.objectives.parameters import Parameters
from parefront.objectives.size import Size
from parefront.objectives.throughput import Throughput

OBJECTIVES: tuple[Objective, ...] = (Accuracy(), Latency(), Size())
"""Those that are always measured."""

EXTRAS: tuple[Objective, ...] = (
    Throughput(),
    Memory(),
    LoadTime(),
    Energy(),
    DownloadSize(),
    Parameters(),
    Macs(),
)
"""Those that are measured where a study file asks for them."""

ALL: tuple[Objective, ...] = OBJECTIVES + EXTRAS
