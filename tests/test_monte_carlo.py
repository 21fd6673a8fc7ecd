"""Monte-Carlo dropout: each pass by the contract, statistics of the passes, the same however the work is cut."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import oracle
import pytest
from assertions import assert_near, assert_same_bits, assert_varied
from strategies import random_array

import fastdrop as fd
from fastdrop import _config, fused, inference, monte_carlo
from fastdrop._types import MONTE_CARLO_DOMAIN
from fastdrop.backends.select import default_backend
from fastdrop.errors import AllDroppedWarning, ArgumentTypeError, ArgumentValueError, StateError
from fastdrop.layers.passes import MonteCarlo, Pass
from fastdrop.monte_carlo import MonteCarloPrediction

FAN_IN, HIDDEN, OUTPUTS, SEED = 5, 9, 3, 14
STATISTICS = ("mean", "std", "entropy", "mutual_information")


def network(kind: str | None = "logits", dtype: str = "float64", **dropout: Any) -> fd.Sequential:
    layers = [
        fd.Dropout(0.3, **dropout),
        fd.Dense(HIDDEN, activation="tanh"),
        fd.Dropout(0.6, **dropout),
        fd.Dense(OUTPUTS, bias_initializer="ones"),
    ]
    net = fd.Sequential(layers, input_shape=(FAN_IN,), seed=SEED, dtype=dtype)
    net.output_kind = kind
    return net


def rows(count: int, dtype: str = "float64") -> np.ndarray:
    return 2 * random_array(count, (count, FAN_IN), dtype)


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def assert_same_prediction(a: MonteCarloPrediction, b: MonteCarloPrediction) -> None:
    for name in (*STATISTICS, "samples"):
        first, second = getattr(a, name), getattr(b, name)
        if first is None:
            assert second is None
        else:
            assert_same_bits(first, second)


# Each pass


@pytest.mark.parametrize("shared_rows", [1, 2, "batch"])
@pytest.mark.parametrize(
    ("fixed_count", "mode"), [(False, "upscale_in_train"), (True, "upscale_in_train"), (False, "downscale_in_infer")]
)
def test_passes_are_those_of_the_contract(shared_rows: int | str, fixed_count: bool, mode: str) -> None:
    """A plain loop over passes, every decision from the oracle: domain + 8, step = number of the pass."""
    x, passes, first_sample, row_offset = rows(4), 5, 7, 3
    net = network("values", fixed_count=fixed_count, mode=mode)
    parameters = [p.value for p in net.parameters()]
    of_row = oracle.fixed_count_row if fixed_count else oracle.bernoulli_row

    def drop(y: np.ndarray, rate: float, stream: int, step: int) -> np.ndarray:
        units = y.shape[1]
        numbers = [oracle.mask_row(r, row_offset, shared_rows) for r in range(len(y))]
        keep = np.array([of_row((SEED, stream, step), rate, m, units, MONTE_CARLO_DOMAIN) for m in numbers])
        scale = oracle.fixed_count_scale(rate, units) if fixed_count else oracle.scale(rate)
        return np.where(keep, y * (scale if mode == "upscale_in_train" else 1.0), 0.0)

    expected = []
    for step in range(first_sample, first_sample + passes):
        hidden = np.tanh(drop(x, 0.3, 0, step) @ parameters[0] + parameters[1])
        expected.append(drop(hidden, 0.6, 1, step) @ parameters[2] + parameters[3])
    options = {"first_sample": first_sample, "row_offset": row_offset, "shared_rows": shared_rows}
    prediction = net.predict_mc(x, passes, return_samples=True, **options)
    assert prediction.samples is not None
    assert np.ptp(expected, axis=0).min() > 0
    np.testing.assert_allclose(prediction.samples, expected, rtol=0, atol=1e-12)


def test_shared_rows_are_the_layers_own_by_default() -> None:
    x = rows(6)
    own = network(shared_rows=3).predict_mc(x, 4, return_samples=True)
    assert_same_prediction(own, network().predict_mc(x, 4, shared_rows=3, return_samples=True))
    assert np.abs(own.mean - network().predict_mc(x, 4).mean).max() > 0
    same = np.tile(x[:1], (6, 1))
    samples = network().predict_mc(same, 4, shared_rows="batch", return_samples=True).samples
    assert samples is not None
    assert (samples == samples[:, :1]).all()


@pytest.mark.parametrize("rate", [0.3, 1.0])
@pytest.mark.filterwarnings("ignore::fastdrop.errors.AllDroppedWarning")
def test_residuals_nested_networks_and_axes(rate: float) -> None:
    """Against the same layers one by one, each mask at its own step."""
    drops = fd.Dropout(rate), fd.Dropout(0.4, noise_shape=(None, 1, None)), fd.Dropout(0.5, seed=99), fd.Dropout(0.2, seed=5)
    dense = fd.Dense(4, activation="relu"), fd.Dense(4), fd.Dense(2)
    residual = fd.Residual([drops[0], dense[1]])
    nested = fd.Sequential([drops[2], fd.Flatten()], seed=77, dtype="float64")
    layers = [dense[0], drops[1], residual, nested, drops[3], dense[2], fd.Activation("softmax")]
    net = fd.Sequential(layers, input_shape=(3, 5), seed=SEED, dtype="float64")
    net.output_kind = "probabilities"
    x = random_array(0, (2, 3, 5), "float64")

    def drop(y: np.ndarray, layer: fd.Dropout, seed: int, step: int) -> np.ndarray:
        mask = fd.Mask(layer.rate, fd.Key(seed, net.stream_of(layer), step), noise_shape=layer._mask.noise_shape)
        bound = mask.bind(y.shape, domain_base=MONTE_CARLO_DOMAIN)
        keep = bound.keep_rectangle((0, bound.rows), (0, bound.columns)).reshape(y.shape)
        return np.where(keep, y * bound.scale, 0.0)

    expected = []
    for step in range(4):
        y = drop(dense[0](x), drops[1], SEED, step)
        y = drop(y + dense[1](drop(y, drops[0], SEED, step)), drops[2], 99, step)
        expected.append(softmax(dense[2](drop(y.reshape(2, 12), drops[3], 5, step))))
    prediction = net.predict_mc(x, 4, return_samples=True)
    assert prediction.samples is not None
    np.testing.assert_allclose(prediction.samples, expected, rtol=1e-12)
    assert np.ptp(expected, axis=0).min() > 0


def test_a_seed_stands_in_place_of_the_networks() -> None:
    x, net = rows(3), network()
    other = network()
    other.seed = 15
    assert_same_prediction(net.predict_mc(x, 5, seed=15), other.predict_mc(x, 5))
    assert_same_prediction(net.predict_mc(x, 5), net.predict_mc(x, 5, seed=SEED))
    assert np.abs(net.predict_mc(x, 5).mean - other.predict_mc(x, 5).mean).max() > 0
    own = network(seed=None)
    own.layers[0].own_seed = 3
    again = own.predict_mc(x, 5, seed=15, return_samples=True).samples
    assert again is not None
    assert np.abs(again - own.predict_mc(x, 5, return_samples=True).samples).max() > 0


def test_nothing_else_changes() -> None:
    net, x = network(), rows(3)
    before, drawn = net(x), net.forward(x, True, step=0)[0]
    prediction = net.predict_mc(x, 3, return_samples=True)
    assert net.step_count == 0
    assert_same_bits(net(x), before)
    assert_same_bits(net.forward(x, True, step=0)[0], drawn)
    assert prediction.samples is not None
    assert np.abs(prediction.samples[0] - softmax(drawn)).max() > 0, "the masks of training"
    assert prediction.samples.dtype == net.dtype


def test_work_before_the_first_mask_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done, backend = [], default_backend()
    product = backend.dense_forward

    def record(x: np.ndarray, weight: Any, *rest: Any) -> Any:
        done.append((len(x), tuple(weight.shape)))
        return product(x, weight, *rest)

    monkeypatch.setattr(backend, "dense_forward", record)
    layers = [fd.Dense(6, activation="relu"), fd.Dense(7), fd.Dropout(0.5), fd.Dense(4), fd.Dropout(0.5), fd.Dense(2)]
    net = fd.Sequential(layers, input_shape=(FAN_IN,), seed=1)
    net.output_kind = "values"
    net.predict_mc(rows(3), 10)
    assert done == [(3, (5, 6)), (3, (6, 7)), (30, (7, 4)), (30, (4, 2))]


def test_without_masks_all_passes_are_alike() -> None:
    net = fd.Sequential([fd.Dense(OUTPUTS)], input_shape=(FAN_IN,), seed=1, dtype="float64")
    net.output_kind = "logits"
    x = rows(6)
    prediction = net.predict_mc(x, 8)
    np.testing.assert_allclose(prediction.mean, net.predict_proba(x), rtol=1e-15)
    assert not prediction.std.any()
    assert prediction.mutual_information is not None
    assert prediction.mutual_information.max() < 1e-15


# Statistics


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["logits", "sigmoid_logits", "probabilities", "values"])
def test_statistics_are_numpys(kind: str, dtype: str) -> None:
    net, x = network(kind, dtype), rows(7, dtype)
    if kind == "probabilities":
        net = fd.Sequential([*net.layers, fd.Activation("softmax")], seed=SEED, dtype=dtype)
        net.output_kind = kind
    prediction = net.predict_mc(x, 40, return_samples=True)
    assert prediction.samples is not None
    assert prediction.samples.dtype == dtype
    samples = prediction.samples.astype(np.float64)
    assert samples.shape == (40, 7, OUTPUTS)
    assert_varied(samples > np.median(samples))
    total = np.zeros((7, OUTPUTS))
    for sample in samples:
        total += sample
    assert_same_bits(prediction.mean, total / 40)
    assert prediction.std.dtype == np.float64
    np.testing.assert_allclose(prediction.std, samples.std(axis=0), rtol=1e-12)
    if kind == "values":
        assert prediction.entropy is None
        assert prediction.mutual_information is None
        return

    def entropy(p: np.ndarray) -> np.ndarray:
        if kind == "sigmoid_logits":
            return -p * np.log(p) - (1 - p) * np.log(1 - p)
        return -(p * np.log(p)).sum(axis=-1)

    of_mean = entropy(samples.mean(axis=0))
    np.testing.assert_allclose(prediction.entropy, of_mean, rtol=1e-12)
    np.testing.assert_allclose(prediction.mutual_information, of_mean - entropy(samples).mean(axis=0), rtol=0, atol=1e-14)
    assert prediction.mutual_information is not None
    assert prediction.mutual_information.min() > 1e-6


@pytest.mark.parametrize("kind", ["logits", "sigmoid_logits"])
def test_certain_probabilities_have_no_entropy(kind: str) -> None:
    """Probabilities of exactly 0 and 1: 0 ln 0 is 0."""
    net = network(kind)
    net.parameters()[3].value = np.array([2000.0, -2000.0, -2000.0])
    prediction = net.predict_mc(rows(3), 5)
    np.testing.assert_array_equal(prediction.mean, [[1.0, 0.0, 0.0]] * 3)
    for name in STATISTICS[1:]:
        assert not getattr(prediction, name).any()


def test_a_small_spread_beside_a_large_mean_is_not_lost() -> None:
    net = fd.Sequential([fd.Dropout(0.5), fd.Dense(1, weight_initializer="ones")], input_shape=(1,), seed=1, dtype="float64")
    net.output_kind = "values"
    net.parameters()[1].value = np.array([1e8])
    prediction = net.predict_mc(np.full((1, 1), 1e-4), 1000, return_samples=True)
    assert prediction.samples is not None
    np.testing.assert_allclose(prediction.std, np.std(prediction.samples - 1e8, axis=0), rtol=1e-9)
    np.testing.assert_allclose(prediction.std, 1e-4, rtol=1e-2)


def test_infinite_values_are_no_error() -> None:
    net = network("values", "float32")
    net.parameters()[3].value = np.array([np.inf, 1.0, np.nan], np.float32)
    prediction = net.predict_mc(rows(2, "float32"), 5)
    assert np.isposinf(prediction.mean[:, 0]).all()
    assert np.isfinite(prediction.mean[:, 1]).all()
    assert np.isnan(prediction.mean[:, 2]).all()


def test_the_mean_converges_to_that_over_all_masks() -> None:
    """All 2**8 masks of a network with 3 inputs and 5 hidden units, each with its probability."""
    rate_in, rate_hidden, passes = 0.3, 0.5, 20_000
    layers = [fd.Dropout(rate_in), fd.Dense(5, activation="tanh"), fd.Dropout(rate_hidden), fd.Dense(2)]
    net = fd.Sequential(layers, input_shape=(3,), seed=4, dtype="float64")
    net.output_kind = "logits"
    w1, b1, w2, b2 = (3 * p.value for p in net.parameters())
    for parameter, value in zip(net.parameters(), (w1, b1, w2, b2), strict=True):
        parameter.value = value
    x = np.array([[0.5, -1.0, 2.0]])
    mean, square, probability = np.zeros(2), np.zeros(2), 0.0
    for bits in itertools.product([0.0, 1.0], repeat=8):
        keep_in, keep_hidden = np.array(bits[:3]), np.array(bits[3:])
        share = (1 - rate_in) ** keep_in.sum() * rate_in ** (3 - keep_in.sum()) * 0.5**5
        hidden = np.tanh(x[0] * keep_in / (1 - rate_in) @ w1 + b1)
        p = softmax(hidden * keep_hidden / (1 - rate_hidden) @ w2 + b2)
        mean, square, probability = mean + share * p, square + share * p * p, probability + share
    assert probability == pytest.approx(1)
    std = np.sqrt(square - mean**2)
    assert std.min() > 0.1
    prediction = net.predict_mc(x, passes)
    assert np.abs(prediction.mean - mean).max() < 4 * std.max() / np.sqrt(passes)
    np.testing.assert_allclose(prediction.std[0], std, rtol=0.02)
    assert np.abs(net.predict_proba(x) - mean).max() > 10 * std.max() / np.sqrt(passes), "weight scaling is another thing"


# However the work is cut


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stacked", [1, 5, 12, 13, 30])
def test_batches_of_passes_and_rows_do_not_show(monkeypatch: pytest.MonkeyPatch, dtype: str, stacked: int) -> None:
    net, x = network(dtype=dtype), rows(13, dtype)
    whole = net.predict_mc(x, 9, return_samples=True)
    monkeypatch.setattr(monte_carlo, "STACKED_ROWS", stacked)
    assert_same_prediction(net.predict_mc(x, 9, return_samples=True), whole)


def test_wide_rows_are_stacked_less(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network(), rows(13)
    whole = net.predict_mc(x, 9)
    monkeypatch.setattr(inference, "ELEMENTS_AT_ONCE", 2 * HIDDEN)
    backend, widths = default_backend(), [0]
    product = backend.dense_forward
    monkeypatch.setattr(
        backend, "dense_forward", lambda x, *rest, **named: (widths.append(len(x)), product(x, *rest, **named))[1]
    )
    assert_same_prediction(net.predict_mc(x, 9), whole)
    assert max(widths) == 2


FAMILY = {
    "dropout": lambda: fd.Dropout(0.4),
    "fixed count": lambda: fd.Dropout(0.5, fixed_count=True),
    "batch": lambda: fd.Dropout(0.4, shared_rows="batch"),
    "gaussian": lambda: fd.GaussianDropout(0.4),
    "alpha": lambda: fd.AlphaDropout(0.4),
    "path": lambda: fd.Residual([fd.Dense(6), fd.DropPath(0.5)]),
    "connect": lambda: fd.DropConnect(6, 0.4, activation="relu"),
}


@pytest.mark.parametrize("name", FAMILY)
def test_every_kind_of_dropout_differs_from_pass_to_pass(name: str) -> None:
    """Passes that are made together are those made one by one, whatever stands before and behind."""
    layers = [fd.Dense(6, activation="tanh"), FAMILY[name](), fd.Dense(OUTPUTS)]
    net = fd.Sequential(layers, input_shape=(FAN_IN,), seed=SEED)
    net.output_kind = "values"
    x = rows(40, "float32")
    together = net.predict_mc(x, 6, row_offset=2, return_samples=True).samples
    single = [net.predict_mc(x, 1, first_sample=i, row_offset=2, return_samples=True).samples[0] for i in range(6)]
    assert_same_bits(together, np.stack(single))
    assert np.abs(together - net.predict(x)).max() > 0.01
    assert max(np.abs(a - b).max() for a, b in itertools.pairwise(single)) > 0.01


@pytest.mark.parametrize("shape", [(5, 4, 6), (4, 6, 6, 2)])
def test_dropout_of_feature_maps(shape: tuple[int, ...]) -> None:
    layers = [fd.SpatialDropout1D(0.5)] if len(shape) == 3 else [fd.SpatialDropout2D(0.5), fd.DropBlock2D(0.3, 2)]
    net = fd.Sequential(layers, input_shape=shape[1:], seed=SEED)
    net.output_kind = "values"
    x = random_array(0, shape)
    together = net.predict_mc(x, 4, return_samples=True).samples
    single = [net.predict_mc(x, 1, first_sample=i, return_samples=True).samples[0] for i in range(4)]
    assert_same_bits(together, np.stack(single))
    assert (together[0] != together[1]).any()


def test_noise_that_is_added_is_silent() -> None:
    """It is no dropout: passes are those of the network without it."""
    net = fd.Sequential([fd.GaussianNoise(1.0), fd.Dense(OUTPUTS)], input_shape=(FAN_IN,), seed=SEED)
    net.output_kind = "values"
    x = rows(4, "float32")
    samples = net.predict_mc(x, 3, return_samples=True).samples
    for sample in samples:
        assert_same_bits(sample, net.predict(x))


@pytest.mark.parametrize("row_offset", [0, 5])
@pytest.mark.parametrize("shared_rows", ["batch", 16])
def test_skipped_units_do_not_show(monkeypatch: pytest.MonkeyPatch, shared_rows: int | str, row_offset: int) -> None:
    net, x = network(), rows(40)
    monkeypatch.setattr(fused, "COPYING_ROWS", 0)
    monkeypatch.setattr(fused, "LEAST_ROWS", 1)
    skipped = net.predict_mc(x, 5, row_offset=row_offset, shared_rows=shared_rows, return_samples=True)
    monkeypatch.setattr(fused, "skips", lambda *masks: False)
    whole = net.predict_mc(x, 5, row_offset=row_offset, shared_rows=shared_rows, return_samples=True)
    np.testing.assert_allclose(skipped.samples, whole.samples, rtol=0, atol=1e-13)


def test_calls_cut_by_first_sample_give_the_same_passes() -> None:
    net, x = network(dtype="float32"), rows(3)
    whole = net.predict_mc(x, 10, return_samples=True).samples
    parts = [net.predict_mc(x, n, first_sample=first, return_samples=True).samples for first, n in ((0, 4), (4, 6))]
    assert whole is not None
    assert_same_bits(np.concatenate(parts), whole)
    assert len(np.unique(whole[:, 0, 0])) == 10
    last = net.predict_mc(x, 1, first_sample=2**32 - 1)
    assert np.abs(last.mean - whole[0]).max() > 0


@pytest.mark.parametrize("shared_rows", [None, 3, "batch"])
def test_rows_cut_by_row_offset_give_the_same_statistics(shared_rows: int | str | None) -> None:
    net, x = network(dtype="float32"), rows(11)
    whole = net.predict_mc(x, 6, shared_rows=shared_rows)
    parts = [net.predict_mc(x[a:b], 6, shared_rows=shared_rows, row_offset=a) for a, b in ((0, 4), (4, 5), (5, 11))]
    for name in STATISTICS:
        assert_same_bits(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


@pytest.mark.parametrize("shared_rows", [1, "batch"])
@pytest.mark.parametrize("rows", [3, 40])
def test_threads_do_not_show(rows: int, shared_rows: int | str) -> None:
    """100 passes over 3 rows are one batch of passes, those over 40 are several."""
    rates = (fd.Dropout(rate, shared_rows=shared_rows) for rate in (0.2, 0.5))
    layers = [next(rates), fd.Dense(300, activation="relu"), next(rates), fd.Dense(OUTPUTS)]
    net = fd.Sequential(layers, input_shape=(200,), seed=1)
    net.output_kind = "logits"
    x, threads = random_array(0, (rows, 200)), fd.get_num_threads()
    several = net.predict_mc(x, 100, return_samples=True)
    try:
        fd.set_num_threads(1)
        assert_same_prediction(net.predict_mc(x, 100, return_samples=True), several)
    finally:
        fd.set_num_threads(threads)


def test_a_warning_names_the_line_of_the_caller() -> None:
    net = fd.Sequential([fd.Dropout(1.0), fd.Dense(OUTPUTS)], input_shape=(4,), seed=1)
    net.output_kind = "values"
    with pytest.warns(AllDroppedWarning) as caught:
        net.predict_mc(random_array(0, (100, 4)), 100)
    assert [each.filename for each in caught] == [__file__]


@pytest.mark.parametrize("count", [10, 1000])
def test_a_mask_for_so_many_rows_and_no_others(count: int) -> None:
    """It works with any number of passes and threads, and for more rows than usually go together."""
    net = fd.Sequential([fd.Dropout(0.5, noise_shape=(8, None)), fd.Dense(OUTPUTS)], input_shape=(4,), seed=1)
    net.output_kind = "values"
    x = random_array(0, (8, 4))
    several = net.predict_mc(x, count)
    with _config.single_thread():
        assert_same_prediction(net.predict_mc(x, count), several)
    many = fd.Sequential([fd.Dropout(0.5, noise_shape=(1030, None)), fd.Dense(OUTPUTS)], input_shape=(4,), seed=1)
    many.output_kind = "values"
    assert many.predict_mc(random_array(0, (1030, 4)), 2).mean.shape == (1030, OUTPUTS)


@pytest.mark.parametrize(
    "layer", [fd.RandomFlip(), fd.RandomCrop(1), fd.GaussianNoise(0.5), fd.Dropout(0.0)], ids=lambda each: each.name
)
def test_what_does_not_vary_is_computed_once(monkeypatch: pytest.MonkeyPatch, layer: fd.layers.AbstractLayer) -> None:
    layers = [layer, fd.Conv2D(2, 3), fd.Flatten(), fd.Dropout(0.5, stream=9), fd.Dense(OUTPUTS)]
    net = fd.Sequential(layers, input_shape=(4, 4, 1), seed=1)
    net.output_kind = "values"
    backend, images = default_backend(), []
    convolve = backend.conv2d_forward
    monkeypatch.setattr(backend, "conv2d_forward", lambda x, *rest: (images.append(len(x)), convolve(x, *rest))[1])
    found = net.predict_mc(random_array(0, (3, 4, 4, 1)), 20)
    assert images == [3]
    plain = fd.Sequential(layers[1:], input_shape=(4, 4, 1), seed=1)
    plain.output_kind = "values"
    assert_same_prediction(found, plain.predict_mc(random_array(0, (3, 4, 4, 1)), 20))


def test_the_entropy_of_a_single_probability_is_that_of_yes_and_no() -> None:
    net = fd.Sequential([fd.Dropout(0.5), fd.Dense(1, activation="sigmoid")], input_shape=(4,), seed=1)
    x = random_array(0, (3, 4))
    net.output_kind = "probabilities"
    single = net.predict_mc(x, 30)
    p = single.mean[:, 0]
    assert_near(single.entropy, -p * np.log(p) - (1 - p) * np.log(1 - p), 1e-12)
    assert (single.mutual_information >= 0).all()
    assert single.entropy.shape == (3,)


def test_memory_is_that_of_one_batch_on_any_number_of_threads() -> None:
    net = fd.Sequential([fd.Dropout(0.5)], seed=0)
    run = monte_carlo._Run(net, (1 << 15,), Pass(True, 0, 0, {}, False, MonteCarlo(1000, 0, None)))
    for threads in (1, 2, 7, 64, 1000, 5000):
        count, together = run._batches(8, threads)
        assert together in (1, threads)
        assert together == 1 or -(-1000 // count) * 8 * together << 15 <= monte_carlo.ELEMENTS_AT_ONCE


@pytest.mark.skipif(fd.get_num_threads() < 2, reason="one thread does all batches itself")
def test_an_error_in_any_batch_of_passes_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    net = fd.Sequential([fd.Dropout(0.5), fd.Dense(OUTPUTS)], input_shape=(4,), seed=1)
    net.output_kind = "values"
    run_chain = monte_carlo.run_chain

    def fails(steps: Any, x: Any, pass_: Pass) -> Any:
        if pass_.step > 1000:
            raise OverflowError("too late")
        return run_chain(steps, x, pass_)

    monkeypatch.setattr(monte_carlo, "run_chain", fails)
    net.predict_mc(random_array(0, (100, 4)), 100)
    with pytest.raises(OverflowError, match="too late"):
        net.predict_mc(random_array(0, (100, 4)), 10_000)


def peak_memory(passes: int, count: int) -> int:
    net, x = fd.Sequential([fd.Dropout(0.5), fd.Dense(100)], input_shape=(100,), seed=1), random_array(0, (count, 100))
    net.output_kind = "logits"
    tracemalloc.start()
    net.predict_mc(x, passes)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("count", [64, 1])
def test_memory_does_not_grow_with_the_passes(count: int) -> None:
    some = 100 if count > 1 else monte_carlo.STACKED_ROWS
    with _config.single_thread():
        peak_memory(some, count)
        assert 1 << 20 < peak_memory(10_000, count) < 1.2 * peak_memory(some, count)


@pytest.mark.parametrize("count", [64, 1])
def test_memory_does_not_grow_with_the_passes_that_threads_divide(count: int) -> None:
    some = 32 * fd.get_num_threads() * monte_carlo.STACKED_ROWS // count  # batches for all threads, several times
    peak_memory(some, count)
    assert 1 << 20 < peak_memory(max(10_000, 4 * some), count) < 1.2 * peak_memory(some, count)


# Shapes, and what is refused


def test_no_rows() -> None:
    prediction = network("logits").predict_mc(rows(4)[:0], 3, return_samples=True)
    assert prediction.mean.shape == prediction.std.shape == (0, OUTPUTS)
    assert prediction.samples is not None
    assert prediction.samples.shape == (3, 0, OUTPUTS)
    assert prediction.entropy is not None
    assert prediction.entropy.shape == (0,)


def test_results_are_new_arrays() -> None:
    net = fd.Sequential([fd.Dropout(0.0)], input_shape=(FAN_IN,), dtype="float64")
    net.output_kind = "values"
    x = rows(3)
    prediction = net.predict_mc(x, 1, return_samples=True)
    assert prediction.samples is not None
    assert_same_bits(prediction.samples[0], x)
    for array in (prediction.mean, prediction.std, prediction.samples):
        assert not np.may_share_memory(array, x)
        assert array.flags.writeable


def test_a_network_without_shape_is_built() -> None:
    net = fd.Sequential([fd.Dropout(0.5), fd.Dense(2)], seed=1)
    net.output_kind = "values"
    assert net.predict_mc(rows(3), 2).mean.shape == (3, 2)
    assert net.predict_mc(rows(3), 2).samples is None


@pytest.mark.parametrize("kind", [None, "nonsense"])
def test_outputs_must_be_known(kind: str | None) -> None:
    with pytest.raises(StateError, match=r"one of logits, sigmoid_logits, probabilities, values, and `output_kind` is"):
        network(kind).predict_mc(rows(2))


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"x": np.zeros((2, FAN_IN), int)}, ArgumentTypeError, "`x` must be a float32 or float64 array, got int64"),
        ({"x": np.zeros((2, 4))}, ArgumentValueError, "`x` must be of shape (rows, 5)"),
        ({"num_samples": 0}, ArgumentValueError, "`num_samples` must be in [1, 4294967296], got 0"),
        ({"num_samples": 2.0}, ArgumentTypeError, "`num_samples` must be an integer, got float"),
        ({"num_samples": 2, "first_sample": 2**32 - 1}, ArgumentValueError, "`num_samples` must be in [1, 1], got 2"),
        ({"first_sample": -1}, ArgumentValueError, "`first_sample` must be in [0, 4294967295], got -1"),
        ({"seed": 2**64}, ArgumentValueError, "`seed` must be in [0, 18446744073709551615], got 18446744073709551616"),
        ({"row_offset": -1}, ArgumentValueError, "`row_offset` must be in [0, 288230376151711743], got -1"),
        ({"row_offset": 2**57}, ArgumentValueError, "`row_offset` must be such that all mask elements are below 2**58"),
        ({"shared_rows": 0}, ArgumentValueError, "`shared_rows` must be in [1, 288230376151711744], got 0"),
        ({"shared_rows": "all"}, ArgumentValueError, "`shared_rows` must be one of batch, got 'all'"),
        ({"return_samples": 1}, ArgumentTypeError, "`return_samples` must be True or False, got int"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind) as caught:
        network().predict_mc(**{"x": rows(2), **arguments})
    assert text in str(caught.value)
