"""The screening sampler: looks at what is cheap before it tries what is dear."""

from parefront.search.samplers.screening.observations import PARTIAL_KEY, Told, observed
from parefront.search.samplers.screening.outlook import Outlook
from parefront.search.samplers.screening.sampler import ScreeningSampler

__all__ = ["PARTIAL_KEY", "Outlook", "ScreeningSampler", "Told", "observed"]
