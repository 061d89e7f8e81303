"""Ranges of activations, observed on calibration examples.

ONNX Runtime brings calibrators of its own. They keep every activation of every example in
memory, and their entropy method, with its fixed 128 bins for 128 levels, has one threshold to
choose from and so always finds the largest value. These stream over the examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from parefront.errors import StageError
from parefront.spaces.quantization.graph import refusals
from parefront.spaces.stage import StageContext

Calibration = Literal["minmax", "average", "entropy", "percentile", "mse"]
Range = tuple[float, float]
"""Smallest and largest value that is represented; the range includes 0."""
Counts = NDArray[np.int64]
"""Histogram of magnitudes: bin `i` of `n` counts values in [i, i + 1) * maximum / n."""
Feeds = Mapping[str, NDArray[np.generic]]
"""Named inputs, batch first."""

CALIBRATION_BATCH = 16
"""Small, because all activations of a batch are in memory at once."""

BINS = 2048
PERCENTILE = 99.99

CANDIDATE_STEP = 16
"""Bins between two limits that the entropy method compares."""
CLIPPED = 0.001
"""Largest share of the values that the entropy method may clip.

Its divergence counts the rounding of many equal values, such as what a layer makes of a constant
background, as a great loss, though it is none. Without a bound it would clip a fifth of the
values to round such a spike less, and did cost a quarter of the accuracy on handwritten digits.
"""

_TINY = float(np.finfo(np.float32).tiny)


def _bins_holding(counts: Counts, share: float) -> int:
    cumulative = np.cumsum(counts)
    return int(np.searchsorted(cumulative, cumulative[-1] * share)) + 1


def percentile_bins(counts: Counts, levels: int) -> int:  # noqa: ARG001
    """How many bins hold `PERCENTILE` percent of the values."""
    return _bins_holding(counts, PERCENTILE / 100)


def entropy_bins(counts: Counts, levels: int) -> int:
    """How many bins to keep so that clipping and rounding together lose least information.

    The loss is the Kullback-Leibler divergence between the histogram, with what lies beyond the
    limit moved into the last bin kept that is not empty, and the same bins merged into levels.
    Szymon Migacz, "8-bit inference with TensorRT" (2017). At most the share `CLIPPED` is clipped.

    Args:
        counts: Histogram of magnitudes.
        levels: Integers that magnitudes are rounded to.
    """
    least = min(max(levels, _bins_holding(counts, 1 - CLIPPED)), len(counts))
    # Down from all bins, so that of equally good limits the one that clips least is taken.
    ends = range(len(counts), least - 1, -CANDIDATE_STEP)
    return min(ends, key=lambda end: _divergence(counts, end, levels))


def _divergence(counts: Counts, end: int, levels: int) -> float:
    kept = counts[:end].astype(np.float64)
    occupied = np.flatnonzero(kept)
    level = occupied * levels // end
    mass, bins = np.bincount(level, kept[occupied]), np.bincount(level)
    merged = (mass / np.maximum(bins, 1))[level]
    reference = kept[occupied]
    reference[-1] += counts[end:].sum()
    p, q = reference / reference.sum(), merged / merged.sum()
    return float(np.sum(p * np.log(p / q)))


def mse_bins(counts: Counts, levels: int) -> int:
    """How many bins to keep so that clipping and rounding together leave the least squared error.

    A value within the limit is off by a step's uniform error, a twelfth of its square on average;
    one beyond it by its distance to the limit, for which the middle of its bin stands.

    Args:
        counts: Histogram of magnitudes.
        levels: Integers that magnitudes are rounded to.
    """
    ends = np.arange(CANDIDATE_STEP, len(counts) + 1, CANDIDATE_STEP)
    middles = np.arange(len(counts)) + 0.5
    beyond = np.maximum(middles - ends[:, None], 0.0)
    errors = (beyond**2 * counts).sum(axis=1)
    errors += np.cumsum(counts)[ends - 1] * (ends / levels) ** 2 / 12
    return int(ends[errors.argmin()])


_LIMITS: Mapping[Calibration, Callable[[Counts, int], int]] = {
    "entropy": entropy_bins,
    "percentile": percentile_bins,
    "mse": mse_bins,
}


def activation_ranges(
    model: onnx.ModelProto,
    tensors: Sequence[str],
    batches: Callable[[], Iterable[Feeds]],
    method: Calibration,
    bits: int = 8,
) -> dict[str, Range]:
    """The range of each tensor that some bits should represent.

    `"minmax"` takes all values seen, `"average"` the mean of the extremes of each batch, which one
    odd example moves little (the moving average of Jacob et al. 2018, all batches alike). The
    other methods limit the magnitude, by a histogram of `BINS` bins in a second pass over the
    examples: `"percentile"` at the given percentile, `"entropy"` where clipping and rounding lose
    least information and `"mse"` where their squared error is least. Zeros are left out of the
    histogram, because they are represented exactly whatever the range.

    Args:
        model: Model whose types are inferred.
        tensors: Names of floating-point tensors of the graph.
        batches: Called for each pass over the examples.
        method: How to choose the range.
        bits: Bits of an activation.

    Returns:
        A range for each tensor; one with values that are not finite has a range that is not.

    Raises:
        StageError: If ONNX Runtime cannot run the model on the examples.
    """
    if not tensors:
        return {}
    extremes: dict[str, list[Range]] = {name: [] for name in tensors}
    run = observer(model, tensors)
    for feeds in batches():
        for name, values in zip(tensors, run(feeds), strict=True):
            extremes[name].append((float(values.min(initial=0.0)), float(values.max(initial=0.0))))
    ranges = {name: _over(each, method) for name, each in extremes.items()}
    if method in ("minmax", "average"):
        return ranges

    maxima = {name: max(-low, high) for name, (low, high) in ranges.items()}
    # Magnitudes near the smallest float cannot be scaled to bins; they are zero in all but name.
    wide = [name for name, top in maxima.items() if BINS * _TINY < top < np.inf]
    if not wide:
        return ranges
    counts = {name: np.zeros(BINS, np.int64) for name in wide}
    run = observer(model, wide)
    for feeds in batches():
        for name, values in zip(wide, run(feeds), strict=True):
            counts[name] += _histogram(values, maxima[name])
    for name in wide:
        low, high = ranges[name]
        # All steps cover both signs or only one.
        levels = 2 ** (bits - 1) if low < 0 < high else 2**bits
        limit = _LIMITS[method](counts[name], levels) * maxima[name] / BINS
        ranges[name] = (max(low, -limit), min(high, limit))
    return ranges


def _over(extremes: Sequence[Range], method: Calibration) -> Range:
    """The range over all batches; NaN if there was one."""
    lows, highs = np.array(extremes or [(0.0, 0.0)]).T
    if method == "average":
        return float(lows.mean()), float(highs.mean())
    return float(lows.min()), float(highs.max())


def _histogram(values: NDArray[np.float32], maximum: float) -> Counts:
    bins = (np.abs(values.ravel()) * (BINS / maximum)).astype(np.int32)
    counts = np.bincount(np.minimum(bins, BINS - 1), minlength=BINS)
    counts[0] -= values.size - np.count_nonzero(values)
    return counts


def observer(
    model: onnx.ModelProto, tensors: Sequence[str]
) -> Callable[[Feeds], list[NDArray[np.float32]]]:
    """A function that runs the model and returns the tensors."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    observed.graph.ClearField("output")
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    with refusals("run the exported model for calibration"):
        session = onnxruntime.InferenceSession(
            observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(feeds: Feeds) -> list[NDArray[np.float32]]:
        with refusals("run the exported model on the calibration examples"):
            return list(session.run(list(tensors), dict(feeds)))

    return run


def calibration_feeds(model: onnx.ModelProto, context: StageContext) -> Iterator[Feeds]:
    """The calibration examples as the model takes them, in order, with a tick after each batch.

    Raises:
        StageError: If there are none, or the model has an input the context does not name.
    """
    declared = {entry.name: entry for entry in model.graph.input}
    if unknown := sorted(set(declared).difference(context.input_names)):
        raise StageError(
            f"expected an exported model with the inputs {', '.join(context.input_names)}, got"
            f" one with {', '.join(unknown)}"
        )
    if not len(context.calibration):
        raise StageError("static quantisation needs calibration examples, got none")
    fixed = {entry.type.tensor_type.shape.dim[0].dim_value for entry in declared.values()} - {0}
    size = max(fixed, default=CALIBRATION_BATCH)
    for inputs, _ in context.calibration.batches(size):
        yield {
            name: _of_length(values.numpy(), size if fixed else len(values))
            for name, values in zip(context.input_names, inputs, strict=True)
            if name in declared
        }
        context.tick()


def _of_length(values: NDArray[np.generic], length: int) -> NDArray[np.generic]:
    """The values, repeated from the start where a last batch is too short."""
    return np.resize(values, (length, *values.shape[1:]))
