"""Convolution through the seam: the reference against the definition in loops, every backend against the reference."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, NamedTuple

import numpy as np
import pytest
from assertions import (
    among_nans,
    assert_agree,
    assert_at_most_twice_the_error,
    assert_near,
    assert_not_vacuous,
    assert_same_bits,
    assert_varied,
    guarded,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DTYPES, LAYOUTS, dtypes, masks, random_array, small_integers
from subprocesses import finish, run, start

from fastdrop import Key, Mask, convolved
from fastdrop._config import load_numba
from fastdrop._types import ActivationKind, Array, Shape, UpdateKind
from fastdrop.backends.base import AbstractBackend, needs_z
from fastdrop.backends.cpu import _winograd
from fastdrop.backends.cpu import conv2d as kernels
from fastdrop.backends.operands import Unpooled, Update
from fastdrop.mask import BoundMask
from fastdrop.window import Pair, Window, window_of

pytestmark = pytest.mark.filterwarnings("ignore::fastdrop.errors.AllDroppedWarning")
compiled = pytest.mark.skipif(bool(load_numba().config.DISABLE_JIT), reason="bits are those of compiled kernels")

KEY = Key(21, 2, 9)
KINDS = list(ActivationKind)
LINEAR, RELU, TANH, GELU = ActivationKind.LINEAR, ActivationKind.RELU, ActivationKind.TANH, ActivationKind.GELU


class Geometry(NamedTuple):
    """Images (rows, height, width, channels), and the convolution that is done on them."""

    images: tuple[int, int, int, int]
    filters: int
    size: Pair = (3, 3)
    strides: Pair = (1, 1)
    dilation: Pair = (1, 1)
    padding: str = "valid"

    @property
    def window(self) -> Window:
        return window_of(self.images[1:3], self.size, self.strides, self.dilation, self.padding, "`weight`")

    @property
    def weight_shape(self) -> Shape:
        return (*self.size, self.images[3], self.filters)

    @property
    def y_shape(self) -> Shape:
        return (self.images[0], *self.window.places, self.filters)


GEOMETRIES = {
    "few channels": Geometry((3, 8, 7, 3), 20, padding="same"),
    "many channels": Geometry((2, 6, 6, 16), 17, padding="same"),
    "no padding": Geometry((2, 6, 7, 9), 33),
    "one channel": Geometry((2, 5, 6, 1), 1, padding="same"),
    "one row": Geometry((1, 9, 9, 7), 13),
    "strides": Geometry((2, 9, 8, 7), 13, (2, 3), (2, 3), padding="same"),
    "strides and a remainder": Geometry((2, 9, 10, 6), 32, (3, 2), (4, 3)),
    "dilation": Geometry((2, 10, 11, 4), 15, dilation=(2, 3), padding="same"),
    "dilation and strides": Geometry((2, 11, 10, 5), 8, strides=(2, 2), dilation=(2, 2)),
    "each place alone": Geometry((2, 5, 6, 9), 31, (1, 1)),
    "strides larger than the kernel": Geometry((2, 5, 7, 9), 8, (1, 2), (2, 3), padding="same"),
    "the whole image": Geometry((3, 4, 5, 6), 5, (4, 5)),
    "a kernel larger than the image": Geometry((2, 3, 2, 3), 5, (5, 6), padding="same"),
    "an even kernel": Geometry((2, 5, 5, 12), 10, (4, 2), padding="same"),
    "many images": Geometry((67, 3, 3, 2), 4, (2, 2), padding="same"),
    "a deep sum": Geometry((2, 4, 4, 65), 6, padding="same"),
    "tiles": Geometry((2, 6, 8, 33), 34, padding="same"),
    "odd tiles": Geometry((3, 5, 7, 32), 65, padding="same"),
    "tiles without padding": Geometry((2, 6, 7, 40), 32),
}
TILED = ["tiles", "odd tiles", "tiles without padding"]
"""Those that the CPU backend does by Winograd's minimal filtering."""
NAMED = pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=list(GEOMETRIES))


def _conv(x: Array, weight: Array, bias: Array | None, window: Window, backend: AbstractBackend) -> Array:
    return backend.conv2d_forward(x, weight, bias, window, LINEAR, None, None, False)[0]


def _gradients(dz: Array, x: Array, weight: Array, window: Window, backend: AbstractBackend) -> tuple[Array, Array, Array]:
    """(dx, dweight, dbias) without activation and masks."""
    dweight, dbias = (np.full(shape, np.nan, x.dtype) for shape in (weight.shape, weight.shape[3:]))
    dx = backend.conv2d_backward(dz, x, weight, dz, None, window, LINEAR, None, None, True, dweight, dbias, False)
    assert dx is not None
    return dx, dweight, dbias


# The definition


