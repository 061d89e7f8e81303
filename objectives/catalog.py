"""All objectives, in the order in which they are shown."""

from __future__ import annotations

from parefront.objectives.accuracy import Accuracy
from parefront.objectives.latency import Latency
from parefront.objectives.objective import Objective
from parefront.objectives.size import Size

OBJECTIVES: tuple[Objective, ...] = (Accuracy(), Latency(), Size())
