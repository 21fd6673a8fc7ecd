"""What holds of every layer with a mask or noise: its key, its numbering, pieces, threads, files, special rates."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from assertions import assert_same_bits
from strategies import DTYPES, random_array
from subprocesses import run

import fastdrop as fd
from fastdrop import layers
from fastdrop.layers import AbstractLayer
from fastdrop.layers.dropout import AbstractMasked
from fastdrop.layers.noise import AbstractNoise

Make = Callable[..., AbstractLayer]

LAYERS: dict[str, Make] = {
    "Dropout": lambda **given: fd.Dropout(0.3, **given),
    "SpatialDropout1D": lambda **given: fd.SpatialDropout1D(0.3, **given),
    "SpatialDropout2D": lambda **given: fd.SpatialDropout2D(0.3, **given),
    "SpatialDropout3D": lambda **given: fd.SpatialDropout3D(0.3, **given),
    "GaussianDropout": lambda **given: fd.GaussianDropout(0.3, **given),
    "GaussianNoise": lambda **given: fd.GaussianNoise(0.3, **given),
    "AlphaDropout": lambda **given: fd.AlphaDropout(0.3, **given),
    "DropBlock2D": lambda **given: fd.DropBlock2D(0.3, 2, **given),
    "DropPath": lambda **given: fd.DropPath(0.3, **given),
    "DropConnect": lambda **given: fd.DropConnect(5, 0.3, **given),
}
ROWS = {"SpatialDropout1D": (4, 5), "SpatialDropout2D": (4, 3, 5), "SpatialDropout3D": (2, 4, 3, 5), "DropBlock2D": (6, 5, 3)}


def shape_of(name: str, rows: int = 11) -> tuple[int, ...]:
    return (rows, *ROWS.get(name, (5,)))


def test_the_list_is_complete() -> None:
    found = {
        name
        for name, value in inspect.getmembers(layers, inspect.isclass)
        if issubclass(value, AbstractMasked | AbstractNoise | fd.DropConnect)
    }
    assert found == set(LAYERS)
    assert all(hasattr(fd, name) for name in found)


@pytest.mark.parametrize("name", LAYERS)
def test_bits_depend_on_seed_stream_and_step_alone(name: str) -> None:
    x = np.abs(random_array(1, shape_of(name))) + 1
    options: dict[str, Any] = {"weight_initializer": "ones"} if name == "DropConnect" else {}
    results = {
        key: LAYERS[name](seed=key[0], stream=key[1], **options).forward(x, True, key[2])[0]
        for key in ((1, 0, 0), (2, 0, 0), (1, 1, 0), (1, 0, 1))
    }
    assert len({y.tobytes() for y in results.values()}) == 4
    for (seed, stream, step), y in results.items():
        layer = LAYERS[name](seed=seed, stream=stream, **options)
        layer.forward(x, True)
        layer(x)
        assert layer.step_count == 1
        assert_same_bits(layer.forward(x, True, step)[0], y)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_a_network_has_the_networks_seed_and_its_own_number(name: str) -> None:
    make, x = LAYERS[name], random_array(1, shape_of(name))
    options: dict[str, Any] = {"weight_initializer": "ones"} if name == "DropConnect" else {}
    net = fd.Sequential([fd.Dropout(0.0), fd.Residual([fd.GaussianNoise(0.0)]), make(**options)], x.shape[1:], seed=9)
    doubled = make(seed=9, stream=2, **options).forward(x + x, True, 4, 3)[0]
    assert_same_bits(net.forward(x, True, 4, 3)[0], doubled)
    assert "stream 2" in net.summary(lambda _: None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LAYERS)
def test_pieces_of_a_batch_have_the_bits_of_the_whole(name: str, dtype: np.dtype) -> None:
    x = random_array(1, shape_of(name), dtype)
    layer = LAYERS[name](seed=1)
    y, backward = layer.forward(x, True, 4, 3)
    dx = backward(y, input_gradient=True)
    assert (y.dtype == dx.dtype == dtype) or name == "DropConnect"
    for low, high in ((0, 1), (1, 5), (5, 11)):
        part, part_backward = layer.forward(x[low:high], True, 4, 3 + low)
        assert_same_bits(part, y[low:high])
        assert_same_bits(part_backward(part, input_gradient=True), dx[low:high])


@pytest.mark.parametrize("name", LAYERS)
def test_inference_and_no_rows(name: str) -> None:
    layer, x = LAYERS[name](), random_array(1, shape_of(name))
    if name != "DropConnect":
        assert layer(x) is x
        y, backward = layer.forward(x, False)
        assert_same_bits(backward(x, input_gradient=True), x)
    y, backward = layer.forward(x[:0], True)
    assert len(y) == 0
    assert backward(y, input_gradient=True).shape == x[:0].shape


@pytest.mark.parametrize("name", LAYERS)
def test_a_rate_of_zero_is_the_identity(name: str) -> None:
    layer, x = LAYERS[name](), random_array(1, shape_of(name))
    setattr(layer, "stddev" if name == "GaussianNoise" else "rate", 0.0)
    y, backward = layer.forward(x, True)
    if name != "DropConnect":
        assert y is x
        assert_same_bits(backward(x, input_gradient=True), x)
    else:
        assert_same_bits(y, layer(x))


OPTIONS: dict[str, dict[str, Any]] = {
    "Dropout": {"noise_shape": (None, 1), "shared_rows": 2, "mode": "downscale_in_infer"},
    "SpatialDropout1D": {"fixed_count": True},
    "SpatialDropout2D": {"mode": "downscale_in_infer"},
    "SpatialDropout3D": {"shared_rows": "batch"},
    "AlphaDropout": {"noise_shape": (None, 1), "shared_rows": 3},
    "DropBlock2D": {"shared_rows": 2},
    "DropPath": {"shared_rows": "batch", "mode": "downscale_in_infer"},
    "DropConnect": {"activation": "relu", "weight_regularizer": "l2", "weight_constraint": "max_norm", "name": "last"},
}


@pytest.mark.parametrize("name", LAYERS)
def test_networks_are_written_and_read_again(name: str, tmp_path: Path, without_fsync: None) -> None:
    x = random_array(1, shape_of(name))
    options = OPTIONS.get(name, {})
    net = fd.Sequential([LAYERS[name](seed=7, stream=5, input_shape=x.shape[1:], **options), fd.Dense(3)], seed=2)
    y = net.forward(x, True, 3)[0]
    again = fd.Sequential.from_config(json.loads(json.dumps(net.get_config())))
    assert again.get_config() == net.get_config()
    assert again.layers[0].config() == net.layers[0].config()
    net.save(tmp_path / "net.safetensors")
    loaded = fd.load(tmp_path / "net.safetensors")
    for same in (again, loaded):
        assert type(same.layers[0]) is type(net.layers[0])
        assert_same_bits(same.forward(x, True, 3)[0], y)
        assert_same_bits(same(x), net(x))


@pytest.mark.parametrize("name", LAYERS)
def test_a_network_trains_with_it(name: str) -> None:
    """Two epochs, in one go and with a step of its own for each batch."""
    x, labels = random_array(1, shape_of(name, 24)), np.arange(24) % 3
    nets = [fd.Sequential([LAYERS[name](), fd.Flatten(), fd.Dense(3)], x.shape[1:], seed=2) for _ in range(2)]
    nets[0].fit(x, labels, epochs=2, batch_size=8, shuffle=False, optimizer=fd.optim.SGD(0.1), progress=False)
    optimizer = fd.optim.SGD(0.1)
    for step in range(6):
        low = step % 3 * 8
        nets[1].train_on_batch(
            x[low : low + 8], labels[low : low + 8], optimizer=optimizer, loss="softmax_cross_entropy", step=step
        )
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert_same_bits(a.value, b.value)


def test_the_bits_are_the_same_for_1_2_and_3_threads() -> None:
    code = """
    import numpy as np
    import fastdrop as fd
    from test_random_layers import LAYERS, ROWS

    found = {name: set() for name in LAYERS}
    for count in (1, 2, 3):
        fd.set_num_threads(count)
        for name, make in LAYERS.items():
            shape = (3000, 17, 13, 5)[: 1 + len(ROWS.get(name, (5,)))] if name != "SpatialDropout3D" else (3000, 3, 3, 3, 5)
            x = np.random.default_rng(0).standard_normal((*shape[:-1], 40), dtype="float32")
            y, backward = make(seed=1).forward(x, True, 2, 5)
            found[name].add(y.tobytes() + backward(y, input_gradient=True).tobytes())
    assert len(found) == 10
    print({len(each) for each in found.values()})
    """
    assert run(code, NUMBA_NUM_THREADS="3") == "{1}"
