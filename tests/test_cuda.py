"""The CUDA backend, on a GPU or in Numba's simulator: its operations, networks on it, and arrays of other libraries.

More of it is in the other files, with FASTDROP_TEST_CUDA=1.
"""

from __future__ import annotations

import copy
import ctypes
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from assertions import assert_agree, assert_near, assert_same_bits
from device import SIMULATED, OnDevice
from subprocesses import run

import fastdrop as fd
from fastdrop._device import DeviceArray, is_foreign
from fastdrop._types import ActivationKind, Array, Domain, UpdateKind
from fastdrop.backends import select
from fastdrop.backends.base import AbstractBackend
from fastdrop.backends.operands import Normals, Part, Update
from fastdrop.backends.select import received
from fastdrop.errors import AllDroppedWarning, ArgumentTypeError, ArgumentValueError, BackendError
from fastdrop.window import window_of

KEY = fd.Key(7, 1, 3)


@pytest.fixture(scope="module")
def cuda() -> AbstractBackend:
    return OnDevice(select.backend("cuda"))


@pytest.fixture(scope="module")
def device() -> Callable[[Any], Any]:
    """What copies a NumPy array to the device, for someone who has Numba alone."""
    from fastdrop.backends.cuda._jit import cuda as numba_cuda

    return numba_cuda.to_device


