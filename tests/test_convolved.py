"""`fd.conv2d`: masks, softmax, groups, bad input; and what is left out where shared masks drop channels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from assertions import assert_agree, assert_near, assert_not_vacuous, assert_same_bits, assert_varied
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import DTYPES, LAYOUTS, random_array, small_integers

import fastdrop as fd
from fastdrop import convolved, fused
from fastdrop._types import ActivationKind, Array, Shape, UpdateKind
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.operands import Update
from fastdrop.errors import ArgumentTypeError, ArgumentValueError
from fastdrop.mask import BoundMask, Mask
from fastdrop.window import Window, window_of

ULPS = 128
"""Compact products add up in another order, over some hundred terms."""
KEY = fd.Key(5, 0, 2)
SPATIAL = (None, 1, 1, None)


def _arrays(images: Shape, filters: int, size: Shape = (3, 3), groups: int = 1, dtype: Any = np.float32) -> list[Array]:
    """(x, weight, bias)."""
    weight = (*size, images[3] // groups, filters)
    return [random_array(seed, shape, dtype) for seed, shape in enumerate((images, weight, (filters,)))]


def _all(*arguments: Any, **options: Any) -> list[Array]:
    """y, dx, dweight and dbias of `fd.conv2d`."""
    y, backward = fd.conv2d(*arguments, **options)
    return [y, *(gradient for gradient in backward(random_array(9, y.shape, y.dtype)) if gradient is not None)]


# Masks and activations, one after the other


@pytest.mark.usefixtures("on_backend")
@pytest.mark.parametrize("noise_shape", [None, SPATIAL, (1, None, 1, None)])
@pytest.mark.parametrize("activation", [None, "relu", "gelu", "softmax"])
def test_the_fused_operation_is_its_parts(activation: str | None, noise_shape: Any) -> None:
    """Forward the same bits, and gradients too, but for the order in which an activation's factors are multiplied."""
    x, weight, bias = _arrays((4, 6, 5, 3), 10)
    first, last = (Mask(0.3, KEY.on(i), noise_shape=noise_shape, row_offset=3) for i in range(2))
    options = {"strides": (1, 2), "padding": "same", "activation": activation}
    got = _all(x, weight, bias, **options, input_mask=first, output_mask=last)
    dropped, drop_back = fd.dropout(x, first)
    hidden, conv_back = fd.conv2d(dropped, weight, bias, **options)
    y, last_back = fd.dropout(hidden, last)
    assert_same_bits(got[0], y)
    assert_varied(y != 0)
    dx, dweight, dbias = conv_back(last_back(random_array(9, y.shape)))
    for mine, right in zip(got[1:], (drop_back(dx), dweight, dbias), strict=True):
        assert_agree(mine, right)
        assert_not_vacuous(right)


@pytest.mark.usefixtures("on_backend")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout(layout: str) -> None:
    x, weight, bias = (small_integers(seed, shape) for seed, shape in enumerate(((2, 5, 6, 4), (3, 2, 4, 5), (5,))))
    wanted, wanted_back = fd.conv2d(x, weight, bias, activation="relu")
    y, backward = fd.conv2d(*(LAYOUTS[layout](array) for array in (x, weight, bias)), activation="relu")
    assert_same_bits(y, wanted)
    dy = small_integers(4, y.shape)
    for mine, right in zip(backward(LAYOUTS[layout](dy)), wanted_back(dy), strict=True):
        assert_same_bits(mine, right)
        assert_not_vacuous(right)


@pytest.mark.usefixtures("on_backend")
def test_what_comes_back() -> None:
    """Lists and integers for pairs; no bias, no gradient of it; no gradient of x that is not asked for; two backward passes."""
    x, weight, bias = _arrays((2, 7, 7, 3), 4, dtype=np.float64)
    y, backward = fd.conv2d(x, weight, strides=2, dilation=[1, 2])
    assert_same_bits(y, fd.conv2d(x, weight, strides=(2, 2), dilation=(1, 2))[0])
    assert y.shape == (2, 3, 2, 4)
    dx, dweight, dbias = backward(y)
    assert dbias is None
    nothing, again, _ = backward(y, input_gradient=False)
    assert nothing is None
    assert_same_bits(again, dweight)
    assert (dx.shape, dx.dtype, dweight.shape) == (x.shape, x.dtype, weight.shape)
    nested = fd.conv2d(x.tolist(), weight.tolist(), bias.tolist())[0]
    assert_same_bits(nested, fd.conv2d(x, weight, bias)[0])
    assert fd.conv2d(x[:0], weight, bias, activation="softmax", output_mask=Mask(0.5, KEY))[0].shape == (0, 5, 5, 4)
    assert fd.conv2d(x, weight, activation=fd.activations.relu)[0].min() == 0