def places_of(extent: int, n: int, step: int, apart: int, padding: str) -> list[list[int]]:
    """Where the elements of the window lie at each place, along one axis: as TensorFlow documents its padding."""
    reach = (n - 1) * apart + 1
    if padding == "valid":
        count, before = -(-(extent - reach + 1) // step), 0
    else:
        count = -(-extent // step)
        total = reach - step if extent % step == 0 else reach - extent % step
        before = max(0, total) // 2
    return [[i * step - before + p * apart for p in range(n)] for i in range(count)]


def _loops(geometry: Geometry, x: Array, weight: Array, bias: Array, dz: Array) -> tuple[Array, ...]:
    """(z, dx, dweight, dbias), a product at a time."""
    height, width = geometry.images[1:3]
    downs, acrosses = (
        places_of(*axis, geometry.padding)
        for axis in zip((height, width), geometry.size, geometry.strides, geometry.dilation, strict=True)
    )
    z = np.zeros((len(x), len(downs), len(acrosses), weight.shape[3]))
    dx, dweight, dbias = np.zeros(x.shape), np.zeros(weight.shape), np.zeros(bias.shape)
    for r, (i, rows), (j, columns) in itertools.product(range(len(x)), enumerate(downs), enumerate(acrosses)):
        for f in range(weight.shape[3]):
            z[r, i, j, f] = bias[f]
            dbias[f] += dz[r, i, j, f]
        for (p, down), (q, across) in itertools.product(enumerate(rows), enumerate(columns)):
            if 0 <= down < height and 0 <= across < width:
                for c, f in itertools.product(range(x.shape[3]), range(weight.shape[3])):
                    z[r, i, j, f] += x[r, down, across, c] * weight[p, q, c, f]
                    dx[r, down, across, c] += dz[r, i, j, f] * weight[p, q, c, f]
                    dweight[p, q, c, f] += dz[r, i, j, f] * x[r, down, across, c]
    return z, dx, dweight, dbias


@NAMED
def test_the_reference_is_the_definition(reference: AbstractBackend, geometry: Geometry) -> None:
    rows, height, width, channels = geometry.images
    small = geometry._replace(images=(min(rows, 2), height, width, min(channels, 3)), filters=min(geometry.filters, 2))
    x, weight, bias, dz = (
        small_integers(seed, shape, np.float64)
        for seed, shape in enumerate((small.images, small.weight_shape, (small.filters,), small.y_shape))
    )
    got = _conv(x, weight, bias, small.window, reference), *_gradients(dz, x, weight, small.window, reference)
    for mine, right in zip(got, _loops(small, x, weight, bias, dz), strict=True):
        np.testing.assert_array_equal(mine, right)
        assert_not_vacuous(right)


KERAS_IMAGE = np.arange(1, 21, dtype=np.float32).reshape(1, 4, 5, 1)
ODD = np.array([[1, 2, 0], [0, 1, -1], [3, 0, 1]], np.float32).reshape(3, 3, 1, 1)
EVEN = np.array([[1, 2], [3, -1]], np.float32).reshape(2, 2, 1, 1)
KERAS = [  # keras.ops.conv of Keras 3 on TensorFlow 2.21
    (ODD, 1, "valid", 1, [[50, 57, 64], [85, 92, 99]]),
    (ODD, 1, "same", 1, [[6, 25, 29, 33, 32], [13, 50, 57, 64, 66], [28, 85, 92, 99, 101], [21, 34, 37, 40, 64]]),
    (ODD, 2, "same", 1, [[13, 57, 66], [21, 37, 64]]),
    (ODD, 3, "same", 1, [[25, 32], [34, 64]]),
    (ODD, 1, "same", 2, [[11, 12, 46, 40, 44], [16, 17, 66, 60, 64], [0, 2, 5, 24, 28], [10, 12, 20, 44, 48]]),
    (EVEN, 1, "same", 1, [[16, 21, 26, 31, 35], [41, 46, 51, 56, 55], [66, 71, 76, 81, 75], [50, 53, 56, 59, 20]]),
    (EVEN, 2, "same", 1, [[16, 26, 35], [66, 76, 75]]),
    (EVEN, 2, "valid", 1, [[16, 26], [66, 76]]),
    (EVEN, 1, "valid", 2, [[27, 32, 37], [52, 57, 62]]),
]


@pytest.mark.parametrize(("weight", "strides", "padding", "dilation", "wanted"), KERAS)
def test_windows_are_those_of_keras(
    backend: AbstractBackend, weight: Array, strides: int, padding: str, dilation: int, wanted: list[list[int]]
) -> None:
    window = window_of((4, 5), weight.shape[:2], (strides, strides), (dilation, dilation), padding, "`weight`")
    np.testing.assert_array_equal(_conv(KERAS_IMAGE, weight, None, window, backend)[0, :, :, 0], wanted)


# The whole operation


def _matrix(mask: Mask | None, shape: Shape) -> BoundMask | None:
    return None if mask is None else mask.bind(shape, as_matrix=True)


def _drop(x: Array, mask: Mask | None) -> Array:
    """Dropout by the mask as an array; the scale is rounded to the dtype of x."""
    if mask is None:
        return x
    with np.errstate(all="ignore"):
        scaled = x * x.dtype.type(mask.bind(x.shape).scale)
    return np.where(mask.to_array(x.shape), scaled, x.dtype.type(0))


@dataclasses.dataclass
class Case:
    """One convolution."""

    x: Array
    weight: Array
    bias: Array | None
    dy: Array
    window: Window
    kind: ActivationKind
    input_mask: Mask | None
    output_mask: Mask | None

    def bound(self) -> tuple[BoundMask | None, BoundMask | None]:
        noise_shape = None if self.input_mask is None else self.input_mask.noise_shape
        return _matrix(self.input_mask, convolved.input_shape(self.x.shape, noise_shape)), _matrix(
            self.output_mask, self.dy.shape
        )

    def as_dtype(self, dtype: Any) -> Case:
        arrays = {name: getattr(self, name) for name in ("x", "weight", "bias", "dy")}
        return dataclasses.replace(self, **{name: None if a is None else a.astype(dtype) for name, a in arrays.items()})

    def forward(self, backend: AbstractBackend, keep_z: bool = True) -> tuple[Array, Array | None]:
        return backend.conv2d_forward(self.x, self.weight, self.bias, self.window, self.kind, *self.bound(), keep_z)

    def arguments(self, y: Array, z: Array | None) -> tuple[Any, ...]:
        return self.dy, self.x, self.weight, y, z, self.window, self.kind, *self.bound()

    def backward(self, backend: AbstractBackend, y: Array, z: Array | None) -> tuple[Array, Array, Array]:
        dweight, dbias = (np.full(shape, np.nan, self.x.dtype) for shape in (self.weight.shape, self.weight.shape[3:]))
        dx = backend.conv2d_backward(*self.arguments(y, z), True, dweight, dbias, accumulate=False)
        assert dx is not None
        return dx, dweight, dbias

    def expected_forward(self, reference: AbstractBackend) -> tuple[Array, Array]:
        """(y, z) by the formula, in the dtype of the arrays."""
        z = _conv(_drop(self.x, self.input_mask), self.weight, self.bias, self.window, reference)
        return _drop(reference.activation_forward(z, self.kind), self.output_mask), z

    def expected_backward(self, reference: AbstractBackend, z: Array) -> tuple[Array, Array, Array]:
        """(dx, dweight, dbias) by the formula."""
        dz = _drop(reference.activation_backward(self.dy, z, self.kind), self.output_mask)
        dx, dweight, dbias = _gradients(dz, _drop(self.x, self.input_mask), self.weight, self.window, reference)
        return _drop(dx, self.input_mask), dweight, dbias


def _case(
    geometry: Geometry,
    *,
    make: Any = random_array,
    dtype: Any = np.float32,
    kind: ActivationKind = LINEAR,
    input_mask: Mask | None = None,
    output_mask: Mask | None = None,
    bias: bool = True,
    seed: int = 0,
) -> Case:
    return Case(
        make(seed, geometry.images, dtype),
        make(seed + 1, geometry.weight_shape, dtype),
        make(seed + 2, (geometry.filters,), dtype) if bias else None,
        make(seed + 3, geometry.y_shape, dtype),
        geometry.window,
        kind,
        input_mask,
        output_mask,
    )


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    pairs = {
        name: (draw(st.integers(1, most)), draw(st.integers(1, most))) for name, most in (("size", 4), ("step", 3), ("apart", 2))
    }
    reach = [(n - 1) * apart + 1 for n, apart in zip(pairs["size"], pairs["apart"], strict=True)]
    padding = draw(st.sampled_from(["valid", "same"]))
    least = reach if padding == "valid" else (1, 1)
    height, width = (draw(st.integers(low, low + 4)) for low in least)
    channels, filters = (draw(st.sampled_from([1, 2, 3, 4, 5, 7, 8, 16, 17])) for _ in range(2))
    images = draw(st.integers(0, 5)), height, width, channels
    return Geometry(images, filters, pairs["size"], pairs["step"], pairs["apart"], padding)


@given(st.data(), geometries(), st.sampled_from(KINDS), st.booleans(), dtypes, st.integers(0, 2**31))
@settings(max_examples=120)
def test_forward_and_backward_are_the_definition(
    backend: AbstractBackend,
    reference: AbstractBackend,
    data: st.DataObject,
    geometry: Geometry,
    kind: ActivationKind,
    bias: bool,
    dtype: np.dtype,
    seed: int,
) -> None:
    """Random shapes, masks and activations, within the rounding errors of sums of that many terms."""
    input_mask = data.draw(st.none() | masks(geometry.images))
    output_mask = data.draw(st.none() | masks(geometry.y_shape))
    case = _case(geometry, dtype=dtype, kind=kind, input_mask=input_mask, output_mask=output_mask, bias=bias, seed=seed)
    window, eps = case.window, float(np.finfo(dtype).eps)
    depth, rows = window.taps * geometry.images[3], len(case.x) * window.positions
    wanted, z = case.expected_forward(reference)
    y, kept_z = case.forward(backend)
    assert y.dtype == dtype
    assert y.flags.c_contiguous
    dropped_x = np.abs(_drop(case.x, input_mask))
    terms = _conv(dropped_x, np.abs(case.weight), None if case.bias is None else np.abs(case.bias), window, reference) + 1
    assert_near(y, wanted, 4 * (depth + 8) * eps * np.abs(_drop(terms, output_mask)))
    assert (kept_z is not None) == needs_z(kind)
    if kept_z is not None:
        assert_near(kept_z, z, 4 * (depth + 8) * eps * terms)

    got = case.backward(backend, wanted, z if needs_z(kind) else None)
    dz_terms = 2 * np.abs(_drop(case.dy, output_mask))
    dx_terms, dweight_terms, dbias_terms = _gradients(dz_terms, dropped_x, np.abs(case.weight), window, reference)
    bounds = np.abs(_drop(dx_terms, input_mask)), dweight_terms, dbias_terms
    lengths = window.taps * geometry.filters, rows, rows
    for mine, right, bound, length in zip(got, case.expected_backward(reference, z), bounds, lengths, strict=True):
        assert mine.dtype == dtype
        assert_near(mine, right, 4 * (length + 8) * eps * bound)


HALF = Mask(0.5, KEY)
SPATIAL = (None, 1, 1, None)
EXACT_MASKS = {
    "none": (None, None),
    "both": (HALF, Mask(0.5, KEY.on(7))),
    "offset": (Mask(0.75, KEY, row_offset=5), Mask(0.5, KEY.on(7), row_offset=5)),
    "shared": (Mask(0.5, KEY, shared_rows=3, row_offset=1), Mask(0.5, KEY.on(7), shared_rows="batch")),
    "spatial": (Mask(0.5, KEY, noise_shape=SPATIAL), Mask(0.5, KEY.on(7), noise_shape=SPATIAL, row_offset=3)),
    "shared spatial": (
        Mask(0.5, KEY, noise_shape=SPATIAL, shared_rows=2, row_offset=1),
        Mask(0.5, KEY.on(7), noise_shape=(1, 1, 1, None)),
    ),
    "places": (Mask(0.5, KEY, noise_shape=(None, None, None, 1)), Mask(0.5, KEY.on(7), noise_shape=(None, 1, None, None))),
}


def _check_exactly(case: Case, backend: AbstractBackend, reference: AbstractBackend) -> None:
    """Small integers: every sum is exact, so every result has one right answer."""
    y, z = case.forward(backend)
    wanted_y, wanted_z = case.expected_forward(reference)
    assert np.abs(wanted_z).max(initial=0) < 2**23
    assert_same_bits(np.abs(y), np.abs(wanted_y))
    np.testing.assert_array_equal(y, wanted_y)
    assert z is None
    for mine, right in zip(case.backward(backend, y, None), case.expected_backward(reference, wanted_z), strict=True):
        assert_same_bits(np.abs(mine), np.abs(right))
        np.testing.assert_array_equal(mine, right)
        if right.size >= 64:
            assert_not_vacuous(right, 0.01)
    if y.size >= 64:
        assert_not_vacuous(wanted_y)


@pytest.mark.parametrize("name", EXACT_MASKS)
@NAMED
def test_small_integers_are_exact(backend: AbstractBackend, reference: AbstractBackend, geometry: Geometry, name: str) -> None:
    input_mask, output_mask = EXACT_MASKS[name]
    for dtype, kind in zip(DTYPES, (RELU, LINEAR), strict=True):
        case = _case(geometry, make=small_integers, dtype=dtype, kind=kind, input_mask=input_mask, output_mask=output_mask)
        _check_exactly(case, backend, reference)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("filters", [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 129])
def test_small_integers_are_exact_at_the_edges_of_tiles(
    backend: AbstractBackend, reference: AbstractBackend, filters: int, dtype: np.dtype
) -> None:
    """As filters, and as channels, beside odd numbers of the other; places around the height of a tile."""
    for rows, height, width in ((1, 1, 1), (1, 2, 3), (1, 4, 3), (2, 5, 5)):
        for channels, others in ((3, filters), (17, filters), (filters, 5), (filters, 64)):
            case = _case(Geometry((rows, height, width, channels), others, padding="same"), make=small_integers, dtype=dtype)
            _check_exactly(case, backend, reference)


def test_what_is_done_by_tiles_and_what_is_not() -> None:
    """The shape of an image decides, never how many there are."""
    dtype = np.dtype(np.float32)
    for name, geometry in GEOMETRIES.items():
        assert _winograd.applies(geometry.window, (1, 1), geometry.images[3], geometry.filters, dtype) == (name in TILED)
    window = GEOMETRIES["tiles"].window
    assert not _winograd.applies(window, (2, 1), 64, 64, dtype)
    assert _winograd.applies(window, (1, 1), 256, 512, dtype)
    assert not _winograd.applies(window, (1, 1), 256, 512, np.dtype(np.float64))  # 16 MiB of transformed filters
    assert not _winograd.applies(window, (1, 1), 32, 1024, dtype)  # long rows of sums


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("height", "width", "options"), [(90, 85, {"size": (5, 5)}), (301, 300, {"strides": (2, 2)})])
def test_patches_of_one_image_that_are_too_many_at_a_time(
    backend: AbstractBackend, reference: AbstractBackend, height: int, width: int, options: dict[str, Any], dtype: np.dtype
) -> None:
    geometry = Geometry((1, height, width, 3), 8, padding="same", **options)
    assert kernels.adds_patches(geometry.window, 3, 8, np.dtype(dtype))
    assert geometry.window.positions * geometry.window.taps * 3 * np.dtype(dtype).itemsize > kernels.BATCH_BYTES
    _check_exactly(_case(geometry, make=small_integers, dtype=dtype, input_mask=Mask(0.5, KEY)), backend, reference)


@pytest.mark.parametrize("dtype", DTYPES)
def test_more_tiles_and_channels_than_a_thread_has_in_hand(
    backend: AbstractBackend, reference: AbstractBackend, dtype: np.dtype
) -> None:
    """Rows of tiles longer than a block and shorter ones, channels beyond the depth of a panel, images of several pieces."""
    wide = 2 * _winograd.BLOCK + 5
    for images, filters in (((2, 3, wide, 32), 33), ((9, 8, 7, 36), 40), ((1, 4, 4, kernels.KC + 5), 32), ((1, 4, 4, 32), 300)):
        geometry = Geometry(images, filters, padding="same")
        assert _winograd.applies(geometry.window, (1, 1), images[3], filters, np.dtype(dtype))
        masks = Mask(0.5, KEY, row_offset=5), Mask(0.5, KEY.on(7), row_offset=5)
        case = _case(geometry, make=small_integers, dtype=dtype, kind=RELU, input_mask=masks[0], output_mask=masks[1])
        _check_exactly(case, backend, reference)


def test_small_integers_with_fixed_counts(backend: AbstractBackend, reference: AbstractBackend) -> None:
    """Half of an even number of units: the scale is 2."""
    geometry = GEOMETRIES["many channels"]._replace(filters=18)
    for noise_shape in (None, SPATIAL):
        input_mask, output_mask = (
            Mask(0.5, KEY.on(i), noise_shape=noise_shape, fixed_count=True, shared_rows=2, row_offset=5) for i in range(2)
        )
        case = _case(geometry, make=small_integers, kind=RELU, input_mask=input_mask, output_mask=output_mask)
        _check_exactly(case, backend, reference)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_larger_sum_is_packed_in_several_pieces(backend: AbstractBackend, reference: AbstractBackend, dtype: np.dtype) -> None:
    """Deeper than all the panels that a thread packs at a time; and a gradient over more places than a piece has."""
    deep = kernels.MOST_PANELS * kernels.KC + 300
    for images, filters, size in (
        ((2, 2, 2, deep), 3, (1, 1)),
        ((3, 1, deep // 9 + 1, 9), 3, (1, 9)),
        ((2, 40, 40, 5), 33, (3, 3)),
    ):
        _check_exactly(_case(Geometry(images, filters, size), make=small_integers, dtype=dtype), backend, reference)


@pytest.mark.parametrize("kind", [LINEAR, RELU, TANH, GELU])
@pytest.mark.parametrize("name", ["few channels", "strides", "many channels", "a deep sum", *TILED])
def test_error_is_at_most_twice_that_of_plain_numpy(
    backend: AbstractBackend, reference: AbstractBackend, name: str, kind: ActivationKind
) -> None:
    """float32 against binary64; rates whose scale is exact in both."""
    case = _case(GEOMETRIES[name], kind=kind, input_mask=Mask(0.5, KEY), output_mask=Mask(0.75, KEY.on(1)))
    case.weight /= np.float32(np.sqrt(case.window.taps * case.x.shape[3]))
    wide = case.as_dtype(np.float64)
    exact_y, exact_z = wide.expected_forward(reference)
    y, z = case.forward(backend)
    assert_at_most_twice_the_error(y, case.expected_forward(reference)[0], exact_y)
    assert_not_vacuous(exact_y)
    saved_z = exact_z.astype(np.float32)
    exact = wide.expected_backward(reference, saved_z.astype(np.float64))
    plain = case.expected_backward(reference, saved_z)
    got = case.backward(backend, exact_y.astype(np.float32), None if z is None else saved_z)
    for mine, theirs, right in zip(got, plain, exact, strict=True):
        assert_at_most_twice_the_error(mine, theirs, right)
        assert_not_vacuous(right)


# What is written and read, and what is not


@pytest.mark.parametrize("dtype", DTYPES)
@NAMED
def test_nothing_beyond_the_edges_is_written_or_read(backend: AbstractBackend, geometry: Geometry, dtype: np.dtype) -> None:
    case = _case(geometry, make=small_integers, dtype=dtype, kind=RELU, output_mask=HALF)
    y, z = case.forward(backend)
    wanted = case.backward(backend, y, z)
    around = dataclasses.replace(case, **{name: among_nans(getattr(case, name)) for name in ("x", "weight", "bias", "dy")})
    assert_same_bits(around.forward(backend)[0], y)
    (dweight, check_weight), (dbias, check_bias) = guarded(case.weight.shape, dtype), guarded((geometry.filters,), dtype)
    dx = backend.conv2d_backward(*around.arguments(among_nans(y), z), True, dweight, dbias, accumulate=False)
    check_weight()
    check_bias()
    for mine, right in zip((dx, dweight, dbias), wanted, strict=True):
        assert_same_bits(mine, right)


def test_inputs_are_not_written(backend: AbstractBackend) -> None:
    for geometry in GEOMETRIES.values():
        case = _case(geometry, kind=ActivationKind.SILU, input_mask=HALF, output_mask=HALF)
        for array in (case.x, case.weight, case.bias, case.dy):
            array.flags.writeable = False
        y, z = case.forward(backend)
        for array in (y, z):
            array.flags.writeable = False
        case.backward(backend, y, z)
        assert_not_vacuous(y)


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"big-endian"}))
@pytest.mark.parametrize("name", ["few channels", "strides", "no padding", "each place alone", "odd tiles"])
def test_the_memory_layout_changes_no_bit(backend: AbstractBackend, name: str, layout: str) -> None:
    """On the CPU backend; the reference leaves the order of sums to the BLAS library of NumPy."""
    same = assert_agree if backend.name == "reference" else assert_same_bits
    plain = _case(GEOMETRIES[name], kind=GELU, input_mask=HALF, output_mask=Mask(0.3, KEY.on(1)))
    arrays = {each: LAYOUTS[layout](getattr(plain, each)) for each in ("x", "weight", "bias", "dy")}
    other = dataclasses.replace(plain, **arrays)
    y, z = plain.forward(backend)
    got = *other.forward(backend), *other.backward(backend, LAYOUTS[layout](y), LAYOUTS[layout](z))
    assert_not_vacuous(y)
    for mine, right in zip(got, (y, z, *plain.backward(backend, y, z)), strict=True):
        same(mine, right)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["few channels", "strides", "many channels"])