def _random(shape: tuple[int, ...], dtype: Any = np.float32, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


# Masks


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
@pytest.mark.parametrize("row_offset", [0, 1, 16, 2**33 + 7])
@pytest.mark.parametrize("size", [1, 15, 33, 700])
def test_elementwise_masks_are_those_of_the_contract(cuda: AbstractBackend, size: int, row_offset: int, rate: float) -> None:
    x = _random((size,))
    mask = fd.Mask(rate, KEY, row_offset=row_offset).bind(x.shape)
    assert_same_bits(cuda.dropout_forward(x, mask), select.backend("reference").dropout_forward(x, mask))


@pytest.mark.parametrize(
    "mask",
    [
        fd.Mask(0.3, KEY, shared_rows=2, row_offset=5),
        fd.Mask(0.3, KEY, shared_rows="batch"),
        fd.Mask(0.4, KEY, fixed_count=True, row_offset=1),
        fd.Mask(0.3, KEY, noise_shape=(None, 1, None)),
        fd.Mask(0.3, KEY, noise_shape=(1, None, 1)),
        fd.Mask(0.0, KEY),
    ],
    ids=repr,
)
def test_every_kind_of_mask(cuda: AbstractBackend, mask: fd.Mask) -> None:
    x, reference = _random((4, 3, 10)), select.backend("reference")
    for as_matrix in (False, True):
        bound = mask.bind(x.shape, as_matrix=as_matrix)
        assert_same_bits(cuda.dropout_forward(x, bound), reference.dropout_forward(x, bound))


def test_nothing_leaks_from_dropped_elements(cuda: AbstractBackend) -> None:
    x = np.full((3, 40), np.inf, np.float32)
    mask = fd.Mask(0.5, KEY)
    for bound in (mask.bind(x.shape), mask.bind(x.shape, as_matrix=True)):
        assert_same_bits(cuda.dropout_forward(x, bound), np.where(mask.to_array(x.shape), x, np.float32(0)))


# Every operation beside the reference


def _dense(b: AbstractBackend, dtype: Any, kind: ActivationKind, *masks: Any) -> list[Any]:
    x, weight, bias, dy = _random((5, 7), dtype), _random((7, 6), dtype), _random((6,), dtype), _random((5, 6), dtype, 1)
    y, z = b.dense_forward(x, weight, bias, kind, *masks, True)
    dweight, dbias = np.ones_like(weight), np.ones_like(bias)
    dx = b.dense_backward(dy, x, weight, y, z, kind, *masks, True, dweight, dbias, True)
    return [y, z, dx, dweight, dbias]


@pytest.mark.parametrize(("kind", "dtype"), [*((kind, np.float32) for kind in ActivationKind), (ActivationKind.GELU, np.float64)])
def test_dense(cuda: AbstractBackend, kind: ActivationKind, dtype: Any) -> None:
    masks = fd.Mask(0.2, KEY).bind((5, 7), as_matrix=True), fd.Mask(0.5, KEY).bind((5, 6), as_matrix=True)
    _assert_agreed(lambda b: _dense(b, dtype, kind, *masks), cuda, 32)


def test_dense_whose_output_is_all_dropped(cuda: AbstractBackend) -> None:
    with pytest.warns(AllDroppedWarning):
        mask = fd.Mask(1.0, KEY).bind((5, 6), as_matrix=True)
    _assert_agreed(lambda b: _dense(b, np.float32, ActivationKind.RELU, None, mask), cuda, 0)


@pytest.mark.parametrize("strides", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_images(cuda: AbstractBackend, strides: int, padding: str) -> None:
    window = window_of((5, 6), (3, 2), (strides, strides), (1, 2), padding, "`weight`")
    mask = fd.Mask(0.3, KEY).bind((2, *window.places, 4), as_matrix=True)

    def run(b: AbstractBackend) -> list[Any]:
        x, weight, bias = _random((2, 5, 6, 3)), _random((3, 2, 3, 4)), _random((4,))
        y, z = b.conv2d_forward(x, weight, bias, window, ActivationKind.GELU, None, mask, True)
        dweight, dbias = np.zeros_like(weight), np.zeros_like(bias)
        kind = ActivationKind.GELU
        dx = b.conv2d_backward(_random(y.shape), x, weight, y, z, window, kind, None, mask, True, dweight, dbias, False)
        largest, mean = b.max_pool_forward(x, window), b.average_pool_forward(x, window)
        pooled = b.max_pool_backward(_random(largest.shape), x, window), b.average_pool_backward(_random(mean.shape), window)
        return [y, z, dx, dweight, dbias, largest, mean, *pooled]

    _assert_agreed(run, cuda, 64)


def test_drop_block_and_noise(cuda: AbstractBackend) -> None:
    x, seeds = _random((3, 5, 4, 2)), fd.Mask(0.2, KEY).bind((3, 4 * 3 * 2), as_matrix=True)
    _assert_agreed(
        lambda b: [b.drop_block_forward(x, seeds, 2), b.affine_dropout_forward(x, fd.Mask(0.3, KEY).bind(x.shape), 1, 2)], cuda
    )
    for multiplies in (False, True):
        noise = Normals(KEY, 3, 0.5, multiplies, Domain.NOISE)
        _assert_agreed(lambda b, noise=noise: [b.noise_forward(x, noise), b.noise_backward(x, noise)], cuda, 32)


@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "sigmoid_cross_entropy", "categorical_cross_entropy"])
def test_losses(cuda: AbstractBackend, loss: str) -> None:
    outputs, weights = np.abs(_random((4, 5))), np.array([1.0, 0.0, 2.0, 0.5])
    targets = np.eye(5, dtype=np.float32)[[0, 3, 1, 4]]
    for labels in (np.array([0, 3, 1, 4]), targets):
        _assert_agreed(
            lambda b, labels=labels: [np.array(each) for each in getattr(b, loss)(outputs, labels, weights, 3.0)], cuda
        )
    _assert_agreed(lambda b: [np.array(each) for each in b.mean_squared_error(outputs, targets, None, 4.0)], cuda)
    _assert_agreed(lambda b: [b.softmax_forward(outputs), b.softmax_backward(targets, outputs)], cuda)


def test_a_class_number_beyond_the_classes_shows_in_the_loss(cuda: AbstractBackend) -> None:
    loss, _ = cuda.softmax_cross_entropy(_random((2, 3)), np.array([0, 3]), None, 1.0)
    assert np.isnan(loss)


