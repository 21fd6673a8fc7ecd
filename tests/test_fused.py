"""Skipping: where rows share a mask, the work of dropped units is left out, and the results are those of all the work."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from assertions import assert_agree, assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DTYPES, random_array
from subprocesses import run

import fastdrop as fd
from fastdrop import fused, optim
from fastdrop._types import ActivationKind, Array
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.cpu.backend import CpuBackend
from fastdrop.fused import Kept
from fastdrop.layers.dense import FusedDense
from fastdrop.mask import BoundMask, Mask
from fastdrop.optim import AbstractOptimizer

ULPS = 64
"""Compact products add up in another order, over up to a hundred terms."""
ACTIVATIONS = sorted(ActivationKind)
OPTIMIZERS: dict[str, Callable[[], AbstractOptimizer]] = {
    "sgd": lambda: optim.SGD(0.1),
    "momentum": lambda: optim.SGD(0.1, momentum=0.9),
    "nesterov": lambda: optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "decay": lambda: optim.SGD(0.1, weight_decay=0.1),
    "adam": lambda: optim.Adam(0.01),
    "clip": lambda: optim.SGD(0.1, clip_norm=0.5),
}


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip wherever it is possible."""
    monkeypatch.setattr(fused, "COPYING_ROWS", 0)
    monkeypatch.setattr(fused, "LEAST_ROWS", 1)


