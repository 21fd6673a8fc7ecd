"""Where each rule of test time is exact, by enumerating all 2**12 masks of networks with 12 units that are dropped.

In inference one network stands for all thinned ones. That is their arithmetic mean where the outputs are linear in the mask, and
their normalised geometric mean where softmax follows: Srivastava et al. 2014, section 4; Goodfellow, Bengio and Courville 2016,
"Deep learning", section 7.12, equations 7.56 to 7.66.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from assertions import assert_near
from strategies import random_array

import fastdrop as fd
from fastdrop._types import Array
from fastdrop.layers import AbstractLayer

UNITS, ROWS, CLASSES = 12, 5, 4
RATES = [0.1, 0.3, 0.5, 0.8, 0.9]
MODES = ["upscale_in_train", "downscale_in_infer"]
EXACT = 1e-12
MASKS = np.array(list(itertools.product([False, True], repeat=UNITS)))

NETWORKS: dict[str, list[int]] = {"one layer": [12], "two layers": [5, 7], "three layers": [3, 4, 5]}
"""Units that are dropped, layer by layer; a Dense follows each."""


def network(widths: list[int], rate: float, mode: str, activation: str) -> fd.Sequential:
    layers: list[AbstractLayer] = []
    for units in [*widths[1:], CLASSES]:
        dense = fd.Dense(units, activation if units != CLASSES else None, weight_initializer="he_normal")
        layers += [fd.Dropout(rate, mode=mode), dense]
    net = fd.Sequential(layers, input_shape=(widths[0],), seed=3, dtype="float64")
    for parameter in net.parameters():
        parameter.value = parameter.value + 0.1
    return net


def thinned(net: fd.Sequential, x: Array, keep: Array) -> Array:
    """Outputs of one thinned network, in plain NumPy, by the definition of the layers."""
    at = 0
    for layer in net.layers:
        if isinstance(layer, fd.Dropout):
            units = x.shape[1]
            scale = 1 / layer.keep_prob((1, units)) if layer.mode == "upscale_in_train" else 1.0
            x, at = np.where(keep[at : at + units], x * scale, 0.0), at + units
        else:
            assert isinstance(layer, fd.Dense)
            assert layer.weight is not None
            assert layer.bias is not None
            z = x @ layer.weight.value + layer.bias.value
            x = np.maximum(z, 0.0) if layer.activation == "relu" else z
    assert at == UNITS
    return x


def log_softmax(z: Array) -> Array:
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def probabilities(net: fd.Sequential) -> Array:
    """Probability of each of MASKS."""
    keep_prob = net.layers[0].keep_prob((1, UNITS))  # type: ignore[attr-defined]
    kept = MASKS.sum(axis=1)
    return keep_prob**kept * (1 - keep_prob) ** (UNITS - kept)


def over_all_masks(net: fd.Sequential, x: Array) -> tuple[Array, Array, Array]:
    """Means over the thinned networks: of the outputs, of their softmax, and the normalised geometric one of the latter."""
    share = probabilities(net)
    assert share.sum() == pytest.approx(1, rel=1e-13)
    outputs = np.array([thinned(net, x, keep) for keep in MASKS])
    logs = log_softmax(outputs)
    geometric = np.exp(log_softmax(np.tensordot(share, logs, 1)))
    return np.tensordot(share, outputs, 1), np.tensordot(share, np.exp(logs), 1), geometric


def inputs(net: fd.Sequential) -> Array:
    assert net.input_shape is not None
    return random_array(1, (ROWS, *net.input_shape), "float64")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("widths", NETWORKS.values(), ids=NETWORKS)
def test_the_thinned_networks_are_those_of_training(widths: list[int], mode: str) -> None:
    """The enumerated outputs hold, for the mask of every step, those of the library's forward pass."""
    net = network(widths, 0.4, mode, "relu")
    x, seen = inputs(net)[:1], set()
    for step in range(20):
        masks = [fd.Mask(0.4, fd.Key(3, stream, step)).to_array((1, units))[0] for stream, units in enumerate(widths)]
        keep = np.concatenate(masks)
        seen.add(keep.tobytes())
        assert_near(net.forward(x, True, step)[0], thinned(net, x, keep), EXACT)
    assert len(seen) > 15


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("widths", NETWORKS.values(), ids=NETWORKS)
def test_linear_networks_infer_the_arithmetic_mean(widths: list[int], rate: float, mode: str) -> None:
    """Of any depth: each product along a path has independent masks."""
    net = network(widths, rate, mode, "linear")
    x = inputs(net)
    mean, _, _ = over_all_masks(net, x)
    assert_near(net.predict(x), mean, EXACT)
    assert np.abs(thinned(net, x, MASKS[-1]) - mean).max() > 0.05, "the mean is no thinned network"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rate", RATES)
def test_softmax_regression_infers_the_geometric_mean(rate: float, mode: str) -> None:
    net = network([12], rate, mode, "linear")
    net.output_kind = "logits"
    x = inputs(net)
    _, arithmetic, geometric = over_all_masks(net, x)
    assert_near(net.predict_proba(x), geometric, EXACT)
    assert np.abs(net.predict_proba(x) - arithmetic).max() > 0.004, "and not the arithmetic one"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("widths", [[5, 7], [3, 4, 5]], ids=str)
def test_hidden_relu_units_make_both_means_approximate(widths: list[int], mode: str) -> None:
    net = network(widths, 0.5, mode, "relu")
    net.output_kind = "logits"
    x = inputs(net)
    mean, arithmetic, geometric = over_all_masks(net, x)
    assert np.abs(net.predict(x) - mean).max() > 0.05
    for other in (arithmetic, geometric):
        assert 0.01 < np.abs(net.predict_proba(x) - other).max() < 0.5


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("widths", NETWORKS.values(), ids=NETWORKS)
def test_both_modes_are_the_same_networks(widths: list[int], rate: float) -> None:
    """Converted to scaling in training, a network of the paper's rule has the same thinned networks and the same inference."""
    paper = network(widths, rate, MODES[1], "relu")
    ours, x = paper.to_upscale_in_train(), inputs(paper)
    assert_near(ours.predict(x), paper.predict(x), EXACT)
    for got, wanted in zip(over_all_masks(ours, x), over_all_masks(paper, x), strict=True):
        assert_near(got, wanted, EXACT)


def test_monte_carlo_inference_converges_to_the_arithmetic_mean() -> None:
    net: Any = network([5, 7], 0.5, MODES[0], "relu")
    net.output_kind = "logits"
    x, passes = inputs(net), 4000
    _, arithmetic, _ = over_all_masks(net, x)
    prediction = net.predict_mc(x, passes)
    assert (np.abs(prediction.mean - arithmetic) < 5 * prediction.std / np.sqrt(passes)).all()
    assert np.abs(net.predict_proba(x) - arithmetic).max() > 5 * prediction.std.max() / np.sqrt(passes)