@pytest.mark.parametrize("kind", UpdateKind)
def test_updates(cuda: AbstractBackend, kind: UpdateKind) -> None:
    rates = np.array([0.1, 0.01, 0.3, 0.2, 1e-7], np.float32)
    rows, columns = np.array([0, 2]), np.array([1, 3])

    def run(b: AbstractBackend) -> list[Any]:
        arrays = [_random((3, 4), seed=1), _random((3, 4), seed=2), np.abs(_random((3, 4), seed=3))]
        b.update(Update(kind, *arrays, rates), _random((3, 4)))
        b.update_parts(Update(kind, *arrays, rates), [Part(_random((2, 2)), rows, columns)])
        whole = _random((3, 4))
        b.scatter(
            b.gather(whole, rows, columns, 2.0),
            rows,
            None if kind else columns,
            np.zeros((3, 2 if kind else 4), np.float32),
            True,
        )
        b.limit_column_norms(arrays[0], 1.0)
        return [*arrays, np.array(b.sum_of_squares(whole)), whole]

    _assert_agreed(run, cuda)


def test_updates_of_more_parameters_than_a_launch_takes(cuda: AbstractBackend) -> None:
    def run(b: AbstractBackend) -> list[Any]:
        numbers = [upload(np.array([i, 1], np.float32)) for i in range(35)] if b is cuda else None
        arrays = numbers or [np.array([i, 1], np.float32) for i in range(35)]
        inner = select.backend("cuda") if b is cuda else b
        for value in arrays:
            inner.update_later(Update(UpdateKind.SGD, value, value, value, np.array([0.5, 0], np.float32)), arrays[0] * 0 + 2.0)
        inner.finish_updates()
        return [_host(value) for value in arrays]

    from fastdrop.backends.cuda._arrays import upload

    _assert_agreed(run, cuda, 0)
    assert run(cuda)[34].tolist() == [33, 0]


def _assert_agreed(run: Callable[[AbstractBackend], list[Any]], cuda: AbstractBackend, ulps: float = 16) -> None:
    got, wanted = run(cuda), run(select.backend("reference"))
    for mine, right in zip(got, wanted, strict=True):
        if right is not None:
            assert_agree(np.asarray(mine), np.asarray(right), ulps)


# Networks


def _network(**arguments: Any) -> fd.Sequential:
    layers = [fd.Dropout(0.2, **arguments), fd.Dense(8, activation="relu"), fd.Dropout(0.5, **arguments), fd.Dense(3)]
    return fd.Sequential(layers, input_shape=(5,), seed=3)


def _convolutional() -> fd.Sequential:
    residual = fd.Residual([fd.Conv2D(2, 1), fd.DropPath(0.5)])
    layers = [
        fd.RandomFlip(), fd.Conv2D(2, 3, activation="relu", padding="same"), fd.SpatialDropout2D(0.5), fd.MaxPool2D(2, strides=1),
        fd.DropBlock2D(0.2, 2), fd.AvgPool2D(2, strides=1), residual, fd.GaussianDropout(0.3), fd.GaussianNoise(0.1),
        fd.Flatten(), fd.AlphaDropout(0.2),
        fd.DropConnect(4, 0.5, activation="selu", weight_regularizer="l2", weight_constraint="unit_norm"),
        fd.Dense(3, activation="softmax", weight_regularizer="l1", bias_constraint="non_neg"),
    ]  # fmt: skip
    return fd.Sequential(layers, input_shape=(4, 4, 1), seed=3)


def _assert_same_network(net: fd.Sequential, other: fd.Sequential, tolerance: float = 1e-5) -> None:
    mine, theirs = net.state_dict(), other.state_dict()
    for name, value in mine.items():
        assert isinstance(value, np.ndarray)
        assert_near(value, theirs[name], tolerance)


@pytest.mark.parametrize(
    "optimizer",
    [
        fd.optim.AdamW(),
        pytest.param(fd.optim.SGD(0.1), marks=pytest.mark.slow),
        pytest.param(fd.optim.SGD(0.1, momentum=0.9, clip_norm=0.1), marks=pytest.mark.slow),
    ],
    ids=lambda each: type(each).__name__,
)
@pytest.mark.parametrize("arguments", [{}, {"shared_rows": "batch"}], ids=["each row", "batch"])
def test_training_gives_the_weights_of_the_cpu(
    device: Callable[[Any], Any], optimizer: fd.optim.AbstractOptimizer, arguments: dict[str, Any]
) -> None:
    x, labels = _random((32 if arguments else 6, 5)), np.arange(32 if arguments else 6) % 3
    nets, optimizers = [_network(**arguments), _network(**arguments).to("cuda")], [copy.deepcopy(optimizer) for _ in range(2)]
    for _ in range(1 if arguments else 2):
        wanted = nets[0].train_on_batch(x, labels, optimizers[0])
        got = nets[1].train_on_batch(device(x), device(labels), optimizers[1])
        assert float(got.copy_to_host()) == pytest.approx(wanted, rel=1e-5)
    _assert_same_network(*nets)


