"""All samplers by the name a study file uses."""

from __future__ import annotations

from collections.abc import Callable

import optuna

from parefront.search.samplers.random import random
from parefront.search.samplers.tpe import tpe

SAMPLERS: dict[str, Callable[[int], optuna.samplers.BaseSampler]] = {"tpe": tpe, "random": random}