# Groups


@pytest.mark.usefixtures("on_backend")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("channels", "filters", "groups"), [(6, 4, 2), (9, 15, 3), (5, 5, 5), (4, 12, 4)])
@pytest.mark.parametrize("activation", [None, "tanh"])
def test_groups_are_convolutions_of_their_own(
    activation: str | None, channels: int, filters: int, groups: int, dtype: np.dtype
) -> None:
    """Between dropout of the whole arrays."""
    x, weight, bias = _arrays((3, 6, 5, channels), filters, groups=groups, dtype=dtype)
    first, last = (Mask(0.4, KEY.on(i), row_offset=1) for i in range(2))
    options = {"padding": "same", "strides": (2, 1), "activation": activation}
    got = _all(x, weight, bias, **options, groups=groups, input_mask=first, output_mask=last)
    dropped, first_back = fd.dropout(x, first)
    operands = zip(*(np.split(array, groups, axis=-1) for array in (dropped, weight, bias)), strict=True)
    done = [fd.conv2d(*each, **options) for each in operands]
    y, last_back = fd.dropout(np.concatenate([each for each, _ in done], axis=3), last)
    assert_agree(got[0], y)
    dys = np.split(last_back(random_array(9, y.shape, dtype)), groups, axis=3)
    parts = [backward(dy) for (_, backward), dy in zip(done, dys, strict=True)]
    dx, dweight, dbias = (np.concatenate(each, axis=-1) for each in zip(*parts, strict=True))
    for mine, right in zip(got[1:], (first_back(dx), dweight, dbias), strict=True):
        assert_agree(mine, right)
        assert_not_vacuous(right)


@pytest.mark.usefixtures("on_backend")
@pytest.mark.parametrize("images", [(0, 4, 5, 6), (2, 0, 5, 6)])
@pytest.mark.parametrize("groups", [1, 2])
def test_images_without_elements(groups: int, images: Shape) -> None:
    x, weight, bias = _arrays(images, 4, groups=groups)
    masks = {"input_mask": Mask(0.5, KEY, noise_shape=SPATIAL), "output_mask": Mask(0.5, KEY, noise_shape=(1, 1, 1, None))}
    y, dx, dweight, dbias = _all(x, weight, bias, padding="same", groups=groups, activation="relu", **masks)
    assert (y.shape, dx.shape) == ((*images[:3], 4), images)
    assert_same_bits(dweight, np.zeros_like(weight))
    assert_same_bits(dbias, np.zeros_like(bias))


@pytest.mark.usefixtures("on_backend")
def test_softmax_of_groups_is_over_all_filters() -> None:
    x, weight, bias = _arrays((2, 4, 4, 4), 6, groups=2)
    y, z = (fd.conv2d(x, weight, bias, groups=2, activation=activation)[0] for activation in ("softmax", None))
    assert_agree(y, fd.activations.softmax(z))
    assert_near(y.sum(axis=3), np.ones((2, 2, 2)), 1e-6)


def test_groups_of_rate_one(on_backend: AbstractBackend) -> None:
    x, weight, bias = _arrays((2, 4, 4, 6), 4, groups=2)
    x[:] = np.inf
    with pytest.warns(UserWarning, match="drops everything"):
        found = _all(x, weight, bias, groups=2, activation="relu", output_mask=Mask(1.0, KEY))
    for array in found:
        assert_same_bits(array, np.zeros_like(array))


# Channels that are left out


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out wherever it is possible."""
    monkeypatch.setattr(convolved, "COPYING_ROWS", 0)
    monkeypatch.setattr(fused, "LEAST_ROWS", 1)


def never(compute: Callable[[], Any]) -> Any:
    """Return what is computed with nothing left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolved, "skips", lambda *masks, **options: False)
        return compute()


