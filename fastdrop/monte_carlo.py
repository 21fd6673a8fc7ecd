"""Monte-Carlo dropout: the statistics of a network's outputs over passes with different masks.

Source: Gal and Ghahramani 2016, "Dropout as a Bayesian approximation"; mutual information as in Houlsby et al. 2011 (BALD),
equation 2, and Gal, Islam and Ghahramani 2017, equation 3.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fastdrop import _config, _validate, arrays, fusion
from fastdrop._network import Network
from fastdrop._types import Array, Shape
from fastdrop.backends.select import backend_of, in_kind
from fastdrop.inference import OUTPUT_KINDS, PROBABILISTIC_KINDS, known_kind, probabilities, rows_at_once
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.chain import opened
from fastdrop.layers.dropout import AbstractMasked
from fastdrop.layers.passes import MonteCarlo, Pass, Source, run_chain
from fastdrop.mask import MAX_ELEMENTS, checked_shared_rows
from fastdrop.predictor import INFERENCE
from fastdrop.rng import TWO_POW_32

Floats = npt.NDArray[np.float64]
Result = TypeVar("Result")

ELEMENTS_AT_ONCE = 1 << 24
"""Most elements of an array between two layers in all passes that are done at the same time: memory stays bounded."""
STACKED_ROWS = 1600
"""Rows of several passes that go through the layers together: products are as fast as they get, and memory stays bounded."""


@dataclass(frozen=True, eq=False, slots=True)
class MonteCarloPrediction:
    """What `predict_mc` returns; all statistics in binary64.

    Attributes
    ----------
    mean, std : array of the outputs' shape
        Mean and population standard deviation (divisor: the number of passes) of each output over the passes: of its
        probability, or of its value where ``output_kind`` is "values".
    entropy : array, or None for "values"
        Predictive entropy, that of the mean, in nats: one for each row of probabilities; for "sigmoid_logits", where each output
        has a probability of its own, one for each output.
    mutual_information : array of that shape, or None
        Entropy of the mean less the mean of the passes' entropies, at least 0: what the passes disagree about.
    samples : array, shape (passes, *outputs), dtype of the network, or None
        Probabilities or values of each pass.
    """

    mean: Floats
    std: Floats
    entropy: Floats | None = None
    mutual_information: Floats | None = None
    samples: Array | None = None


class LayeredNetwork(Network, Protocol):
    """A network that passes can be sent through from any layer on."""

    layers: tuple[AbstractLayer, ...]

    def _prepared(self, x: Any) -> Array:
        """Return x as the layers take it."""

    def _streams(self) -> Mapping[AbstractLayer, Source]:
        """Return where the masks come from."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of a row of the outputs."""