def test_the_custom_loop(device: Callable[[Any], Any]) -> None:
    x, labels = _random((6, 5)), np.arange(6) % 3
    nets, results = [_network(), _network().to("cuda")], []
    for net, put in zip(nets, (np.asarray, device), strict=True):
        logits, backward = net.forward(put(x), training=True)
        loss, dlogits = fd.losses.softmax_cross_entropy(logits, labels)
        dx = backward(dlogits, input_gradient=True)
        assert type(dx) is type(logits) is type(put(x))
        results.append((np.asarray(loss).reshape(()) if put is np.asarray else loss.copy_to_host(), _host(logits), _host(dx)))
    for mine, right in zip(*results, strict=True):
        assert_near(np.asarray(mine, np.float64), np.asarray(right, np.float64), 1e-5)


def _host(array: Any) -> Array:
    return np.asarray(array.copy_to_host() if hasattr(array, "copy_to_host") else array)


@pytest.mark.slow
def test_a_network_of_many_layers(device: Callable[[Any], Any]) -> None:
    x, labels = _random((3, 4, 4, 1)), np.arange(3)
    nets = [_convolutional(), _convolutional().to("cuda")]
    for net, put in zip(nets, (np.asarray, device), strict=True):
        net.train_on_batch(put(x), labels, fd.optim.SGD(0.01), "categorical_cross_entropy")
    _assert_same_network(*nets, 1e-4)
    predictions = [nets[0].predict_mc(x, 3).mean, _host(nets[1].predict_mc(device(x), 3).mean)]
    assert_near(predictions[1], predictions[0], 1e-4)


def test_fit_evaluate_and_predict(device: Callable[[Any], Any]) -> None:
    x, labels = _random((6, 5)), np.arange(6) % 3
    nets, histories = [_network(), _network().to("cuda")], []
    for net, put in zip(nets, (np.asarray, device), strict=True):
        fitted = net.fit(
            put(x), put(labels), epochs=2, batch_size=4, validation_data=(put(x), labels), progress=False,
            metrics=["accuracy", lambda outputs, labels: outputs.argmax(1) == labels],
        )  # fmt: skip
        histories.append(fitted.history)
    for name, values in histories[0].items():
        assert all(type(value) is float for value in histories[1][name])
        assert histories[1][name] == pytest.approx(values, rel=1e-5)
    net, other = nets
    assert other.evaluate(device(x), labels) == pytest.approx(net.evaluate(x, labels), rel=1e-5)
    assert_near(_host(other.predict_proba(device(x), batch_size=4)), net.predict_proba(x), 1e-6)
    assert_near(_host(other.predictor()(device(x))), net.predictor()(x), 1e-6)


@pytest.mark.slow
def test_a_run_goes_on_on_the_other_device(device: Callable[[Any], Any], tmp_path: Path) -> None:
    """With the same masks: it ends with the weights of a run that stayed where it was."""
    x, labels = _random((6, 5)), np.arange(6) % 3
    stayed, moved = _network(), _network().to("cuda")
    arguments = {"batch_size": 4, "progress": False}
    stayed.fit(x, labels, epochs=2, optimizer=fd.optim.Adam(), **arguments)
    optimizer = fd.optim.Adam()
    moved.fit(device(x), labels, epochs=1, optimizer=optimizer, **arguments)
    fd.save_checkpoint(tmp_path / "c", moved, optimizer)
    there = _network()
    there.fit(x, labels, epochs=2, resume=tmp_path / "c", **arguments)
    _assert_same_network(there, stayed)
    back = _network().to("cuda")
    back.fit(device(x), labels, epochs=2, resume=tmp_path / "c", **arguments)
    _assert_same_network(back, stayed)
    _assert_same_network(back.to("cpu"), stayed)