def _spatial(rate: float, shape: Shape, stream: int = 0, passes: int = 1, **options: Any) -> BoundMask:
    return Mask(rate, KEY.on(stream), noise_shape=SPATIAL, **options).bind(shape, as_matrix=True, passes=passes)


class How(NamedTuple):
    strides: tuple[int, int] = (1, 1)
    padding: str = "same"
    kind: ActivationKind = ActivationKind.RELU

    def window(self, image: Shape, size: Shape = (3, 3)) -> Window:
        return window_of((image[1], image[2]), (size[0], size[1]), self.strides, (1, 1), self.padding, "`weight`")


def _both(
    backend: AbstractBackend, x: Array, weight: Array, bias: Array | None, dy: Array, how: How, *masks: BoundMask | None
) -> list[Array]:
    """y, dx, dweight and, with a bias, dbias by `convolved.conv2d`."""
    window = how.window(x.shape, weight.shape)
    y, backward = convolved.conv2d(backend, x, weight, bias, window, 1, how.kind, *masks, True)
    dweight, dbias = np.full_like(weight, np.nan), None if bias is None else np.full_like(bias, np.nan)
    dx = backward(dy, True, dweight, dbias, False)
    assert dx is not None
    return [y, dx, dweight] if dbias is None else [y, dx, dweight, dbias]


sharing = st.sampled_from(["batch", 1, 2, 3, 20])


@given(
    st.integers(1, 7), st.sampled_from([1, 3, 20]), st.sampled_from([1, 4, 33]), st.sampled_from([(1, 1), (2, 3)]),
    st.sampled_from(["valid", "same"]), st.sampled_from(sorted(ActivationKind)), st.sampled_from([None, 0.2, 0.6]),
    st.sampled_from([None, 0.3, 0.7]), sharing, sharing, st.booleans(), st.integers(0, 20),
    st.booleans(), st.sampled_from(DTYPES),
)  # fmt: skip
@settings(max_examples=120)
def test_what_is_left_out_changes_nothing(
    backend: AbstractBackend, rows: int, channels: int, filters: int, strides: Any, padding: str, kind: ActivationKind,
    first: float | None, last: float | None, first_rows: Any, last_rows: Any, plain: bool, row_offset: int, bias: bool,
    dtype: np.dtype,
) -> None:  # fmt: skip
    """Segments of rows in which everything, something or nothing is kept, beside plain masks and none."""
    images = rows, 5, 6, channels
    x, weight, b = _arrays(images, filters, dtype=dtype)
    how = How(strides, padding, kind)
    dy = random_array(3, (rows, *how.window(images).places, filters), dtype)
    masks: list[BoundMask | None] = [None, None]
    if first is not None and plain:
        masks[0] = Mask(first, KEY, row_offset=row_offset).bind(convolved.input_shape(images, None), as_matrix=True)
    elif first is not None:
        masks[0] = _spatial(first, images, shared_rows=first_rows, row_offset=row_offset)
    if last is not None:
        masks[1] = _spatial(last, dy.shape, 1, shared_rows=last_rows, row_offset=row_offset)
    arguments = x, weight, b if bias else None, dy, how, *masks
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "COPYING_ROWS", 0)
        patch.setattr(fused, "LEAST_ROWS", 1)
        got = _both(backend, *arguments)
    for one, other in zip(got, never(lambda: _both(backend, *arguments)), strict=True):
        assert_agree(one, other, ULPS)
    for mask, array in zip(reversed(masks), got[:2], strict=True):
        if mask is not None:
            keep = mask.keep_rectangle((0, mask.rows), (0, mask.columns)).reshape(array.shape)
            assert_same_bits(array[~keep], np.zeros(int((~keep).sum()), dtype))


def _noted(monkeypatch: pytest.MonkeyPatch, backend: AbstractBackend) -> list[tuple[Shape, Shape]]:
    """Shapes of images and weights that are convolved from now on."""
    shapes: list[tuple[Shape, Shape]] = []
    forward = type(backend).conv2d_forward

    def noted(self: Any, x: Array, weight: Array, *arguments: Any) -> Any:
        shapes.append((x.shape, weight.shape))
        return forward(self, x, weight, *arguments)

    monkeypatch.setattr(type(backend), "conv2d_forward", noted)
    return shapes


