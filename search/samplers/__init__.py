"""Samplers: what proposes candidates, one file or folder each."""

from parefront.search.samplers.screening import (
    PARTIAL_KEY,
    Outlook,
    ScreeningSampler,
    Told,
    observed,
)

__all__ = ["PARTIAL_KEY", "Outlook", "ScreeningSampler", "Told", "observed"]