def never(compute: Callable[[], Any]) -> Any:
    """Return what is computed without skipping."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "skips", lambda *masks: False)
        return compute()


def bound(rate: float, shape: tuple[int, ...], stream: int = 0, **arguments: Any) -> BoundMask:
    return Mask(rate, fd.Key(5, stream, 2), **arguments).bind(shape, as_matrix=True)


# Where units are skipped


@pytest.mark.parametrize(
    ("mask", "skipped"),
    [
        (bound(0.5, (128, 64), shared_rows="batch"), True),
        (bound(0.5, (128, 64), shared_rows="batch", fixed_count=True), True),
        (bound(0.5, (60, 64), shared_rows="batch"), True),
        (bound(0.5, (59, 64), shared_rows="batch"), False),
        (bound(0.5, (128, 64), shared_rows=60), True),
        (bound(0.5, (128, 64), shared_rows=59), False),
        (bound(0.5, (40, 64), shared_rows=60), False),
        (bound(0.9, (32, 64), shared_rows="batch"), True),
        (bound(0.9, (31, 64), shared_rows="batch"), False),
        (bound(0.1, (539, 64), shared_rows="batch"), False),
        (bound(0.1, (541, 64), shared_rows="batch"), True),
        (bound(0.5, (128, 64)), False),
        (bound(0.5, (0, 64), shared_rows="batch"), False),
        (bound(0.0, (128, 64), shared_rows="batch"), False),
        (bound(0.5, (8, 10, 64), shared_rows="batch"), False),
        (bound(0.5, (8, 10, 64), shared_rows="batch", noise_shape=(None, 1, None)), True),
        (bound(0.7, (8, 40, 64), noise_shape=(None, 1, None)), True),
        (bound(0.5, (128, 64), noise_shape=(None, 1), shared_rows="batch"), False),
        (None, False),
    ],
)
def test_where_units_are_skipped(mask: BoundMask | None, skipped: bool) -> None:
    assert fused.skips(mask) is skipped
    assert fused.skips(bound(0.3, (128, 64)), mask) is skipped


def test_dropout_on_both_sides_of_a_layer_leaves_out_more() -> None:
    masks = [bound(0.2, (128, 64), stream, shared_rows="batch") for stream in range(2)]
    assert not any(fused.skips(mask) for mask in masks)
    assert fused.skips(*masks)


@pytest.mark.parametrize("sharing", [1, 8])
def test_masks_of_few_rows_are_applied_within_the_segments_of_the_others(backend: AbstractBackend, sharing: int) -> None:
    x, weight = random_array(0, (64, 30)), random_array(1, (30, 20))
    first, last = bound(0.5, x.shape, shared_rows="batch"), bound(0.5, (64, 20), 1, shared_rows=sharing)
    assert fused.skips(first, last)
    y, _ = fused.dense(backend, x, weight, None, ActivationKind.LINEAR, first, last, True)
    assert isinstance(y, np.ndarray)
    assert_agree(y, never(lambda: fused.dense(backend, x, weight, None, ActivationKind.LINEAR, first, last, True)[0]), ULPS)


def test_where_one_mask_skips_the_other_does(backend: AbstractBackend) -> None:
    """The weight is copied anyway."""
    x, weight = random_array(0, (60, 30)), random_array(1, (30, 20))
    rare, often = (bound(rate, shape, shared_rows="batch") for rate, shape in ((0.1, x.shape), (0.5, (60, 20))))
    assert not fused.skips(rare)
    poisoned = weight.copy()
    poisoned[~rare.keep_row(0, 0, 30)] = np.nan
    y, _ = fused.dense(backend, x, poisoned, None, ActivationKind.LINEAR, rare, often, False)
    assert isinstance(y, Kept)
    assert np.isfinite(y.parts[0]).all()


# One layer


def both(backend: AbstractBackend, x: Array, weight: Array, bias: Array | None, dy: Array, *arguments: Any) -> list[Array]:
    """y, dx, dweight, dbias by `fused.dense`, as whole arrays."""
    y, backward = fused.dense(backend, x, weight, bias, *arguments, True)
    if isinstance(y, Kept):
        dy, y = fused.compact(backend, dy, y.units), fused.expand(backend, y)
    dweight, dbias = np.full_like(weight, np.nan), None if bias is None else np.full_like(bias, np.nan)
    dx = backward(dy, True, dweight, dbias, False)
    assert isinstance(dx, np.ndarray)
    return [y, dx, dweight] if dbias is None else [y, dx, dweight, dbias]


sharing = st.sampled_from(["batch", 1, 7, 16, 20])


@given(
    st.integers(1, 45), st.sampled_from([1, 5, 33]), st.sampled_from([1, 10, 70]), st.sampled_from(ACTIVATIONS),
    st.sampled_from([None, 0.2, 0.5]), st.sampled_from([None, 0.3, 0.7]), sharing, sharing, st.integers(0, 40), st.booleans(),
    st.sampled_from(DTYPES),
)  # fmt: skip
@settings(max_examples=120)
def test_a_layer_is_that_of_all_the_work(
    backend: AbstractBackend, rows: int, fan_in: int, fan_out: int, activation: ActivationKind,
    first: float | None, last: float | None, first_rows: Any, last_rows: Any, row_offset: int, bias: bool, dtype: np.dtype,
) -> None:  # fmt: skip
    x, weight, dy = (
        random_array(i, shape, dtype) for i, shape in enumerate([(rows, fan_in), (fan_in, fan_out), (rows, fan_out)])
    )
    b = random_array(9, (fan_out,), dtype) if bias else None
    input_mask = None if first is None else bound(first, x.shape, 0, shared_rows=first_rows, row_offset=row_offset)
    output_mask = None if last is None else bound(last, dy.shape, 1, shared_rows=last_rows, row_offset=row_offset)
    arguments = x, weight, b, dy, activation, input_mask, output_mask
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "COPYING_ROWS", 0)
        patch.setattr(fused, "LEAST_ROWS", 1)
        got = both(backend, *arguments)
    wanted = never(lambda: both(backend, *arguments))
    for one, other in zip(got, wanted, strict=True):
        assert_agree(one, other, ULPS)
    if output_mask is not None:
        keep = output_mask.keep_rectangle((0, rows), (0, fan_out))
        assert_same_bits(got[0][~keep], np.zeros(int((~keep).sum()), dtype))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("activation", ["relu", "gelu", "softmax", None])
def test_the_functional_layer(activation: str | None) -> None:
    """Any shape of x, `out`, and a mask that is constant over the middle axes."""
    x, weight, bias = random_array(0, (6, 9, 20)), random_array(1, (20, 50)), random_array(2, (50,))
    masks = [Mask(0.5, fd.Key(1, i, 0), noise_shape=(None, 1, None), shared_rows=shared) for i, shared in ((0, 2), (1, "batch"))]
    out = np.empty((6, 9, 50), np.float32)

    def layer() -> list[Array]:
        y, backward = fd.dense(x, weight, bias, activation=activation, input_mask=masks[0], output_mask=masks[1], out=out)
        assert y is out
        return [y.copy(), *backward(random_array(3, out.shape)), backward(random_array(3, out.shape), input_gradient=False)[1]]

    for got, wanted in zip(layer(), never(layer), strict=True):
        assert_agree(got, wanted, ULPS)


@pytest.mark.usefixtures("always")
def test_nothing_is_computed_of_dropped_units(backend: AbstractBackend) -> None:
    """NaN in their weights does not show: this is what finite weights are asked for."""
    x, weight = random_array(0, (40, 30)), random_array(1, (30, 20))
    first, last = bound(0.5, x.shape, 0, shared_rows="batch"), bound(0.5, (40, 20), 1, shared_rows="batch")
    kept_in, kept_out = (backend.units(mask).kept[0] for mask in (first, last))
    poisoned = np.full_like(weight, np.nan)
    poisoned[np.ix_(kept_in, kept_out)] = weight[np.ix_(kept_in, kept_out)]
    arguments = None, random_array(2, (40, 20)), ActivationKind.TANH, first, last
    for got, wanted in zip(both(backend, x, poisoned, *arguments), both(backend, x, weight, *arguments), strict=True):
        assert_same_bits(got, wanted)


@pytest.mark.usefixtures("always")
def test_all_units_may_be_dropped(backend: AbstractBackend) -> None:
    """One unit, rate 0.9: in most steps nothing is left, and then y is +0.0, and so are the gradients."""
    x, weight, bias, dy = random_array(0, (40, 3)), random_array(1, (3, 1)), random_array(2, (1,)), random_array(3, (40, 1))
    emptied = 0
    for step in range(20):
        mask = Mask(0.9, fd.Key(0, 0, step), shared_rows="batch").bind(dy.shape, as_matrix=True)
        if not backend.units(mask).kept[0].size:
            emptied += 1
            for array in both(backend, x, weight, bias, dy, ActivationKind.SIGMOID, None, mask):
                assert_same_bits(array, np.zeros_like(array))
    assert emptied > 5


# Networks


def network(shared_rows: Any = "batch", dtype: Any = "float32", **dropout: Any) -> fd.Sequential:
    layers = [
        fd.Dropout(0.2, shared_rows=shared_rows, **dropout),
        fd.Dense(96, activation="relu"),
        fd.Dropout(0.5, shared_rows=shared_rows, **dropout),
        fd.Dense(64, activation="tanh"),
        fd.Dropout(0.5, shared_rows=shared_rows, **dropout),
        fd.Dense(10),
    ]
    return fd.Sequential(layers, input_shape=(50,), seed=3, dtype=dtype)


def batches(dtype: Any = "float32") -> Iterator[tuple[Array, Array]]:
    for step in itertools.count():
        yield random_array(step, (64, 50), dtype), np.random.default_rng(step).integers(0, 10, 64)


def trained(make: Callable[[], fd.Sequential], optimizer: AbstractOptimizer, together: bool = True) -> list[Array]:
    """Losses and parameters after some steps, each as one call or as its parts."""
    net, found = make(), []
    for x, labels in itertools.islice(batches(net.dtype), 4):
        if together:
            found.append(net.train_on_batch(x, labels, optimizer))
        else:
            logits, backward = net.forward(x, training=True)
            loss, gradient = fd.losses.softmax_cross_entropy(logits, labels)
            backward(gradient)
            optimizer.step(net)
            net.zero_grad()
            found.append(loss)
    return [np.array(found), *(parameter.value for parameter in net.parameters())]


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shared_rows", ["batch", 16, 24])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_that_of_all_the_work(name: str, shared_rows: Any) -> None:
    """In float64, where rounding does not grow to anything in a few steps."""

    def train() -> list[Array]:
        return trained(lambda: network(shared_rows, "float64"), OPTIMIZERS[name]())

    for got, wanted in zip(train(), never(train), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shared_rows", ["batch", 24])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_has_the_bits_of_its_parts(name: str, shared_rows: Any) -> None:
    make = OPTIMIZERS[name]
    together = trained(lambda: network(shared_rows), make())
    for got, wanted in zip(together, trained(lambda: network(shared_rows), make(), together=False), strict=True):
        assert_same_bits(got, wanted)


def test_compact_arrays_pass_from_layer_to_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The products of a step are those of kept units; nothing is expanded on the way."""
    net, shapes = network(fixed_count=True), []
    product = CpuBackend._product

    def noted(self: CpuBackend, a: Array, b: Array, c: Array, *arguments: Any) -> None:
        shapes.append((a.shape, b.shape, c.shape))
        product(self, a, b, c, *arguments)

    monkeypatch.setattr(CpuBackend, "_product", noted)
    monkeypatch.setattr(fused, "COPYING_ROWS", 0)
    monkeypatch.setattr(fused, "expand", None)
    net.train_on_batch(*next(batches()), optim.SGD(0.1, momentum=0.9))
    rows = 64
    assert shapes == [
        ((rows, 40), (40, 48), (rows, 48)),
        ((rows, 48), (48, 32), (rows, 32)),
        ((rows, 32), (32, 10), (rows, 10)),
        ((rows, 10), (32, 10), (rows, 32)),
        ((rows, 32), (rows, 10), (32, 10)),
        ((rows, 32), (48, 32), (rows, 48)),
        ((rows, 48), (rows, 32), (48, 32)),
        ((rows, 40), (rows, 48), (40, 48)),
    ]