def test_only_kept_channels_are_convolved(backend: AbstractBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here 8 of 16 channels, and 5 of 20 filters, for groups of 4 and 6 images."""
    shapes = _noted(monkeypatch, backend)
    x, weight, bias = _arrays((12, 8, 8, 16), 20)
    first = _spatial(0.5, x.shape, shared_rows=4, fixed_count=True)
    last = _spatial(0.75, (12, 8, 8, 20), 1, shared_rows=6, fixed_count=True)
    _both(backend, x, weight, bias, random_array(3, (12, 8, 8, 20)), How(), first, last)
    assert shapes == [((rows, 8, 8, 8), (3, 3, 8, 5)) for rows in (4, 2, 2, 4)]
    shapes.clear()
    never(lambda: _both(backend, x, weight, bias, random_array(3, (12, 8, 8, 20)), How(), first, last))
    assert shapes == [((12, 8, 8, 16), (3, 3, 16, 20))]


@pytest.mark.parametrize(
    ("options", "skipped"),
    [
        ({"noise_shape": SPATIAL, "shared_rows": "batch"}, True),
        ({"noise_shape": (1, 1, 1, None)}, True),
        ({"noise_shape": SPATIAL, "shared_rows": 3}, True),
        ({"noise_shape": SPATIAL}, False),
        ({"shared_rows": "batch"}, False),
        ({"noise_shape": (None, 1, None, None)}, False),
        ({"noise_shape": (None, 1, 1, 1), "shared_rows": "batch"}, False),
    ],
)
def test_where_channels_are_left_out(options: dict[str, Any], skipped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where whole channels are dropped of enough places; a mask that tells places apart drops none."""
    from fastdrop.backends.select import default_backend

    shapes = _noted(monkeypatch, default_backend())
    x, weight, bias = _arrays((8, 8, 8, 10), 12)
    for which in ("input_mask", "output_mask"):
        shapes.clear()
        got = _all(x, weight, bias, padding="same", **{which: Mask(0.5, KEY, **options)})
        assert (shapes != [(x.shape, weight.shape)]) is skipped
        wanted = never(lambda which=which: _all(x, weight, bias, padding="same", **{which: Mask(0.5, KEY, **options)}))
        for mine, right in zip(got, wanted, strict=True):
            assert_agree(mine, right, ULPS)


@pytest.mark.usefixtures("always")
def test_nothing_is_computed_of_dropped_channels(backend: AbstractBackend) -> None:
    """NaN in them, in their weights, and in the gradient of dropped filters, does not show."""
    x, weight, bias = _arrays((4, 5, 5, 10), 14)
    dy = random_array(3, (4, 5, 5, 14))
    first, last = (_spatial(0.5, shape, i, shared_rows=2) for i, shape in enumerate((x.shape, dy.shape)))
    how = How(kind=ActivationKind.TANH)
    wanted = _both(backend, x, weight, bias, dy, how, first, last)
    keep_x, keep_y = (
        mask.keep_rectangle((0, mask.rows), (0, mask.columns)).reshape(array.shape) for mask, array in ((first, x), (last, dy))
    )
    used = (keep_x[:, 0, 0, :, None] & keep_y[:, 0, 0, None, :]).any(axis=0)
    assert_varied(used)
    nan = np.float32(np.nan)
    poisoned = np.where(keep_x, x, nan), np.where(used, weight, nan), bias, np.where(keep_y, dy, nan)
    for mine, right in zip(_both(backend, *poisoned, how, first, last), wanted, strict=True):
        assert_same_bits(mine, right)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("which", ["channel", "filter"])
def test_everything_may_be_dropped(backend: AbstractBackend, which: str) -> None:
    """One channel, one filter: what is left of a segment is the bias, or nothing at all."""
    emptied = 0
    x, weight, bias = _arrays((4, 4, 4, 1), 1)
    dy, how = random_array(3, (4, 2, 2, 1)), How((1, 1), "valid", ActivationKind.SIGMOID)
    for step in range(12):
        shape = x.shape if which == "channel" else dy.shape
        mask = Mask(0.6, KEY.at(step), noise_shape=SPATIAL, shared_rows=2).bind(shape, as_matrix=True)
        kept = np.array([len(each) for each in backend.units(mask).kept])
        emptied += int(not kept.any())
        masks = (mask, None) if which == "channel" else (None, mask)
        arguments = x, weight, bias, dy, how, *masks
        got, wanted = _both(backend, *arguments), never(lambda arguments=arguments: _both(backend, *arguments))
        for mine, right in zip(got, wanted, strict=True):
            assert_agree(mine, right, ULPS)
        if not kept.any():
            assert_same_bits(got[1], np.zeros_like(x))
            assert_same_bits(np.abs(got[2]), np.zeros_like(weight))
            if which == "filter":
                assert_same_bits(got[0], np.zeros_like(dy))
                assert_same_bits(got[3], np.zeros_like(bias))
    assert 2 < emptied < 12


@pytest.mark.usefixtures("always")
def test_passes_of_monte_carlo_inference(backend: AbstractBackend) -> None:
    passes, (x, weight, bias) = 3, _arrays((2, 5, 5, 6), 8)
    images = np.tile(x, (passes, 1, 1, 1))
    window = How(padding="valid").window(x.shape)
    first, last = _spatial(0.5, x.shape, 0, passes), _spatial(0.5, (2, 3, 3, 8), 1, passes)

    def result() -> Array:
        return convolved.conv2d(backend, images, weight, bias, window, 1, ActivationKind.RELU, first, last, False)[0]

    assert_agree(result(), never(result), ULPS)
    assert_not_vacuous(result())
    assert len({part.tobytes() for part in np.split(result(), passes)}) == passes


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("shared_rows", ["batch", 2])
@pytest.mark.parametrize("kind", UpdateKind)
def test_an_update_is_that_by_the_gradient(backend: AbstractBackend, kind: UpdateKind, shared_rows: Any, groups: int) -> None:
    """Same bits as a gradient that is added into +0.0 and then applied, for pieces of the weight too."""
    x, weight, bias = _arrays((4, 5, 5, 6), 8, groups=groups)
    dy = random_array(3, (4, 5, 5, 8))
    first, last = (_spatial(0.3, shape, i, shared_rows=shared_rows) for i, shape in enumerate((x.shape, dy.shape)))

    def update(value: Array) -> Update:
        slots = (np.ones_like(value), np.ones_like(value))
        return Update(
            kind, value, *slots, np.array((0.1, 0.01, 0.5, 0.25, 1e-7)[: 5 if kind == UpdateKind.ADAM else 3], value.dtype)
        )

    window, kind_of_y = How().window(x.shape), ActivationKind.RELU
    _, backward = convolved.conv2d(backend, x, weight, bias, window, groups, kind_of_y, first, last, True)
    gradients = np.zeros_like(weight), np.zeros_like(bias)
    wanted_dx = backward(dy, True, *gradients, True)
    got, wanted = ([update(value.copy()) for value in (weight, bias)] for _ in range(2))
    for each, gradient in zip(wanted, gradients, strict=True):
        backend.update(each, gradient)
        assert_not_vacuous(gradient)
    dx = backward(dy, True, *got, True)
    assert wanted_dx is not None
    assert dx is not None
    assert_same_bits(dx, wanted_dx)
    for mine, right in zip(got, wanted, strict=True):
        for array, other in zip(mine[1:], right[1:], strict=True):
            assert_same_bits(array, other)
    added = np.ones_like(weight), np.ones_like(bias)
    assert backward(dy, False, *added, True) is None
    for mine, gradient in zip(added, gradients, strict=True):
        assert_near(mine, gradient + 1, 1e-4)


# Bad input

X, W, B = (np.ones(shape, np.float32) for shape in ((2, 5, 5, 4), (3, 3, 4, 6), (6,)))
T, V = ArgumentTypeError, ArgumentValueError

BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: fd.conv2d(X[0], W), V, "`x` must be an array of 4 axes, got shape (5, 5, 4)"),
    (lambda: fd.conv2d(X.astype(int), W), T, "`x` must be"),
    (lambda: fd.conv2d(X.astype(np.float16), W), T, "`x` must be"),
    (lambda: fd.conv2d(None, W), T, "`x` must be an array, got NoneType"),
    (lambda: fd.conv2d(X, W[0]), V, "`weight` must be an array of 4 axes, got shape (3, 4, 6)"),
    (lambda: fd.conv2d(X, W.astype(float)), T, "`weight` must be of the dtype of `x` (float32), got float64"),
    (
        lambda: fd.conv2d(X, W[:, :, :3]),
        V,
        "`x` must be of 3 channels to fit `weight` (3, 3, 3, 6) with 1 groups, got (2, 5, 5, 4)",
    ),
    (lambda: fd.conv2d(X, W, groups=2), V, "`x` must be of 8 channels to fit `weight` (3, 3, 4, 6) with 2 groups"),
    (lambda: fd.conv2d(X[..., :0], W[:, :, :0]), V, "`x` must be of 0 channels to fit `weight`"),
    (
        lambda: fd.conv2d(X, W[:, :, :1], groups=4),
        V,
        "`weight` must be not empty, with filters that are a multiple of the 4 groups, got (3, 3, 1, 6)",
    ),
    (lambda: fd.conv2d(X, W[..., :0]), V, "`weight` must be not empty"),
    (lambda: fd.conv2d(X, W[:0]), V, "`weight` must be not empty"),
    (lambda: fd.conv2d(X, W, B[:5]), V, "`bias` must be of shape (6,), got (5,)"),
    (lambda: fd.conv2d(X, W, B[None]), V, "`bias` must be"),
    (lambda: fd.conv2d(X, W, B.astype(float)), T, "`bias` must be of the dtype of `x` (float32), got float64"),
    (lambda: fd.conv2d(X, W, strides=0), V, "`strides` must be at least 1, got 0"),
    (lambda: fd.conv2d(X, W, strides=1.0), T, "`strides` must be an integer, got float"),
    (lambda: fd.conv2d(X, W, strides=(1, 2, 3)), V, "`strides` must be an integer or two of them, got 3 entries"),
    (lambda: fd.conv2d(X, W, strides=(1, -1)), V, "`strides` must be at least 1, got -1"),
    (lambda: fd.conv2d(X, W, dilation=0), V, "`dilation` must be at least 1, got 0"),
    (lambda: fd.conv2d(X, W, dilation="2"), T, "`dilation` must be an integer, got str"),
    (lambda: fd.conv2d(X, W, dilation=(2, True)), T, "`dilation` must be an integer, got a bool"),
    (lambda: fd.conv2d(X, W, padding="full"), V, "`padding` must be one of same, valid, got 'full'"),
    (lambda: fd.conv2d(X, W, padding=1), T, "`padding` must be one of same, valid, got int"),
    (lambda: fd.conv2d(X, W, groups=0), V, "`groups` must be at least 1, got 0"),
    (lambda: fd.conv2d(X, W, groups=True), T, "`groups` must be an integer, got a bool"),
    (lambda: fd.conv2d(X, W, activation="swoosh"), V, "`activation` must be one of"),
    (lambda: fd.conv2d(X, W, input_mask=0.5), T, "`input_mask` must be a fastdrop.Mask or None, got float"),
    (lambda: fd.conv2d(X, W, output_mask=B), T, "`output_mask` must be a fastdrop.Mask or None, got ndarray"),
    (lambda: fd.conv2d(X, W, input_mask=Mask(0.5, KEY, noise_shape=(None, 1))), V, "`noise_shape` must be of the rank of x (4)"),
    (
        lambda: fd.conv2d(X, W, output_mask=Mask(0.5, KEY, noise_shape=(None, 5, 5, None))),
        V,
        "`noise_shape` must be 1, None or the extent of x (2, 3, 3, 6) on each axis",
    ),
    (
        lambda: fd.conv2d(X, W, dilation=(1, 3)),
        V,
        "`x` must be of height and width that fit the window of `weight`, 7 at least, got (5, 5)",
    ),
    (lambda: fd.conv2d(X, np.ones((6, 1, 4, 6), "f4")), V, "that fit the window of `weight`, 6 at least, got (5, 5)"),
    (lambda: fd.conv2d(X, W)[1](X), V, "`dy` must be of shape (2, 3, 3, 6), got (2, 5, 5, 4)"),
    (lambda: fd.conv2d(X, W)[1](np.ones((2, 3, 3, 6))), T, "`dy` must be of the dtype of `y` (float32), got float64"),
]


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=[text for _, _, text in BAD])
def test_bad_input(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert text in str(caught.value)
    for array in (X, W, B):
        assert (array == 1).all()
