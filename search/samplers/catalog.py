"""All samplers by the name a study file uses, but for `screening`, which looks before it tries."""

from __future__ import annotations

from parefront.search.samplers.gp import GP
from parefront.search.samplers.kind import SamplerKind
from parefront.search.samplers.nsga2 import NSGA2
from parefront.search.samplers.nsga3 import NSGA3
from parefront.search.samplers.qmc import QMC
from parefront.search.samplers.random import RANDOM
from parefront.search.samplers.tpe import TPE

SAMPLERS: dict[str, SamplerKind] = {
    "tpe": TPE,
    "nsga2": NSGA2,
    "nsga3": NSGA3,
    "gp": GP,
    "random": RANDOM,
    "qmc": QMC,
}