@pytest.mark.usefixtures("always")
def test_layers_that_take_whole_arrays_get_them() -> None:
    """Softmax, a second dropout, a residual block and the end of the network."""

    def make() -> fd.Sequential:
        block = fd.Residual([fd.Dense(32, activation="relu"), fd.Dropout(0.5, shared_rows="batch")])
        layers = [
            fd.Dense(32, activation="relu"), fd.Dropout(0.5, shared_rows=16), fd.Dropout(0.5),
            fd.Dense(32, activation="gelu"), fd.Dropout(0.3, shared_rows="batch"), block,
            fd.Dense(32, activation="softmax"), fd.Dropout(0.5, shared_rows="batch"),
            fd.Dense(10, activation="tanh"), fd.Dropout(0.5, shared_rows="batch"),
        ]  # fmt: skip
        return fd.Sequential(layers, input_shape=(50,), seed=3, dtype="float64")

    def train() -> list[Array]:
        return trained(make, optim.SGD(0.1, momentum=0.9))

    for got, wanted in zip(train(), never(train), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("always")
def test_frozen_parameters_and_gradients_of_the_inputs() -> None:
    def passes() -> list[Array]:
        net = network(16, "float64")
        net.parameters()[2].trainable = False
        y, backward = net.forward(next(batches("float64"))[0], training=True)
        dx = backward(np.cos(y), input_gradient=True)
        return [y, dx, *(parameter.grad for parameter in net.parameters())]

    for got, wanted in zip(passes(), never(passes), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("always")
def test_a_batch_in_pieces() -> None:
    """Pieces that share masks have the rows, and their gradients add up to the batch's."""
    x, labels = next(batches("float64"))
    whole, pieces = network(16, "float64"), network(16, "float64")
    logits, backward = whole.forward(x, training=True, step=0)
    backward(fd.losses.softmax_cross_entropy(logits, labels)[1])
    for low, high in ((0, 10), (10, 41), (41, 64)):
        part, backward = pieces.forward(x[low:high], training=True, step=0, row_offset=low)
        np.testing.assert_allclose(part, logits[low:high], rtol=1e-12, atol=1e-12)
        backward(fd.losses.softmax_cross_entropy(part, labels[low:high], normalizer=64.0)[1])
    for got, wanted in zip(pieces.parameters(), whole.parameters(), strict=True):
        np.testing.assert_allclose(got.grad, wanted.grad, rtol=1e-9, atol=1e-12)


def test_inference_skips_nothing() -> None:
    net = network()
    x = next(batches())[0]
    assert_same_bits(net.predict(x), net.predictor()(x))
    assert all(isinstance(step, FusedDense) for step in net._plan)


def test_the_bits_are_the_same_for_1_2_3_and_5_threads() -> None:
    code = """
        import hashlib, numpy as np
        import fastdrop as fd

        def trained(shared_rows):
            layers = [fd.Dropout(0.2, shared_rows=shared_rows), fd.Dense(500, activation="gelu"),
                      fd.Dropout(0.5, shared_rows=shared_rows), fd.Dense(400, activation="relu"),
                      fd.Dropout(0.5, shared_rows=shared_rows), fd.Dense(10)]
            net = fd.Sequential(layers, input_shape=(300,), seed=1)
            x, labels = np.random.default_rng(0).standard_normal((256, 300), "float32"), np.arange(256) % 10
            net.fit(x, labels, epochs=2, batch_size=128, optimizer=fd.optim.SGD(0.1, momentum=0.9), progress=False)
            return b"".join(value.tobytes() for value in net.state_dict().values())

        found = set()
        for count in (1, 2, 3, 5):
            fd.set_num_threads(count)
            found.add(hashlib.sha256(trained("batch") + trained(32)).hexdigest())
        print(len(found))
    """
    assert run(code, NUMBA_NUM_THREADS="5") == "1"
