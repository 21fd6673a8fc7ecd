"""Random flips and crops: their definition by the words of the stream, gradients, and what they must not depend on."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
from assertions import assert_same_bits
from strategies import DTYPES, random_array

import fastdrop as fd
from fastdrop._types import Array
from fastdrop.errors import ArgumentTypeError, ArgumentValueError

SEED, STREAM, STEP, OFFSET = 7, 3, 5, 11
SHAPE = (40, 5, 6, 2)


def words(rows: int) -> Array:
    return np.array([[oracle.word(SEED, STREAM, STEP, 7, 2 * (OFFSET + r) + i) for i in range(2)] for r in range(rows)])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", ["horizontal", "vertical", "horizontal_and_vertical"])
def test_flips(mode: str, dtype: np.dtype) -> None:
    x, chosen = random_array(1, SHAPE, dtype), words(SHAPE[0]) < 2**31
    wanted = x.copy()
    for row in range(len(x)):
        if "horizontal" in mode and chosen[row, 0]:
            wanted[row] = wanted[row, :, ::-1]
        if "vertical" in mode and chosen[row, 1]:
            wanted[row] = wanted[row, ::-1]
    assert 5 < chosen[:, 0].sum() < 35
    y, backward = fd.RandomFlip(mode, seed=SEED, stream=STREAM).forward(x, True, STEP, OFFSET)
    assert_same_bits(y, wanted)
    assert_same_bits(backward(y, True), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding", [0, 1, 4, 9])
def test_crops(padding: int, dtype: np.dtype) -> None:
    x = random_array(1, SHAPE, dtype)
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    starts = words(SHAPE[0]).astype(object) * (2 * padding + 1) >> 32
    wanted = np.stack([image[i : i + 5, j : j + 6] for image, (i, j) in zip(padded, starts, strict=True)])
    y, backward = fd.RandomCrop(padding, seed=SEED, stream=STREAM).forward(x, True, STEP, OFFSET)
    assert_same_bits(y, wanted)
    dy = random_array(2, y.shape, dtype)
    dx = np.zeros_like(padded)
    for image, gradient, (i, j) in zip(dx, dy, starts, strict=True):
        image[i : i + 5, j : j + 6] = gradient
    assert_same_bits(backward(dy, True), dx[:, padding : padding + 5, padding : padding + 6])
    assert len(set(map(tuple, starts))) > 1 or padding == 0


@pytest.mark.parametrize("layer", [fd.RandomFlip("horizontal_and_vertical", seed=1), fd.RandomCrop(2, seed=1)])
def test_pieces_of_a_batch_are_the_batch(layer: fd.RandomFlip) -> None:
    x = random_array(1, SHAPE, np.float32)
    whole = layer.forward(x, True, 2)[0]
    pieces = [layer.forward(x[low:high], True, 2, low)[0] for low, high in ((0, 7), (7, 8), (8, 40))]
    assert_same_bits(np.concatenate(pieces), whole)
    assert (whole != x).any()
    assert (layer.forward(x, True, 3)[0] != whole).any()
    assert_same_bits(layer(x), x)
    assert len(layer.forward(x[:0], True, 0)[0]) == 0


def test_in_a_network() -> None:
    layers = [fd.RandomFlip(), fd.RandomCrop(1), fd.Dropout(0.2), fd.Flatten(), fd.Dense(2)]
    net = fd.Sequential(layers, input_shape=(6, 6, 1), seed=3)
    x = random_array(1, (10, 6, 6, 1), np.float32)
    assert [net.stream_of(layer) for layer in layers[:3]] == [0, 1, 2]
    net.output_kind = "logits"
    assert_same_bits(net.predict_mc(x, 3, return_samples=True).samples, net.predict_mc(x, 3, return_samples=True).samples)
    flipped = fd.RandomFlip(seed=3, stream=0).forward(x, True, 4)[0]
    cropped = fd.RandomCrop(1, seed=3, stream=1).forward(flipped, True, 4)[0]
    plain = fd.Sequential([fd.Dropout(0.2, stream=2), fd.Flatten(), fd.Dense(2)], input_shape=(6, 6, 1), seed=3)
    assert_same_bits(net.forward(x, True, 4)[0], plain.forward(cropped, True, 4)[0])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: fd.RandomFlip("diagonal"), ArgumentValueError, "`mode` must be one of horizontal, horizontal_and_vertical"),
        (lambda: fd.RandomCrop(-1), ArgumentValueError, "`padding` must be"),
        (lambda: fd.RandomCrop(10**19), ArgumentValueError, r"`padding` must be in \[0, 1048576\]"),
        (
            lambda: fd.RandomFlip(seed=1).forward(np.zeros((2, 3, 3, 1), np.float32), True, 0, 2**57 - 1),
            ArgumentValueError,
            r"`row_offset` must be such that all elements are below 2\*\*58 \(rows of 2\)",
        ),
        (lambda: fd.RandomCrop(1.5), ArgumentTypeError, "`padding` must be"),
        (lambda: fd.RandomFlip()(np.zeros((2, 3), np.float32)), ArgumentValueError, "height, width, channels"),
    ],
)
def test_bad_input(call: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