def predict_mc(
    net: LayeredNetwork,
    x: Any,
    num_samples: int = 50,
    *,
    seed: int | None = None,
    first_sample: int = 0,
    row_offset: int = 0,
    shared_rows: int | str | None = None,
    return_samples: bool = False,
) -> MonteCarloPrediction:
    """Return statistics of the outputs over passes in which dropout, and nothing else, works as in training.

    Parameters
    ----------
    net : Sequential
    x : array, shape (rows, ...), float32 or float64
    num_samples : int >= 1
        Passes.
    seed : int in [0, 2**64), optional
        In place of the network's; a layer's own still holds for its mask.
    first_sample : int >= 0
        Number of the first pass, for passes that are made by several calls.
    row_offset : int >= 0
        Number of the first row of x, for an x that is cut in pieces.
    shared_rows : int >= 1 or "batch", optional
        In place of that of every mask: so many consecutive rows (or all) of a pass share one mask row.
    return_samples : bool
        Keep what each pass gives, too.

    Returns
    -------
    prediction : MonteCarloPrediction

    Raises
    ------
    StateError: ``net.output_kind`` is None (the network was not trained by `fit`, nor was it set).
    TypeError, ValueError: bad arguments.

    Notes
    -----
    What comes before the first layer with a mask is computed once. Memory does not grow with the passes, unless samples are
    kept: sums over passes, of deviations from the first one for the standard deviation, are added up in order, in binary64.
    So the results do not depend on threads, nor on how rows are cut (to rounding, where rows share a mask and what it drops is
    left out). Batches of passes may go through the layers in several Python threads. `step_count` stays as it is.

    Randomness
    ----------
    Pass number i draws its masks from key (seed, stream, step i) in domains of their own, apart from those of training.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> net = fd.Sequential([fd.Dropout(0.5), fd.Dense(1, weight_initializer="ones")], input_shape=(2,), seed=0)
    >>> net.output_kind = "values"
    >>> prediction = net.predict_mc(np.ones((1, 2), "float32"), 1000)
    >>> prediction.mean.round(1), prediction.std.round(1)
    (array([[2.]]), array([[1.4]]))
    """
    kind = known_kind(net, OUTPUT_KINDS)
    first_sample = _validate.integer("first_sample", first_sample, 0, TWO_POW_32 - 1)
    num_samples = _validate.integer("num_samples", num_samples, 1, TWO_POW_32 - first_sample)
    seed = _validate.optional_seed("seed", seed)
    row_offset = _validate.integer("row_offset", row_offset, 0, MAX_ELEMENTS - 1)
    shared_rows = None if shared_rows is None else checked_shared_rows(shared_rows)
    return_samples = _validate.boolean("return_samples", return_samples)
    given, x = x, arrays.float_array("x", x)
    net._prepared(x[:0])  # builds the network, and checks the shape of x
    passes = MonteCarlo(num_samples, net.seed if seed is None else seed, shared_rows)
    run = _Run(net, x.shape[1:], Pass(True, first_sample, row_offset, net._streams(), keep=False, monte_carlo=passes))
    samples = np.empty((num_samples, len(x), *net.output_shape(x.shape[1:])), net.dtype) if return_samples else None
    parts = []
    for start in range(0, max(1, len(x)), run.rows_at_once):
        rows, statistics = slice(start, start + run.rows_at_once), _Statistics(kind)
        for first, outputs in run.outputs(net._prepared(x[rows]), start):
            values = arrays.on_host(probabilities(outputs, kind))
            statistics.add(values)
            if samples is not None:
                samples[first : first + len(values), rows] = values
        parts.append(statistics.results())
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    back = backend_of(x)
    if arrays.is_device(x):
        joined = {name: in_kind(back.copy_of(values), given) for name, values in joined.items()}
        samples = None if samples is None else in_kind(back.copy_of(samples), given)
    return MonteCarloPrediction(**joined, samples=samples)