def test_accumulate_adds(backend: AbstractBackend, name: str, dtype: np.dtype) -> None:
    """Integers, so that adding is exact whatever the order."""
    case = _case(GEOMETRIES[name], make=small_integers, dtype=dtype, output_mask=HALF)
    y, z = case.forward(backend)
    _, dweight, dbias = case.backward(backend, y, z)
    sum_weight, sum_bias = np.full_like(dweight, 3), np.full_like(dbias, 5)
    for _ in range(2):
        backend.conv2d_backward(*case.arguments(y, z), False, sum_weight, sum_bias, accumulate=True)
    assert_same_bits(sum_weight, 2 * dweight + 3)
    assert_same_bits(sum_bias, 2 * dbias + 5)
    assert_not_vacuous(dweight)


def _update(kind: UpdateKind, value: Array) -> Update:
    """An update of `value` with slots of +1.0."""
    nothing = np.empty((0,) * value.ndim, value.dtype)
    first = nothing if kind == UpdateKind.SGD else np.ones_like(value)
    second = np.ones_like(value) if kind == UpdateKind.ADAM else nothing
    rates = (0.1, 0.01, 0.5, 0.25, 1e-7)[: 5 if kind == UpdateKind.ADAM else 3]
    return Update(kind, value, first, second, np.array(rates, value.dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["few channels", "strides", "many channels", "no rows"])
@pytest.mark.parametrize("kind", UpdateKind)
@pytest.mark.parametrize("output_mask", [None, HALF, Mask(1.0, KEY)], ids=["none", "half", "all"])
def test_an_update_is_that_by_the_gradient(
    backend: AbstractBackend, output_mask: Mask | None, kind: UpdateKind, name: str, dtype: np.dtype
) -> None:
    """Same bits as a gradient that is added into +0.0 and then applied; dx is by the weight before."""
    geometry = GEOMETRIES.get(name, Geometry((0, 5, 5, 3), 4))
    case = _case(geometry, dtype=dtype, kind=RELU, input_mask=HALF, output_mask=output_mask)
    assert case.bias is not None
    y, z = case.forward(backend)
    gradients = np.zeros_like(case.weight), np.zeros_like(case.bias)
    wanted_dx = backend.conv2d_backward(*case.arguments(y, z), True, *gradients, True)
    wanted = [_update(kind, value.copy()) for value in (case.weight, case.bias)]
    got = [_update(kind, value) for value in (case.weight, case.bias)]
    for update, gradient in zip(wanted, gradients, strict=True):
        backend.update(update, gradient)
    dx = backend.conv2d_backward(*case.arguments(y, z), True, *got, True)
    assert wanted_dx is not None
    assert dx is not None
    assert_same_bits(dx, wanted_dx)
    for mine, right, gradient in zip(got, wanted, gradients, strict=True):
        for array, other in zip(mine[1:], right[1:], strict=True):
            assert_same_bits(array, other)
        if len(case.x) and (output_mask is None or output_mask.rate < 1):
            assert_not_vacuous(gradient)


@pytest.mark.parametrize("name", ["few channels", "many channels"])
def test_only_what_is_wanted(backend: AbstractBackend, name: str) -> None:
    """Each of dx, dweight and dbias alone equals its part of the whole, bit for bit, as an array and as an update."""
    case = _case(GEOMETRIES[name], kind=TANH, input_mask=HALF, output_mask=HALF)
    y, z = case.forward(backend)
    dx, dweight, dbias = case.backward(backend, y, z)
    arguments = case.arguments(y, z)
    assert_same_bits(backend.conv2d_backward(*arguments, True, None, None, accumulate=False), dx)
    for full, value, place in ((dweight, case.weight, 0), (dbias, case.bias, 1)):
        buffer = np.full_like(full, np.nan)
        pair = [None, None]
        pair[place] = buffer
        assert backend.conv2d_backward(*arguments, False, *pair, accumulate=False) is None
        assert_same_bits(buffer, full)
        assert value is not None
        mine, right = (_update(UpdateKind.MOMENTUM, value.copy()) for _ in range(2))
        pair[place] = mine
        assert backend.conv2d_backward(*arguments, False, *pair, accumulate=False) is None
        backend.update(right, full)
        assert_same_bits(mine.value, right.value)
    linear = dataclasses.replace(case, kind=LINEAR, output_mask=None)  # dy itself is the gradient of z
    y, z = linear.forward(backend)
    got = backend.conv2d_backward(*linear.arguments(y, z), True, None, None, accumulate=False)
    assert_same_bits(got, linear.backward(backend, y, z)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_z_is_kept_only_when_asked_for_and_needed(backend: AbstractBackend, kind: ActivationKind) -> None:
    case = _case(GEOMETRIES["few channels"], kind=kind, output_mask=HALF)
    y, z = case.forward(backend)
    without, nothing = case.forward(backend, keep_z=False)
    assert nothing is None
    assert (z is not None) == needs_z(kind)
    assert_same_bits(y, without)


# Ways through the kernels


@NAMED
def test_both_ways_of_the_gradient_by_the_image(
    reference: AbstractBackend, geometry: Geometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patch by patch, and as a convolution: integers exactly, floats to rounding."""
    from fastdrop.backends import select

    cpu = select.backend("cpu")
    for dtype in DTYPES:
        found = []
        for adds in (True, False):
            monkeypatch.setattr(kernels, "adds_patches", lambda *arguments, adds=adds: adds)
            _check_exactly(_case(geometry, make=small_integers, dtype=dtype, output_mask=HALF), cpu, reference)
            case = _case(geometry, dtype=dtype, input_mask=Mask(0.3, KEY))
            found.append(case.backward(cpu, *case.forward(cpu))[0])
        assert_agree(found[0], found[1], 32)
        assert_not_vacuous(found[0])


def test_the_choice_between_the_ways_is_that_of_less_work() -> None:
    def adds(images: Shape, filters: int, **options: Any) -> bool:
        geometry = Geometry((1, *images[1:]), filters, **options)
        return kernels.adds_patches(geometry.window, images[3], filters, np.dtype(np.float32))

    assert adds((1, 32, 32, 3), 64, padding="same")
    assert adds((1, 16, 16, 64), 128, padding="same", strides=(2, 2))
    assert not adds((1, 16, 16, 64), 128, padding="same")
    assert not adds((1, 8, 8, 128), 256, padding="same")


# Gradients that are mostly zeros

LISTED = {
    "as wide as worth it": Geometry((3, 8, 7, 33), 20, padding="same"),
    "bands": Geometry((2, 30, 31, 40), 3, padding="same"),
    "strides": Geometry((2, 9, 8, 40), 13, (2, 3), (2, 3), padding="same"),
    "dilation and strides": Geometry((2, 11, 10, 35), 8, strides=(2, 2), dilation=(2, 2)),
    "each place alone": Geometry((2, 5, 6, 64), 31, (1, 1)),
    "few channels, but many in a row": Geometry((2, 6, 6, 11), 17, padding="same"),
    "more than is listed at a time": Geometry((2, 40, 41, 33), 64, padding="same"),
    "more, with dilation and strides": Geometry((1, 61, 30, 32), 130, strides=(2, 1), dilation=(3, 1)),
}


@pytest.mark.parametrize("activation", [LINEAR, RELU, GELU])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pool", [(2, 2), (3, 2)])
def test_the_gradient_of_max_pooling_may_be_left_for_later(
    backend: AbstractBackend, activation: ActivationKind, masked: bool, pool: Pair
) -> None:
    """It is then worked out with the convolution's own, of some images at a time."""
    geometry = Geometry((40 if backend.name == "cpu" else 3, 15, 16, 3), 64, padding="same")
    x, weight, bias = random_array(1, geometry.images), random_array(2, geometry.weight_shape), random_array(3, (64,))
    mask = Mask(0.5, KEY).bind(geometry.y_shape, as_matrix=True) if masked else None
    given = geometry.window, activation, None, mask
    y, z = backend.conv2d_forward(x, weight, bias, *given, True)
    window = window_of((15, 16), pool, pool, (1, 1), "valid", "y")
    late = Unpooled(random_array(4, backend.max_pool_forward(y, window).shape), y, window)
    found = []
    for dy in (backend.unpool(late), late):
        dweight, dbias = np.ones_like(weight), np.ones_like(bias)
        dx = backend.conv2d_backward(dy, x, weight, y, z, *given, True, dweight, dbias, accumulate=True)
        found.append((dx, dweight, dbias))
    for got, wanted in zip(found[1], found[0], strict=True):
        assert_same_bits(got, wanted)
    assert_varied(backend.unpool(late) != 0)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LISTED)
def test_leaving_out_zeros_changes_nothing_but_rounding(
    backend: AbstractBackend, reference: AbstractBackend, name: str, dtype: np.dtype, share: float
) -> None:
    geometry = LISTED[name]
    x, weight = small_integers(1, geometry.images, dtype), small_integers(2, geometry.weight_shape, dtype)
    dy = small_integers(3, geometry.y_shape, dtype)
    dy[np.random.default_rng(4).random(dy.shape) >= share] = 0
    mask = Mask(0.5, KEY).bind((len(x), x[0].size), as_matrix=True)
    found = []
    for each in (reference, backend):
        dweight, dbias = np.ones_like(weight), np.ones(geometry.filters, dtype)
        dx = each.conv2d_backward(
            dy, x, weight, dy, None, geometry.window, LINEAR, mask, None, True, dweight, dbias, True, sparse=True
        )
        found.append((dx, dweight, dbias))
    for got, wanted in zip(found[1], found[0], strict=True):
        assert_same_bits(got, wanted + 0)  # of small integers every sum is exact
    if share:
        assert_varied(found[0][0] != 0)


@NAMED
def test_packed_filters_give_the_same_bits(backend: AbstractBackend, geometry: Geometry) -> None:
    x, weight = random_array(1, geometry.images), random_array(2, geometry.weight_shape)
    wanted, copy = _conv(x, weight, None, geometry.window, backend), weight.copy()
    packed = backend.pack_filters(copy, geometry.window)
    copy[...] = np.nan
    assert packed.shape == weight.shape
    assert_same_bits(_conv(x, packed, None, geometry.window, backend), wanted)


def test_left_out_zeros_do_not_multiply() -> None:
    """An infinite weight reaches the gradients of images only where dy is not zero."""
    from fastdrop.backends import select

    backend = select.backend("cpu")
    geometry = LISTED["each place alone"]
    x, weight = random_array(1, geometry.images, np.float32), np.full(geometry.weight_shape, np.inf, np.float32)
    dy = np.zeros(geometry.y_shape, np.float32)
    dy[0, 1, 2, 3] = 1
    dx = backend.conv2d_backward(dy, x, weight, dy, None, geometry.window, LINEAR, None, None, True, None, None, False, True)
    assert dx is not None
    assert np.isinf(dx[0, 1, 2]).all()
    assert np.count_nonzero(dx) == x.shape[3]


@compiled
@pytest.mark.parametrize("bytes_at_a_time", [1, 5000])
@pytest.mark.parametrize("name", ["few channels", "strides", "many images", "many channels", "odd tiles"])
def test_images_are_worked_on_some_at_a_time(name: str, bytes_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits of y and dx for any number of them, and for several passes; gradients of parameters to rounding."""
    from fastdrop.backends import select

    cpu = select.backend("cpu")
    case = _case(
        GEOMETRIES[name], kind=GELU, input_mask=Mask(0.2, KEY, row_offset=3), output_mask=Mask(0.5, KEY.on(1), row_offset=3)
    )

    def results() -> tuple[Array, ...]:
        y, z = case.forward(cpu)
        return y, *case.backward(cpu, y, z)

    whole = results()
    monkeypatch.setattr(kernels, "BATCH_BYTES", bytes_at_a_time)
    y, dx, dweight, dbias = results()
    assert_same_bits(y, whole[0])
    assert_same_bits(dx, whole[1])
    for mine, right in ((dweight, whole[2]), (dbias, whole[3])):
        assert_agree(mine, right, 64)
        assert_not_vacuous(right)


@compiled
@pytest.mark.parametrize("noise_shape", [None, SPATIAL])
@pytest.mark.parametrize("name", ["few channels", "strides", "many images", "many channels", "each place alone", *TILED])
def test_a_batch_cut_in_pieces_gives_the_same_rows(name: str, noise_shape: Any) -> None:
    from fastdrop.backends import select

    cpu = select.backend("cpu")
    for dtype, sharing in itertools.product(DTYPES, (1, 2)):
        geometry = GEOMETRIES[name]._replace(images=(7, *GEOMETRIES[name].images[1:]))
        whole = _case(geometry, dtype=dtype, kind=GELU)

        def piece(first: int, last: int, whole: Case = whole, sharing: int = sharing) -> Case:
            given = {"noise_shape": noise_shape, "shared_rows": sharing, "row_offset": 5 + first}
            return dataclasses.replace(
                whole,
                x=whole.x[first:last].copy(),
                dy=whole.dy[first:last].copy(),
                input_mask=Mask(0.2, KEY, **given),
                output_mask=Mask(0.5, KEY.on(1), **given),
            )

        y, z = piece(0, 7).forward(cpu)
        dx, _, _ = piece(0, 7).backward(cpu, y, z)
        assert_not_vacuous(y)
        assert_not_vacuous(dx)
        for first, last in ((0, 1), (1, 7), (3, 5)):
            part = piece(first, last)
            part_y, part_z = part.forward(cpu)
            assert_same_bits(part_y, y[first:last])
            assert_same_bits(part.backward(cpu, part_y, part_z)[0], dx[first:last])


@pytest.mark.parametrize("noise_shape", [None, SPATIAL])
@pytest.mark.parametrize("rows", [1, 3])
def test_passes_of_monte_carlo_inference(backend: AbstractBackend, rows: int, noise_shape: Any) -> None:
    """Rows of several passes together have the bits of each pass."""
    passes, geometry = 4, Geometry((rows, 5, 6, 4), 9, padding="same")
    same = assert_agree if backend.name == "reference" else assert_same_bits
    case = _case(geometry)
    case.weight /= np.float32(6)  # sums of 36 terms, which the BLAS library of NumPy adds up in any order, are about 1
    given = [Mask(0.4, Key(3, n, 7), noise_shape=noise_shape, row_offset=2) for n in range(2)]
    shapes = convolved.input_shape(geometry.images, noise_shape), geometry.y_shape
    together = [mask.bind(shape, as_matrix=True, domain_base=8, passes=passes) for mask, shape in zip(given, shapes, strict=True)]
    x = np.tile(case.x, (passes, 1, 1, 1))
    y, _ = backend.conv2d_forward(x, case.weight, case.bias, case.window, TANH, *together, False)
    for i in range(passes):
        alone = [
            mask.bind(shape, as_matrix=True, domain_base=8).at(mask.key.at(7 + i))
            for mask, shape in zip(given, shapes, strict=True)
        ]
        wanted, _ = backend.conv2d_forward(case.x, case.weight, case.bias, case.window, TANH, *alone, False)
        assert_varied(wanted != 0)
        same(y[i * rows : (i + 1) * rows], wanted)


# Special values


@pytest.mark.parametrize("dtype", DTYPES)
@NAMED
def test_dropped_inputs_do_not_leak(backend: AbstractBackend, geometry: Geometry, dtype: np.dtype) -> None:
    """NaN and inf in dropped elements of x, and in dy where the output is dropped, change no bit."""
    case = _case(geometry, dtype=dtype, kind=RELU, input_mask=Mask(0.4, KEY), output_mask=Mask(0.4, KEY.on(1)))
    keep_x, keep_y = Mask(0.4, KEY).to_array(geometry.images), Mask(0.4, KEY.on(1)).to_array(geometry.y_shape)
    assert_varied(keep_x)
    assert_varied(keep_y)
    y, z = case.forward(backend)
    gradients = case.backward(backend, y, z)
    assert_same_bits(y[~keep_y], np.zeros(int((~keep_y).sum()), dtype))
    assert_same_bits(gradients[0][~keep_x], np.zeros(int((~keep_x).sum()), dtype))
    for poison in (np.nan, np.inf, -np.inf):
        poisoned = dataclasses.replace(case, x=np.where(keep_x, case.x, poison), dy=np.where(keep_y, case.dy, poison))
        poisoned = poisoned.as_dtype(dtype)
        assert_same_bits(poisoned.forward(backend)[0], y)
        for mine, right in zip(poisoned.backward(backend, y, z), gradients, strict=True):
            assert_same_bits(mine, right)


@pytest.mark.parametrize("name", ["few channels", "strides", "many channels", "dilation"])
def test_nan_reaches_the_windows_that_see_it_and_no_others(backend: AbstractBackend, name: str) -> None:
    geometry = GEOMETRIES[name]
    case = _case(geometry)
    clean = case.forward(backend)[0]
    row, *place = 1, 2, 3
    case.x[(row, *place, 1)] = np.nan
    y = case.forward(backend)[0]
    axes = zip(geometry.images[1:3], geometry.size, geometry.strides, geometry.dilation, place, strict=True)
    down, across = (
        np.array([at in each for each in places_of(extent, n, step, apart, geometry.padding)])
        for extent, n, step, apart, at in axes
    )
    seen = np.zeros(y.shape, bool)
    seen[row] = (down[:, None] & across)[:, :, None]
    assert_varied(seen)
    assert np.isnan(y[seen]).all()
    assert_same_bits(y[~seen], clean[~seen])


def test_padding_adds_nothing_to_infinite_weights(backend: AbstractBackend) -> None:
    """Padding is zeros, so that inf times them is NaN, as everywhere else; without padding there is none."""
    x, weight = np.ones((1, 3, 3, 1), np.float32), np.ones((3, 3, 1, 1), np.float32)
    weight[0, 0] = np.inf
    same, valid = (_conv(x, weight, None, Geometry(x.shape, 1, padding=padding).window, backend) for padding in ("same", "valid"))
    assert valid[0, 0, 0, 0] == np.inf
    assert np.isnan(same[0, 0]).all()
    assert np.isinf(same[0, 1:, 1:]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_dropped_unit_has_no_gradient_whatever_it_was(backend: AbstractBackend, kind: ActivationKind) -> None:
    """NaN or inf before the activation does not reach the gradients through a unit that was dropped."""
    case = _case(GEOMETRIES["few channels"], kind=kind, output_mask=HALF)
    dropped = tuple(np.argwhere(~HALF.to_array(case.dy.shape))[-1])
    y, z = case.forward(backend)
    for poison in (np.nan, np.inf, -np.inf):
        if z is not None:
            z[dropped] = poison
        case.dy[dropped] = poison
        for gradient in case.backward(backend, y, z):
            assert np.isfinite(gradient).all()
            assert_not_vacuous(gradient, 0.0 if kind == ActivationKind.HEAVISIDE else 0.05)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rate_zero_changes_no_bit(backend: AbstractBackend, dtype: np.dtype) -> None:
    for noise_shape in (None, SPATIAL):
        plain = _case(GEOMETRIES["few channels"], dtype=dtype, kind=RELU)
        nothing = Mask(0.0, KEY, noise_shape=noise_shape)
        masked = dataclasses.replace(plain, input_mask=nothing, output_mask=nothing)
        y, z = plain.forward(backend)
        assert_same_bits(masked.forward(backend)[0], y)
        for mine, right in zip(masked.backward(backend, y, z), plain.backward(backend, y, z), strict=True):
            assert_same_bits(mine, right)
            assert_not_vacuous(right)


@pytest.mark.parametrize("noise_shape", [None, SPATIAL])
@pytest.mark.parametrize("kind", KINDS)
def test_rate_one_gives_zeros_and_never_nan(backend: AbstractBackend, kind: ActivationKind, noise_shape: Any) -> None:
    """Dropped input: only the bias is left. Dropped output: nothing, forward and backward, whatever the values were."""
    everything = Mask(1.0, KEY, noise_shape=noise_shape)
    case = _case(GEOMETRIES["few channels"], kind=kind, input_mask=everything)
    case.x.reshape(-1)[::2] = np.nan
    y, z = case.forward(backend)
    assert case.bias is not None
    assert_agree(y, np.broadcast_to(backend.activation_forward(case.bias, kind), y.shape).copy())
    dx, dweight, _ = case.backward(backend, y, z)
    assert_same_bits(dx, np.zeros_like(dx))
    assert not dweight.any()
    silent = dataclasses.replace(case, input_mask=None, output_mask=everything)
    silent.x[:], silent.weight[:], silent.dy[:] = np.inf, np.nan, np.inf
    y, z = silent.forward(backend)
    for zeros in (y, *silent.backward(backend, y, z)):
        assert_same_bits(zeros, np.zeros_like(zeros))
    kept = np.ones_like(case.weight)
    assert backend.conv2d_backward(*silent.arguments(y, z), False, kept, None, accumulate=True) is None
    assert_same_bits(kept, np.ones_like(kept))


@pytest.mark.parametrize("images", [(0, 5, 4, 3), (2, 0, 4, 3), (2, 4, 0, 3), (2, 0, 0, 3)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("filters", [1, 40])
def test_images_without_elements(backend: AbstractBackend, images: Any, strides: Pair, filters: int) -> None:
    """No rows, no height or no width: no result, and zero gradients."""
    case = _case(Geometry(images, filters, strides=strides, padding="same"), kind=RELU, input_mask=HALF, output_mask=HALF)
    y, z = case.forward(backend)
    assert y.shape == case.dy.shape
    assert y.size == 0
    dx, dweight, dbias = case.backward(backend, y, z)
    assert dx.shape == images
    assert_same_bits(dweight, np.zeros_like(dweight))
    assert_same_bits(dbias, np.zeros_like(dbias))


# Threads and vector widths

DIGEST = """
    import hashlib
    import numpy as np
    from test_conv2d import GEOMETRIES, GELU, KEY, SPATIAL, Geometry, Mask, _case
    from fastdrop.backends import select

    def digest(geometries, dtype):
        cpu, found = select.backend("cpu"), hashlib.sha256()
        for geometry in geometries:
            for noise_shape in (None, SPATIAL):
                first, last = (Mask(rate, KEY.on(i), noise_shape=noise_shape, row_offset=5) for i, rate in enumerate((0.2, 0.5)))
                case = _case(geometry, dtype=dtype, kind=GELU, input_mask=first, output_mask=last)
                y, z = case.forward(cpu)
                for array in (y, *case.backward(cpu, y, z)):
                    assert np.isfinite(array).all() and array.any()
                    found.update(array)
        return found.hexdigest()
"""


@compiled
def test_the_bits_are_the_same_for_1_2_3_and_5_threads() -> None:
    """Convolutions whose gradient by the image goes both ways, larger than images at a time, and one that is strided."""
    code = (
        DIGEST
        + """
    import fastdrop as fd
    geometries = [
        Geometry((90, 32, 32, 3), 33, padding="same"), Geometry((40, 16, 16, 33), 70, padding="same"),
        Geometry((30, 17, 16, 20), 33, strides=(2, 3)), Geometry((20, 9, 9, 300), 40, (1, 1)),
        Geometry((1, 90, 85, 4), 8, (5, 5), padding="same"),
    ]
    found = set()
    for count in (1, 2, 3, 5):
        fd.set_num_threads(count)
        found.add(digest(geometries, "float32") + digest(geometries[:2], "float64"))
    print(len(found))
    """
    )
    assert run(code, NUMBA_NUM_THREADS="5") == "1"


@compiled
def test_threads_divide_the_lines_of_few_images() -> None:
    """Where most of dy is zero, exactly: of small integers every sum is."""
    code = """
    import numpy as np
    import fastdrop as fd
    from strategies import small_integers
    from test_conv2d import LINEAR, Geometry
    from fastdrop.backends.select import backend

    for geometry in (
        Geometry((1, 30, 31, 40), 64, padding="same"), Geometry((2, 17, 16, 33), 70, strides=(2, 3), padding="same"),
        Geometry((1, 23, 20, 64), 48, strides=(2, 2), dilation=(3, 2)), Geometry((3, 19, 11, 64), 40, (1, 1), strides=(3, 1)),
        Geometry((1, 61, 30, 32), 130, strides=(2, 1), dilation=(3, 1)),
    ):
        dy, weight = small_integers(3, geometry.y_shape, "float32"), small_integers(2, geometry.weight_shape, "float32")
        dy[np.random.default_rng(4).random(dy.shape) >= 0.2] = 0
        x = np.zeros(geometry.images, "float32")
        given = dy, x, weight, dy, None, geometry.window, LINEAR, None, None, True, None, None, False
        wanted = backend("reference").conv2d_backward(*given)
        for count in (1, 2, 3, 5):
            fd.set_num_threads(count)
            assert np.array_equal(backend("cpu").conv2d_backward(*given, sparse=True), wanted), (geometry, count)
    print("done")
    """
    assert run(code, NUMBA_NUM_THREADS="5") == "done"


@compiled
@pytest.mark.slow
def test_the_bits_are_the_same_at_every_vector_width() -> None:
    """With one thread: the kernels that are compiled are the serial ones."""
    from test_products import WIDTHS

    from fastdrop.backends.cpu._vector import FEATURES
    from fastdrop.backends.formulas._formula import HAS_FMA

    widths = [bits for bits, feature in WIDTHS.items() if not feature or FEATURES.get(feature)]
    code = (
        DIGEST
        + """
    from fastdrop.backends.cpu._vector import SIMD_BITS
    print(SIMD_BITS, digest(GEOMETRIES.values(), "float32"))
    """
    )
    settings = [{}, *({"FASTDROP_SIMD": str(bits)} for bits in widths[1:])]
    processes = [start(code, NUMBA_NUM_THREADS="1", **setting) for setting in settings]
    found = [finish(process)[0].split() for process in processes]
    assert [int(bits) for bits, _ in found] == widths
    if HAS_FMA:
        assert len({digest for _, digest in found}) == 1
