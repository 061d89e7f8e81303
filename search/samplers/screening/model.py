"""Predictions of one dear objective or constraint from what was tried."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parefront.search.samplers.screening.gain import NODES
from parefront.search.samplers.screening.gaussian_process import GaussianProcess
from parefront.search.samplers.screening.hyper import Columns, Hyper
from parefront.search.samplers.screening.hyper_fit import fit
from parefront.search.samplers.screening.normal import student_quantile
from parefront.search.samplers.screening.warping import Warp

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

_ENOUGH = 8
"""Values from which on predictions are checked against each other."""
_DEVIATION = (1.0, 2.0)
"""How far predicted deviations are scaled at most, for what was left out to fit them."""


_FREEDOM = 5.0
"""Degrees of freedom of predictions, where they have to be safe."""


@dataclass(frozen=True)
class Fitted:
    """What is fitted now and then.

    Attributes:
        hyper: Hyperparameters of the Gaussian process.
        power: Power of the warp.
    """

    hyper: Hyper
    power: float

    @classmethod
    def of(cls, inputs: Floats, columns: Columns, values: Floats) -> Fitted:
        """Fits to values at inputs.

        Normal values need not be the most regular ones, so the values are warped only if the
        process then explains them better than as they are.

        Args:
            inputs: `(n, d)` rows of what was tried.
            columns: What the columns mean.
            values: `(n,)` values.
        """
        best, most = cls(Hyper.prior(columns), 1.0), -np.inf
        if len(values) == 0:
            return best
        for power in {1.0: None, Warp.of(values).power: None}:
            warp = Warp.of(values, power)
            hyper, posterior = fit(inputs, columns, warp.forward(values))
            evidence = posterior + warp.log_slope(values)
            if evidence > most:
                best, most = cls(hyper, power), evidence
        return best


class Model:
    """A Gaussian process on warped values.

    Args:
        inputs: `(n, d)` rows of what was tried.
        columns: What the columns mean.
        values: `(n,)` values.
        fitted: What was fitted to some of them.

    Attributes:
        warp: The map from values to the warped scale.
    """

    def __init__(self, inputs: Floats, columns: Columns, values: Floats, fitted: Fitted) -> None:
        self.warp = Warp.of(values, fitted.power)
        self._process = GaussianProcess(inputs, columns, self.warp.forward(values), fitted.hyper)
        self._factor = 1.0
        if len(values) >= _ENOUGH:
            error = float(np.sqrt(np.mean(self._process.left_out() ** 2)))
            self._factor = min(max(error, _DEVIATION[0]), _DEVIATION[1])

    def predict(self, inputs: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation on the warped scale, each `(k,)`."""
        mean, deviation = self._process.predict(inputs)
        return mean, deviation * self._factor

    def nodes(self, inputs: Floats, widen: float = 1.0) -> Floats:
        """Values at the quadrature nodes, `(k, q)`.

        Args:
            inputs: `(k, d)` rows.
            widen: Factor of the standard deviation.
        """
        mean, deviation = self.predict(inputs)
        return self.warp.backward(mean[:, None] + widen * deviation[:, None] * NODES[None, :])

    def bound(self, inputs: Floats, deviations: float) -> Floats:
        """What measurements are hardly below, as surely as so many deviations mean; `(k,)`.

        Hyperparameters are fitted to few values and taken for true, so the tails of what is
        predicted are heavier than those of the normal distribution: Student's.
        """
        mean, deviation = self._process.predict(inputs)
        spread = self._factor * np.sqrt(deviation**2 + self._process.noise)
        return self.warp.backward(mean - student_quantile(deviations, _FREEDOM) * spread)

    def expected(self, inputs: Floats) -> Floats:
        """Values that are expected at `(k, d)` inputs, `(k,)`."""
        return self.warp.backward(self._process.mean(inputs))

    def believing(self, inputs: Floats, rows: Ints | None = None) -> tuple[Model, Floats]:
        """The model that takes its own predictions at `(k, d)` inputs for true, and these, `(k,)`.

        It is as sure of what it knew before as this one.

        Args:
            inputs: Inputs.
            rows: Those of them that it takes for true; by default all.
        """
        mean = self._process.mean(inputs)
        some = slice(None) if rows is None else rows
        model = copy.copy(self)
        model._process = self._process.joined(inputs[some], mean[some])
        return model, self.warp.backward(mean)