class _Run:
    """All passes through the layers, done in parts of so many rows of x at once, and of those as many passes as fit."""

    def __init__(self, net: LayeredNetwork, row_shape: Shape, whole: Pass) -> None:
        chain = list(opened(net.layers))
        first = next((i for i, layer in enumerate(chain) if any(node.layer.varies for node in layer.walk())), len(chain))
        self.whole = whole
        self.before, self.behind = fusion.plan(chain[:first]), fusion.plan(chain[first:])
        self._widest = max(1, net.widest(row_shape))
        self._uncut = any(_has_all_rows(node.layer) for layer in chain for node in layer.walk())
        self.rows_at_once = MAX_ELEMENTS if self._uncut else rows_at_once(self._widest, STACKED_ROWS)

    def outputs(self, x: Array, start: int) -> Iterator[tuple[int, Array]]:
        """Yield (first pass, outputs (passes, rows, ...)) for rows of x, the first of which is number `start`.

        Where there are enough batches of passes, each thread does one at a time.
        """
        y, _ = run_chain(self.before, x, INFERENCE)
        total, rows = self._passes.passes, len(x)
        serial = arrays.is_device(x) or _config.is_single_thread()
        count, threads = self._batches(rows, 1 if serial else _config.get_num_threads())
        stacked = backend_of(y).concatenate([y] * -(-total // count))

        def outputs_of(batch: int) -> tuple[int, Array]:
            low, high = total * batch // count, total * (batch + 1) // count
            return low, self._outputs(stacked[: (high - low) * rows], start, low, high)

        if threads == 1:
            return map(outputs_of, range(count))
        few = stacked[: rows if self._uncut else 0]
        self._outputs(few, start, 0, 1)  # binds the masks here: a warning is to name the caller's line
        return _in_threads(outputs_of, count, threads)

    def _batches(self, rows: int, threads: int) -> tuple[int, int]:
        """Return into how many batches the passes over so many rows are cut, and how many are done at the same time.

        All that are done at the same time have at most ELEMENTS_AT_ONCE elements between two layers, unless one pass has more.
        """
        total, rows = self._passes.passes, max(1, rows)
        together = max(1, min(self.rows_at_once, STACKED_ROWS) // rows)
        smaller = min(together, ELEMENTS_AT_ONCE // (threads * rows * self._widest))
        if threads == 1 or total <= together or smaller == 0 or total < threads:
            return -(-total // together), 1
        return min(total, -(-total // (smaller * threads)) * threads), threads

    def _outputs(self, stacked: Array, start: int, low: int, high: int) -> Array:
        """Return the outputs of passes low .. high - 1 (passes, rows, ...)."""
        passes = self._passes._replace(passes=high - low)
        step, row_offset = self.whole.step + low, self.whole.row_offset + start
        outputs, _ = run_chain(self.behind, stacked, self.whole._replace(step=step, row_offset=row_offset, monte_carlo=passes))
        return outputs.reshape(high - low, len(stacked) // (high - low), *outputs.shape[1:])

    @property
    def _passes(self) -> MonteCarlo:
        assert self.whole.monte_carlo is not None
        return self.whole.monte_carlo


def _has_all_rows(layer: AbstractLayer) -> bool:
    """Return whether a layer's mask is for so many rows and no others."""
    noise_shape = layer.noise_shape if isinstance(layer, AbstractMasked) else None
    return noise_shape is not None and noise_shape[0] not in (1, None)


def _in_threads(work: Callable[[int], Result], count: int, threads: int) -> Iterator[Result]:
    """Yield ``work(0) ... work(count - 1)``, done by so many Python threads whose kernels are serial."""

    def alone(number: int) -> Result:
        with _config.single_thread():
            return work(number)

    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for number in range(count):
                waiting.append(pool.submit(alone, number))
                if len(waiting) == 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


class _Statistics:
    """Running sums over the passes: they are added one by one, so that their batches do not show in the result.

    The variance comes from deviations d from the first pass: ``mean(d**2) - mean(d)**2``. The first pass is within
    sqrt(n - 1) standard deviations of the mean, so that cancellation costs at most a factor of n in rounding.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.count = 0
        self.first: Floats | None = None
        self.total: Floats | float = 0.0
        self.deviations: Floats | float = 0.0
        self.squares: Floats | float = 0.0
        self.entropies: Floats | float = 0.0

    def add(self, values: Array) -> None:
        """Add passes: (passes, rows, ...)."""
        exact = values.astype(np.float64)
        if self.first is None:
            self.first = exact[0].copy()
        self.count += len(exact)
        with np.errstate(invalid="ignore", over="ignore"):
            deviations = exact - self.first
            self.squares = _add_in_order(self.squares, deviations * deviations)
            self.deviations = _add_in_order(self.deviations, deviations)
            if self.kind in PROBABILISTIC_KINDS:
                self.entropies = _add_in_order(self.entropies, _entropy(exact, self.kind))
            self.total = _add_in_order(self.total, exact)

    def results(self) -> dict[str, Floats]:
        """Return the statistics by their names in a `MonteCarloPrediction`."""
        with np.errstate(invalid="ignore", over="ignore"):
            mean = np.asarray(self.total / self.count)
            variance = self.squares / self.count - (self.deviations / self.count) ** 2
            std = np.sqrt(np.maximum(variance, 0.0))
        if self.kind not in PROBABILISTIC_KINDS:
            return {"mean": mean, "std": std}
        entropy = _entropy(mean, self.kind)
        information = np.maximum(entropy - self.entropies / self.count, 0.0)
        return {"mean": mean, "std": std, "entropy": entropy, "mutual_information": information}


def _add_in_order(total: Floats | float, terms: Floats) -> Floats:
    """Return ``total + terms[0] + terms[1] + ...``, in this order; overwrites the terms."""
    terms[0] += total
    last: Floats = np.add.accumulate(terms, axis=0, out=terms)[-1]
    return last.copy()


def _entropy(probabilities: Floats, kind: str) -> Floats:
    """Return ``-sum p ln p`` over the last axis; for "sigmoid_logits", and a single column, the entropy of yes and no."""
    if kind == "sigmoid_logits":
        return _surprise(probabilities) + _surprise(1.0 - probabilities)
    if probabilities.shape[-1] == 1:  # of the second of two classes
        probabilities = np.concatenate([1.0 - probabilities, probabilities], axis=-1)
    total: Floats = _surprise(probabilities).sum(axis=-1)
    return total


def _surprise(p: Floats) -> Floats:
    """Return ``-p ln p``, 0 for p = 0."""
    return p * -np.log(np.where(p == 0, 1.0, p))