def test_a_network_moves_between_two_steps(device: Callable[[Any], Any]) -> None:
    """With batches of the same shape, and masks that have offsets of their own, which each side prepares for itself."""
    x, labels, optimizer = _random((3, 2, 2)), np.arange(3), fd.optim.SGD(0.1)
    layers = [fd.Dropout(0.5), fd.SpatialDropout1D(0.5), fd.Dropout(0.5, noise_shape=(None, None, 1)), fd.Flatten(), fd.Dense(3)]
    stayed, moved = (fd.Sequential(copy.deepcopy(layers), input_shape=(2, 2), seed=3) for _ in range(2))
    for place, put in (("cpu", np.asarray), ("cuda", device), ("cpu", np.asarray)):
        stayed.train_on_batch(x, labels, optimizer)
        moved.to(place).train_on_batch(put(x), put(labels), fd.optim.SGD(0.1))
    _assert_same_network(moved, stayed)


def test_a_backward_pass_that_fails_leaves_no_update_behind(device: Callable[[Any], Any]) -> None:
    x, labels = _random((6, 5)), np.arange(6) % 3
    nets = [_network().to("cuda") for _ in range(2)]
    for net in nets:
        outputs, backward = net.forward(device(x), training=True, step=0)
        _, gradient = fd.losses.softmax_cross_entropy(outputs, labels)

        def failing(*arguments: Any, backward: Any = backward, **options: Any) -> Any:
            backward(*arguments, **options)
            raise MemoryError

        if net is nets[0]:
            with pytest.raises(MemoryError):
                fd.optim.SGD(0.1).backward_and_step(net, failing, received(gradient))
        net.train_on_batch(device(x), labels, fd.optim.SGD(0.1), step=1)
    _assert_same_network(*nets)


def test_what_is_elsewhere_is_refused(device: Callable[[Any], Any]) -> None:
    x = _random((2, 5))
    with pytest.raises(ArgumentValueError, match="`x` must be on the GPU, as `network`"):
        _network().to("cuda").predict(x)
    with pytest.raises(ArgumentValueError, match="`x` must be on the host, as `network`"):
        _network().predict(device(x))
    with pytest.raises(ArgumentValueError, match="`weight` must be on the GPU, as `x`"):
        fd.dense(device(x), _random((5, 2)))
    with pytest.raises(ArgumentValueError, match="`device` must be one of cpu, cuda, got 'gpu'"):
        _network().to("gpu")
    _, backward = fd.dropout(device(x), fd.Mask(0.5, KEY))
    with pytest.raises(ArgumentValueError, match="`dy` must be on the GPU, as `y`"):
        backward(x)
    assert isinstance(_network().to("cuda").parameters()[0].value, DeviceArray)
    with pytest.raises(BackendError, match=r"not copied to the host unasked \(hint: x.copy_to_host\(\)\)"):
        np.asarray(_network().to("cuda").parameters()[0].value)


def test_functions_write_where_they_are_told(device: Callable[[Any], Any]) -> None:
    x, weight, mask = _random((4, 5)), _random((5, 3)), fd.Mask(0.5, KEY)
    out = device(np.zeros_like(x))
    y, backward = fd.dropout(device(x), mask, out=out)
    assert y is out
    assert_same_bits(_host(out), fd.dropout(x, mask)[0])
    assert_same_bits(_host(backward(out)), fd.dropout(_host(out), mask)[0])
    out = device(np.zeros((4, 3), np.float32))
    fd.dense(device(x), device(weight), activation="softmax", out=out)
    assert_near(_host(out), fd.dense(x, weight, activation="softmax")[0], 1e-6)
    with pytest.raises(ArgumentValueError, match="`out` must"):
        fd.dropout(device(x), mask, out=device(np.zeros((4, 4), np.float32)))


