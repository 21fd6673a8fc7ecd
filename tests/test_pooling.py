"""Pooling through the seam, against the definition in loops; and its layers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from assertions import assert_agree, assert_near, assert_not_vacuous, assert_same_bits
from gradients import directional_error
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, LAYOUTS, dtypes, random_array, small_integers
from subprocesses import run
from test_conv2d import KERAS_IMAGE, compiled, places_of

import fastdrop as fd
from fastdrop._types import Array
from fastdrop.backends.base import AbstractBackend
from fastdrop.errors import ArgumentTypeError, ArgumentValueError
from fastdrop.window import Pair, Window, window_of


class Geometry(NamedTuple):
    """Images (rows, height, width, channels), and the windows on them."""

    images: tuple[int, int, int, int]
    size: Pair = (2, 2)
    strides: Pair = (2, 2)
    padding: str = "valid"

    @property
    def window(self) -> Window:
        return window_of(self.images[1:3], self.size, self.strides, (1, 1), self.padding, "layer")

    def places(self) -> tuple[list[list[int]], ...]:
        """Where the elements of the windows lie along height and width, padding left out."""
        axes = zip(self.images[1:3], self.size, self.strides, strict=True)
        found = ((extent, places_of(extent, n, step, 1, self.padding)) for extent, n, step in axes)
        return tuple([[at for at in place if 0 <= at < extent] for place in places] for extent, places in found)


GEOMETRIES = {
    "tiles": Geometry((3, 6, 8, 5)),
    "tiles of other heights": Geometry((2, 6, 8, 17), (3, 2), (3, 2)),
    "a remainder": Geometry((2, 7, 9, 4), (2, 4), (2, 4)),
    "overlapping": Geometry((2, 7, 6, 7), (3, 3), (2, 1)),
    "same": Geometry((2, 7, 5, 9), (2, 2), (2, 2), "same"),
    "same, overlapping": Geometry((2, 5, 6, 33), (3, 4), (1, 2), "same"),
    "strides larger than windows": Geometry((2, 9, 8, 3), (2, 1), (3, 4)),
    "same, strides larger than windows": Geometry((2, 8, 7, 3), (2, 2), (3, 5), "same"),
    "windows larger than images": Geometry((2, 3, 2, 6), (5, 7), (1, 1), "same"),
    "the whole image": Geometry((4, 5, 4, 10), (5, 4), (5, 4)),
    "one element": Geometry((2, 3, 3, 4), (1, 1), (1, 1)),
    "one channel": Geometry((5, 6, 6, 1)),
    "many channels": Geometry((2, 4, 4, 300), (3, 3), (2, 2), "same"),
}
NAMED = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=list(GEOMETRIES))


def _loops(geometry: Geometry, x: Array, dy: Array) -> tuple[Array, ...]:
    """(largest, its dx, mean, its dx), an element at a time; of several NaN the last one is the largest."""
    downs, acrosses = geometry.places()
    shape = len(x), len(downs), len(acrosses), x.shape[3]
    largest, mean = np.empty(shape), np.empty(shape)
    largest_dx, mean_dx = np.zeros(x.shape), np.zeros(x.shape)
    for r, (i, rows), (j, columns), c in itertools.product(
        range(shape[0]), enumerate(downs), enumerate(acrosses), range(shape[3])
    ):
        elements = [(float(x[r, h, w, c]), (r, h, w, c)) for h in rows for w in columns]
        chosen = elements[0]
        for value, at in elements[1:]:
            if value > chosen[0] or np.isnan(value):
                chosen = value, at
        largest[r, i, j, c] = chosen[0]
        largest_dx[chosen[1]] += dy[r, i, j, c]
        mean[r, i, j, c] = sum(value for value, _ in elements) / len(elements)
        for _, at in elements:
            mean_dx[at] += dy[r, i, j, c] / len(elements)
    return largest, largest_dx, mean, mean_dx


def _max_pool(backend: AbstractBackend, x: Array, dy: Array, window: Window) -> tuple[Array, Array]:
    return backend.max_pool_forward(x, window), backend.max_pool_backward(dy, x, window)


def _average_pool(backend: AbstractBackend, x: Array, dy: Array, window: Window) -> tuple[Array, Array]:
    return backend.average_pool_forward(x, window), backend.average_pool_backward(dy, window)


POOLS = [_max_pool, _average_pool]


def _arrays(geometry: Geometry, dtype: Any = np.float32, make: Any = random_array) -> tuple[Array, Array]:
    """(x, dy)."""
    return make(0, geometry.images, dtype), make(1, (geometry.images[0], *geometry.window.places, geometry.images[3]), dtype)


# The definition


def _check(backend: AbstractBackend, geometry: Geometry, x: Array, dy: Array) -> None:
    """Largest elements exactly, and all the rest to rounding."""
    largest, largest_dx, mean, mean_dx = _loops(geometry, x, dy)
    got = _max_pool(backend, x, dy, geometry.window)
    assert_same_bits(got[0], largest.astype(x.dtype))
    assert_agree(got[1], largest_dx.astype(x.dtype))
    for mine, right in zip(_average_pool(backend, x, dy, geometry.window), (mean, mean_dx), strict=True):
        assert_agree(mine, right.astype(x.dtype), 16)
        assert mine.flags.c_contiguous


@pytest.mark.parametrize("dtype", DTYPES)
@NAMED
def test_pooling_is_the_definition(backend: AbstractBackend, geometry: Geometry, dtype: np.dtype) -> None:
    _check(backend, geometry, *_arrays(geometry, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@NAMED
def test_of_equal_elements_the_first_is_chosen(backend: AbstractBackend, geometry: Geometry, dtype: np.dtype) -> None:
    """Integers of few values, so that most windows have several largest ones; their sums are exact."""
    x, dy = small_integers(0, geometry.images, dtype, 1), _arrays(geometry, dtype, small_integers)[1]
    largest, largest_dx, _, _ = _loops(geometry, x, dy)
    y, dx = _max_pool(backend, x, dy, geometry.window)
    np.testing.assert_array_equal(y, largest)
    np.testing.assert_array_equal(dx, largest_dx)
    assert_not_vacuous(largest_dx, 0.02)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    size, strides = (draw(st.tuples(st.integers(1, 4), st.integers(1, 4))) for _ in range(2))
    padding = draw(st.sampled_from(["valid", "same"]))
    height, width = (draw(st.integers(n if padding == "valid" else 1, n + 5)) for n in size)
    return Geometry((draw(st.integers(0, 4)), height, width, draw(st.sampled_from([1, 3, 8, 17]))), size, strides, padding)


@given(geometries(), dtypes, st.integers(0, 3))
def test_any_geometry(backend: AbstractBackend, geometry: Geometry, dtype: np.dtype, nans: int) -> None:
    x, dy = _arrays(geometry, dtype)
    _check(backend, geometry, x, dy)
    for seed in range(nans):
        x.reshape(-1)[np.random.default_rng(seed).integers(0, max(1, x.size), 5 if x.size else 0)] = (np.nan, np.inf, -np.inf)[
            seed
        ]
    largest, largest_dx, mean, _ = _loops(geometry, x, dy)
    y, dx = _max_pool(backend, x, dy, geometry.window)
    assert_same_bits(y, largest.astype(dtype))
    assert_agree(dx, largest_dx.astype(dtype))
    assert_agree(backend.average_pool_forward(x, geometry.window), mean.astype(dtype), 16)


KERAS = [  # keras.ops.max_pool and average_pool of Keras 3 on TensorFlow 2.21
    (2, 2, "same", [[7, 9, 10], [17, 19, 20]], [[4, 6, 7.5], [14, 16, 17.5]]),
    (3, 2, "same", [[12, 14, 15], [17, 19, 20]], [[6.5, 8, 9.5], [14, 15.5, 17]]),
    (3, 1, "same", [[7, 8, 9, 10, 10], [12, 13, 14, 15, 15], [17, 18, 19, 20, 20], [17, 18, 19, 20, 20]],
     [[4, 4.5, 5.5, 6.5, 7], [6.5, 7, 8, 9, 9.5], [11.5, 12, 13, 14, 14.5], [14, 14.5, 15.5, 16.5, 17]]),
    (2, 3, "valid", [[7, 10]], [[4, 7]]),
    (2, 3, "same", [[7, 10], [17, 20]], [[4, 7], [16.5, 19.5]]),
    (3, 2, "valid", [[13, 15]], [[7, 9]]),
]  # fmt: skip


@pytest.mark.parametrize(("size", "strides", "padding", "largest", "mean"), KERAS)
def test_windows_are_those_of_keras(
    backend: AbstractBackend, size: int, strides: int, padding: str, largest: list[Any], mean: list[Any]
) -> None:
    window = Geometry((1, 4, 5, 1), (size, size), (strides, strides), padding).window
    assert_near(backend.max_pool_forward(KERAS_IMAGE, window)[0, :, :, 0], np.array(largest), 0)
    assert_near(backend.average_pool_forward(KERAS_IMAGE, window)[0, :, :, 0], np.array(mean), 1e-6)


# Special values, and what is written


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_special_values(backend: AbstractBackend, padding: str, dtype: np.dtype) -> None:
    """NaN is larger than anything, and the last of several has the gradient; -inf is larger than padding."""
    inf, nan = np.inf, np.nan
    x = np.array([[1, nan, 2, inf], [inf, 3, nan, nan], [-inf, -inf, -0.0, 0.0], [-inf, -inf, -1, -2]], dtype).reshape(1, 4, 4, 1)
    window = Geometry(x.shape, padding=padding).window
    dy = np.array([[1, 2], [3, 4]], dtype).reshape(1, 2, 2, 1)
    y, dx = _max_pool(backend, x, dy, window)
    assert_same_bits(y[0, :, :, 0], np.array([[nan, nan], [-inf, -0.0]], dtype))
    wanted = np.array([[0, 1, 0, 0], [0, 0, 0, 2], [3, 0, 4, 0], [0, 0, 0, 0]], dtype)
    assert_same_bits(dx[0, :, :, 0], wanted)
    mean = backend.average_pool_forward(x, window)
    assert_same_bits(mean[0, :, :, 0], np.array([[nan, nan], [-inf, -0.75]], dtype))


def test_padding_is_never_chosen_and_never_counted(backend: AbstractBackend) -> None:
    """Of negative numbers, and of -inf alone, of which the first element gets the gradient."""
    for value in (-5.0, -np.inf):
        x, window = np.full((1, 3, 3, 2), value, np.float32), Geometry((1, 3, 3, 2), (3, 3), (2, 2), "same").window
        y, dx = _max_pool(backend, x, np.ones((1, 2, 2, 2), np.float32), window)
        assert_same_bits(y, np.full((1, 2, 2, 2), value, np.float32))
        np.testing.assert_array_equal(dx[0, :, :, 0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])
        assert_same_bits(backend.average_pool_forward(x, window), y)


@pytest.mark.parametrize("pool", POOLS)
@NAMED
def test_nothing_beyond_the_edges_is_read_and_inputs_are_not_written(
    backend: AbstractBackend, geometry: Geometry, pool: Any
) -> None:
    arrays = _arrays(geometry)
    wanted = pool(backend, *arrays, geometry.window)
    around = []
    for array in arrays:
        memory = np.full(array.size + 1000, np.nan, array.dtype)
        around.append(memory[500:-500].reshape(array.shape))
        around[-1][...] = array
        around[-1].flags.writeable = False
    for mine, right in zip(pool(backend, *around, geometry.window), wanted, strict=True):
        assert_same_bits(mine, right)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"big-endian"}))
@pytest.mark.parametrize("name", ["tiles", "same, overlapping"])
def test_the_memory_layout_changes_no_bit(backend: AbstractBackend, name: str, layout: str, pool: Any) -> None:
    geometry = GEOMETRIES[name]
    arrays = _arrays(geometry)
    got = pool(backend, *(LAYOUTS[layout](array) for array in arrays), geometry.window)
    for mine, right in zip(got, pool(backend, *arrays, geometry.window), strict=True):
        assert_same_bits(mine, right)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("images", [(0, 4, 4, 3), (2, 0, 4, 3), (2, 4, 0, 3), (2, 4, 4, 0)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
def test_images_without_elements(backend: AbstractBackend, images: Any, strides: Pair, pool: Any) -> None:
    geometry = Geometry(images, (3, 3), strides, "same")
    x, dy = _arrays(geometry)
    y, dx = pool(backend, x, dy, geometry.window)
    assert (y.shape, dx.shape) == (dy.shape, images)


@pytest.mark.parametrize("pool", POOLS)
@NAMED
def test_each_row_has_the_same_bits_in_any_company(backend: AbstractBackend, geometry: Geometry, pool: Any) -> None:
    x, dy = _arrays(geometry)
    whole = pool(backend, x, dy, geometry.window)
    for row in range(len(x)):
        for mine, right in zip(pool(backend, x[row : row + 1], dy[row : row + 1], geometry.window), whole, strict=True):
            assert_same_bits(mine, right[row : row + 1])


@compiled
def test_the_bits_are_the_same_for_1_2_3_and_5_threads() -> None:
    code = """
    import numpy as np
    import fastdrop as fd
    from fastdrop.backends import select
    from test_pooling import POOLS, Geometry, _arrays

    cpu, found = select.backend("cpu"), set()
    geometries = [Geometry((67, 16, 16, 33)), Geometry((67, 15, 16, 33), (3, 3), (2, 2), "same")]
    for count in (1, 2, 3, 5):
        fd.set_num_threads(count)
        bits = b""
        for geometry in geometries:
            x, dy = _arrays(geometry)
            for pool in POOLS:
                bits += b"".join(array.tobytes() for array in pool(cpu, x, dy, geometry.window))
        found.add(bits)
    print(len(found))
    """
    assert run(code, NUMBA_NUM_THREADS="5") == "1"


# Layers


@pytest.mark.parametrize("dtype", DTYPES)
@NAMED
def test_layers_are_the_operations(reference: AbstractBackend, geometry: Geometry, dtype: np.dtype) -> None:
    x, dy = _arrays(geometry, dtype)
    for kind, pool in zip((fd.MaxPool2D, fd.AvgPool2D), POOLS, strict=True):
        layer = kind(geometry.size, geometry.strides, geometry.padding)
        y, backward = layer.forward(x, True)
        wanted, wanted_dx = pool(reference, x, dy, geometry.window)
        assert_agree(y, wanted, 16)
        assert_agree(backward(dy, input_gradient=True), wanted_dx, 16)
        assert backward(dy) is None
        assert_same_bits(layer(x), y)
        assert layer.output_shape(x.shape[1:]) == y.shape[1:]
        assert not layer.parameters()


def test_defaults() -> None:
    """Windows of 2 by 2 that do not overlap; strides are the size unless given."""
    assert (fd.MaxPool2D().pool_size, fd.MaxPool2D().strides, fd.MaxPool2D().padding) == ((2, 2), (2, 2), "valid")
    assert fd.AvgPool2D((3, 4)).strides == (3, 4)
    assert fd.AvgPool2D(3, strides=[1, 2]).strides == (1, 2)
    assert fd.MaxPool2D(3, 1, "same", input_shape=(4, 4, 2)).output_shape((4, 4, 2)) == (4, 4, 2)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_global_average(keepdims: bool, dtype: np.dtype) -> None:
    x = random_array(0, (3, 5, 7, 11), dtype)
    layer = fd.GlobalAveragePool2D(keepdims)
    y, backward = layer.forward(x, False)
    assert y.shape == (layer.output_shape(x.shape[1:]) and ((3, 1, 1, 11) if keepdims else (3, 11)))
    assert_agree(y, x.mean(axis=(1, 2), keepdims=keepdims), 32)
    dy = random_array(1, y.shape, dtype)
    wanted = np.broadcast_to(dy.reshape(3, 1, 1, 11) / dtype.type(35), x.shape)
    assert_agree(backward(dy, input_gradient=True), np.ascontiguousarray(wanted))
    assert layer(x[:0]).shape == (0, *y.shape[1:])


@pytest.mark.parametrize(
    "layer",
    [
        fd.MaxPool2D(),
        fd.MaxPool2D((3, 2), (1, 2), "same"),
        fd.AvgPool2D(2),
        fd.AvgPool2D((3, 2), (1, 2), "same"),
        fd.GlobalAveragePool2D(),
        fd.GlobalAveragePool2D(True),
        fd.Sequential([fd.SpatialDropout2D(0.4), fd.MaxPool2D(), fd.Dropout(0.3), fd.AvgPool2D(2, 1)], seed=2, dtype="float64"),
    ],
    ids=lambda layer: layer.name,
)
def test_gradients(layer: Any) -> None:
    assert directional_error(layer, random_array(1, (4, 6, 7, 5), np.float64)) < 1e-6


def _network(pool: Any, dtype: str = "float32") -> fd.Sequential:
    layers = [pool, fd.Dropout(0.3), fd.Flatten(), fd.Dense(3)]
    return fd.Sequential(layers, input_shape=(7, 6, 4), seed=2, dtype=dtype)


LAYERS = {
    "max": lambda: fd.MaxPool2D((3, 2), (2, 1), "same", name="pool"),
    "average": lambda: fd.AvgPool2D(2, input_shape=(7, 6, 4)),
    "global": lambda: fd.GlobalAveragePool2D(keepdims=True),
}


@pytest.mark.parametrize("name", LAYERS)
def test_networks_are_written_and_read_again(name: str, tmp_path: Path, without_fsync: None) -> None:
    net, x = _network(LAYERS[name]()), random_array(1, (5, 7, 6, 4))
    again = fd.Sequential.from_config(json.loads(json.dumps(net.get_config())))
    assert again.get_config() == net.get_config()
    net.save(tmp_path / "net.safetensors")
    loaded = fd.load(tmp_path / "net.safetensors")
    for same in (again, loaded):
        assert type(same.layers[0]) is type(net.layers[0])
        assert same.layers[0].config() == net.layers[0].config()
        assert_same_bits(same.forward(x, True, 3)[0], net.forward(x, True, 3)[0])
        assert_same_bits(same(x), net(x))
    assert_same_bits(net.predictor()(x), net(x))
    assert_not_vacuous(net(x))


@pytest.mark.parametrize("name", LAYERS)
def test_a_step_has_the_bits_of_its_parts(name: str) -> None:
    x, labels = random_array(1, (12, 7, 6, 4)), np.arange(12) % 3
    nets, optimizers = [_network(LAYERS[name]()) for _ in range(2)], [fd.optim.SGD(0.1, momentum=0.9) for _ in range(2)]
    before = nets[0].parameters()[0].value.copy()
    for _ in range(3):
        loss = nets[0].train_on_batch(x, labels, optimizers[0])
        logits, backward = nets[1].forward(x, True)
        wanted, gradient = fd.losses.softmax_cross_entropy(logits, labels)
        backward(gradient)
        optimizers[1].step(nets[1])
        nets[1].zero_grad()
        assert loss == wanted
    for mine, right in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert_same_bits(mine.value, right.value)
    assert_not_vacuous(nets[0].parameters()[0].value - before)


@pytest.mark.parametrize("name", LAYERS)
def test_the_factor_of_the_papers_rule_passes_through(name: str) -> None:
    """To the next weight, in training and in inference."""
    layers = [fd.Dropout(0.4, mode="downscale_in_infer"), LAYERS[name](), fd.Flatten(), fd.Dense(3, "tanh")]
    net = fd.Sequential(layers, input_shape=(7, 6, 4), seed=2, dtype="float64")
    new, x = net.to_upscale_in_train(), random_array(1, (5, 7, 6, 4), np.float64)
    assert_near(new(x), net(x), 1e-12)
    assert_near(new.forward(x, True, 3)[0], net.forward(x, True, 3)[0], 1e-12)
    keep_prob = net.layers[0].keep_prob((1, 7, 6, 4))
    assert_near(new.parameters()[0].value, net.parameters()[0].value * keep_prob, 1e-15)
    assert_not_vacuous(net(x))


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: fd.MaxPool2D(0), ArgumentValueError, "`pool_size` must be at least 1, got 0"),
    (lambda: fd.MaxPool2D(2.0), ArgumentTypeError, "`pool_size` must be an integer, got float"),
    (lambda: fd.MaxPool2D((2, 2, 2)), ArgumentValueError, "`pool_size` must be an integer or two of them, got 3 entries"),
    (lambda: fd.AvgPool2D(2, 0), ArgumentValueError, "`strides` must be at least 1, got 0"),
    (lambda: fd.AvgPool2D(2, (1, None)), ArgumentTypeError, "`strides` must be an integer, got NoneType"),
    (lambda: fd.AvgPool2D(2, padding="full"), ArgumentValueError, "`padding` must be one of same, valid, got 'full'"),
    (lambda: fd.AvgPool2D(name=3), ArgumentTypeError, "`name` must be"),
    (lambda: fd.GlobalAveragePool2D(1), ArgumentTypeError, "`keepdims` must be True or False, got int"),
    (
        lambda: fd.MaxPool2D()(np.ones((2, 4), "f4")),
        ArgumentValueError,
        "`x` must be of shape (rows, height, width, channels) for layer 'maxpool2d', got (rows, 4)",
    ),
    (
        lambda: fd.GlobalAveragePool2D()(np.ones((2, 4, 3), "f4")),
        ArgumentValueError,
        "`x` must be of shape (rows, height, width, channels) for layer 'globalaveragepool2d', got (rows, 4, 3)",
    ),
    (
        lambda: fd.GlobalAveragePool2D()(np.ones((2, 0, 3, 3), "f4")),
        ArgumentValueError,
        "`x` must be of height and width at least 1 for layer 'globalaveragepool2d', got (0, 3, 3)",
    ),
    (
        lambda: fd.MaxPool2D(3)(np.ones((2, 4, 2, 3), "f4")),
        ArgumentValueError,
        "`x` must be of height and width that fit the window of layer 'maxpool2d', 3 at least, got (4, 2)",
    ),
    (lambda: fd.MaxPool2D(3, name="p").build((2, 4, 1)), ArgumentValueError, "the window of layer 'p', 3 at least, got (2, 4)"),
    (lambda: fd.MaxPool2D()(np.ones((1, 2, 2, 1), int)), ArgumentTypeError, "`x` must be"),
    (lambda: fd.MaxPool2D(input_shape=(4, 4, 1))(np.ones((1, 2, 2, 1), "f4")), ArgumentValueError, "`x` must be of shape"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=[text for _, _, text in BAD])
def test_bad_input(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert text in str(caught.value)
