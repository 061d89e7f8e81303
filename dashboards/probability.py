"""How sure it is that a candidate is on the front, for figures and tables."""

from __future__ import annotations

import numpy as np
import pandas as pd

from parefront.dashboards.frame import Row, flags
from parefront.search.frame import front_rows

ON_FRONT = ("certain", "front")
"""Kinds of rows that are on the front."""


def probability_text(probability: float) -> str:
    """A probability in whole percent, empty if it is 0 or 1.

    Example:
        >>> probability_text(0.871), probability_text(0.998), probability_text(1.0)
        ('87 %', '>99 %', '')
    """
    percent = round(100 * probability)
    if probability in (0.0, 1.0):
        return ""
    return ">99 %" if percent == 100 else "<1 %" if percent == 0 else f"{percent} %"


def front_words(row: Row) -> str:
    """How probable it is that nothing beats a row, in a sentence; empty if it is 0 or 1."""
    text = probability_text(row["front_probability"])
    return f"on the front with a probability of {text}" if text else ""


def kinds(trials: pd.DataFrame) -> pd.Series[str]:
    """What each row is to the front.

    Returns:
        `"certain"` and `"front"` for what is on it, `"possible"` for what may be, `"outside"` for
        what breaks a bound, `"other"` for the rest.
    """
    chosen = [
        front_rows(trials, "certain"),
        front_rows(trials, "on"),
        ~flags(trials, "feasible"),
        front_rows(trials, "possible"),
    ]
    names = ["certain", "front", "outside", "possible"]
    return pd.Series(np.select(chosen, names, "other"), index=trials.index, dtype=str)


def possible_of(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows that are not on the front but may be, the most probable first."""
    found = trials[(kinds(trials) == "possible").to_numpy(dtype=bool)]
    return found.sort_values(["front_probability", "trial"], ascending=[False, True])