def test_half_precision(device: Callable[[Any], Any]) -> None:
    """Elements are multiplied in 32 bits and rounded once."""
    x, mask = _random((4, 40), np.float16), fd.Mask(0.3, KEY)
    y, _ = fd.dropout(device(x), mask)
    assert_same_bits(_host(y), fd.dropout(x.astype(np.float32), mask)[0].astype(np.float16))
    weight = _random((40, 3), np.float16)
    product, backward = fd.dense(device(x), device(weight), activation="relu", output_mask=mask)
    wanted = fd.dense(x.astype(np.float32), weight.astype(np.float32), activation="relu", output_mask=mask)[0]
    assert_near(_host(product), wanted, 0.05)
    assert _host(backward(product)[1]).dtype == np.float16
    with pytest.raises(ArgumentTypeError, match="float32 or float64"):
        fd.dropout(x, mask)


# Arrays of other libraries


def test_dlpack_is_read(device: Callable[[Any], Any]) -> None:
    from fastdrop.backends.cuda.interop import interface_of_dlpack

    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)[:, ::2]
    interface = interface_of_dlpack(x.__dlpack__())
    assert (interface["shape"], interface["typestr"], interface["strides"]) == (x.shape, "<f4", x.strides)
    first = ctypes.cast(interface["data"][0], ctypes.POINTER(ctypes.c_float))
    assert [first[i] for i in range(4)] == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(ArgumentTypeError, match="plain numbers"):
        interface_of_dlpack(np.zeros(2, np.complex64).__dlpack__())


def test_the_stream_of_the_callers_library(device: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from fastdrop.backends.cuda import interop

    torch = SimpleNamespace(cuda=SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=device + 1)))
    cupy = SimpleNamespace(cuda=SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=9)))
    monkeypatch.setitem(interop.sys.modules, "torch", torch)
    monkeypatch.setitem(interop.sys.modules, "cupy", cupy)
    tensor = type("Tensor", (), {"__module__": "torch", "device": 4})()
    array = type("ndarray", (), {"__module__": "cupy._core.core"})()
    other = type("Array", (), {"__module__": "other", "__cuda_array_interface__": {"stream": 7}})()
    found = [interop.current_stream(each) for each in (tensor, array, other)]
    assert [handle for handle, _ in found] == [5, 9, 7]
    assert [getattr(owner, "cuda_stream", getattr(owner, "ptr", None)) for _, owner in found] == [5, 9, None]
    assert found[2][1] is other


class _NeedsGradient:
    """A tensor as PyTorch's that need a gradient: asked for its interface, it raises what `hasattr` does not catch."""

    def __init__(self, device: int) -> None:
        self.device = device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        raise RuntimeError("call detach() first")


def test_tensors_that_need_a_gradient_are_known() -> None:
    assert is_foreign(_NeedsGradient(2))
    assert not is_foreign(_NeedsGradient(1))


def test_strided_arrays_are_refused(device: Callable[[Any], Any]) -> None:
    with pytest.raises(ArgumentValueError, match="C-contiguous on a GPU"):
        fd.dropout(device(np.zeros((4, 6), np.float32))[:, ::2], fd.Mask(0.5, KEY))
    with pytest.raises(ArgumentValueError, match="`out` must be C-contiguous on a GPU"):
        fd.dropout(device(np.zeros((4, 3), np.float32)), fd.Mask(0.5, KEY), out=device(np.zeros((4, 6), np.float32))[:, ::2])


# Where it cannot be had


@pytest.mark.skipif(not SIMULATED, reason="there is a GPU")
def test_without_the_package_or_a_gpu_the_error_says_what_to_do() -> None:
    code = """
        import fastdrop as fd
        from fastdrop.errors import BackendError
        try:
            fd.Sequential([fd.Dense(1)], input_shape=(2,)).to("cuda")
        except BackendError as error:
            print(error)
    """
    said = run(code)
    assert said.startswith("the CUDA backend ")
    assert "(hint: " in said


def test_importing_fastdrop_does_not_import_cuda() -> None:
    run("""
        import sys
        import fastdrop as fd
        fd.Sequential([fd.Dense(1)], input_shape=(2,)).state_dict()
        assert not any(name.startswith(("numba_cuda", "fastdrop.backends.cuda")) for name in sys.modules)
    """)
