"""Activations through the seam: error against decimal arithmetic, special values, gradients; names and functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from assertions import assert_agree, assert_not_vacuous, assert_same_bits, guarded
from exact import Decimal, evaluate
from hypothesis import given
from hypothesis import strategies as st
from strategies import DTYPES, EDGES, dtypes, random_array, shapes

from fastdrop import activations
from fastdrop._types import ActivationKind, Array, Shape
from fastdrop.backends.base import GRADIENT_FROM_OUTPUT, LEAKY_RELU_SLOPE, AbstractBackend, needs_z

KINDS = list(ActivationKind)
EXACT_KINDS = [ActivationKind.LINEAR, ActivationKind.RELU, ActivationKind.HEAVISIDE]

VALUE_ULP = 4.0
"""Largest error of a value, in units in the last place of the value; of one of VALUE_FLOOR * max(1, |z|) where that is larger."""

VALUE_FLOOR = dict.fromkeys(KINDS, 2.0**-20) | {ActivationKind.GELU: 2.0**-6}
"""Below it values are tails; z Phi(z) loses digits there as Phi magnifies the rounding of z by z**2."""

GRADIENT_ULP = 4.0
"""Largest error of a derivative, in units in the last place of 1 (or of the derivative): it is a factor beside others."""


def _points(dtype: np.dtype) -> Array:
    """From tiny to huge, both signs, dense where the functions bend."""
    rng = np.random.default_rng(0)
    around_zero = rng.uniform(-6, 6, 120)
    wide = rng.uniform(-30, 30, 30)
    magnitudes = 10.0 ** rng.uniform(-30, 3, 40) * rng.choice([-1, 1], 40)
    fixed = [0.0, 1.0, -1.0, 0.5, -0.5, 20.0, -20.0, 88.0, -87.0, 709.0, -708.0, 1e30, -1e30]
    return np.concatenate([around_zero, wide, magnitudes, fixed]).astype(np.float32).astype(dtype)


def _worst(got: Array, points: Array, kind: ActivationKind, gradient: bool, floors: Array) -> tuple[float, float]:
    """Return (largest error in units of the last place, the point where it is)."""
    errors = []
    for value, z, floor in zip(got.tolist(), points.tolist(), floors.tolist(), strict=True):
        wanted = evaluate(kind, z, gradient)
        unit = float(np.spacing(points.dtype.type(max(abs(wanted), floor))))
        errors.append(float(abs(Decimal(value) - wanted) / Decimal(unit)))
    worst = int(np.argmax(errors))
    return errors[worst], float(points[worst])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_stated_error_of_values(backend: AbstractBackend, kind: ActivationKind, dtype: np.dtype) -> None:
    points = _points(dtype)
    got = backend.activation_forward(points, kind)
    assert got.dtype == dtype
    error, z = _worst(got, points, kind, False, VALUE_FLOOR[kind] * np.maximum(1, np.abs(points)))
    assert error <= (0 if kind in EXACT_KINDS else VALUE_ULP), f"{error:.1f} ulp at {z!r}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_stated_error_of_gradients(backend: AbstractBackend, kind: ActivationKind, dtype: np.dtype) -> None:
    points = _points(dtype)
    got = backend.activation_backward(np.ones_like(points), points, kind)
    assert got.dtype == dtype
    error, z = _worst(got, points, kind, True, np.full(len(points), 0.5))
    assert error <= (0 if kind in EXACT_KINDS else GRADIENT_ULP), f"{error:.1f} ulp at {z!r}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [k for k in KINDS if k != ActivationKind.HEAVISIDE])
def test_small_arguments_keep_their_relative_accuracy(backend: AbstractBackend, kind: ActivationKind, dtype: np.dtype) -> None:
    """Near zero: f(z) - f(0) is close to f'(0) z, also where it is far below 1."""
    z = np.array([1e-30, -1e-30, 1e-10, -1e-10, 3e-5, -3e-5], dtype)
    got = backend.activation_forward(z, kind)
    wanted = np.array([float(evaluate(kind, v)) for v in z.tolist()]).astype(dtype)
    np.testing.assert_allclose(got, wanted, rtol=4 * np.finfo(dtype).eps)


INF, NAN = math.inf, math.nan
SELU_FLOOR = -1.0507009873554805 * 1.6732632423543772

SPECIAL_VALUES = {  # at -inf, -0.0, +0.0, +inf
    ActivationKind.LINEAR: (-INF, -0.0, 0.0, INF),
    ActivationKind.RELU: (0.0, 0.0, 0.0, INF),
    ActivationKind.LEAKY_RELU: (-INF, -0.0, 0.0, INF),
    ActivationKind.SIGMOID: (0.0, 0.5, 0.5, 1.0),
    ActivationKind.TANH: (-1.0, -0.0, 0.0, 1.0),
    ActivationKind.GELU: (0.0, 0.0, 0.0, INF),
    ActivationKind.SILU: (0.0, 0.0, 0.0, INF),
    ActivationKind.SELU: (SELU_FLOOR, 0.0, 0.0, INF),
    ActivationKind.SOFTPLUS: (0.0, math.log(2), math.log(2), INF),
    ActivationKind.HEAVISIDE: (0.0, 1.0, 1.0, 1.0),
}

SPECIAL_GRADIENTS = {  # at -inf, -0.0, +0.0, +inf
    ActivationKind.LINEAR: (1.0, 1.0, 1.0, 1.0),
    ActivationKind.RELU: (0.0, 0.0, 0.0, 1.0),
    ActivationKind.LEAKY_RELU: (0.2, 0.2, 0.2, 1.0),
    ActivationKind.SIGMOID: (0.0, 0.25, 0.25, 0.0),
    ActivationKind.TANH: (0.0, 1.0, 1.0, 0.0),
    ActivationKind.GELU: (0.0, 0.5, 0.5, 1.0),
    ActivationKind.SILU: (0.0, 0.5, 0.5, 1.0),
    ActivationKind.SELU: (0.0, -SELU_FLOOR, -SELU_FLOOR, 1.0507009873554805),
    ActivationKind.SOFTPLUS: (0.0, 0.5, 0.5, 1.0),
    ActivationKind.HEAVISIDE: (0.0, 0.0, 0.0, 0.0),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_special_values(backend: AbstractBackend, kind: ActivationKind, dtype: np.dtype) -> None:
    """Limits at infinity, never inf * 0; repeated so that vector and tail code both see them."""
    z = np.tile(np.array([-INF, -0.0, 0.0, INF], dtype), 11)
    values = np.tile(np.array(SPECIAL_VALUES[kind], dtype), 11)
    gradients = np.tile(np.array(SPECIAL_GRADIENTS[kind], dtype), 11)
    np.testing.assert_allclose(backend.activation_forward(z, kind), values, rtol=4 * np.finfo(dtype).eps)
    got = backend.activation_backward(np.ones_like(z), z, kind)
    np.testing.assert_allclose(got, gradients, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", DTYPES)
def test_tanh_is_odd(backend: AbstractBackend, dtype: np.dtype) -> None:
    z = _points(dtype)
    assert_same_bits(backend.activation_forward(-z, ActivationKind.TANH), -backend.activation_forward(z, ActivationKind.TANH))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_nan_stays_nan(backend: AbstractBackend, kind: ActivationKind, dtype: np.dtype) -> None:
    z = np.tile(np.array([NAN, 1.0], dtype), 13)
    got = backend.activation_forward(z, kind)
    assert np.isnan(got[0::2]).all()
    assert np.isfinite(got[1::2]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", [ActivationKind.RELU, ActivationKind.HEAVISIDE])
def test_a_derivative_that_is_zero_selects(backend: AbstractBackend, kind: ActivationKind, dtype: np.dtype) -> None:
    """An infinite gradient leaves nothing behind where the derivative is 0 by definition."""
    dy = np.tile(np.array([INF, NAN, -INF], dtype), 9)
    assert_same_bits(backend.activation_backward(dy, np.full(27, -1.0, dtype), kind), np.zeros(27, dtype))


@given(shapes, dtypes, st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_agreement_with_the_reference(
    backend: AbstractBackend, reference: AbstractBackend, shape: Shape, dtype: np.dtype, kind: ActivationKind, seed: int
) -> None:
    z, dy = 3 * random_array(seed, shape, dtype), random_array(seed + 1, shape, dtype)
    assert_agree(backend.activation_forward(z, kind), reference.activation_forward(z, kind))
    assert_agree(backend.activation_backward(dy, z, kind), reference.activation_backward(dy, z, kind))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", EDGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_element_is_written_and_no_other(backend: AbstractBackend, kind: ActivationKind, n: int, dtype: np.dtype) -> None:
    """And a value does not depend on where in a vector or a tail it lies."""
    z, dy = random_array(n, (n,), dtype), random_array(n + 1, (n,), dtype)
    for operation, arguments in ((backend.activation_forward, (z, kind)), (backend.activation_backward, (dy, z, kind))):
        out, check = guarded((n,), dtype)
        assert operation(*arguments, out) is out
        check()
        assert_same_bits(out, operation(*arguments))
    shifted = backend.activation_forward(np.concatenate([z, z[:1]])[1:].copy(), kind)
    assert_same_bits(shifted[: max(n - 1, 0)], backend.activation_forward(z, kind)[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_out_may_be_an_input(backend: AbstractBackend, kind: ActivationKind) -> None:
    z, dy = random_array(1, (70,)), random_array(2, (70,))
    forward, gradient = backend.activation_forward(z, kind), backend.activation_backward(dy, z, kind)
    assert_not_vacuous(forward)
    for buffer in (z.copy(),):
        assert backend.activation_forward(buffer, kind, buffer) is buffer
        assert_same_bits(buffer, forward)
    buffer = dy.copy()
    assert backend.activation_backward(buffer, z, kind, buffer) is buffer
    assert_same_bits(buffer, gradient)


def test_a_new_array_never_shares_memory_with_the_input(backend: AbstractBackend) -> None:
    z = random_array(1, (70,))
    for kind in KINDS:
        assert not np.shares_memory(backend.activation_forward(z, kind), z)
        assert not np.shares_memory(backend.activation_backward(z, z, kind), z)


@pytest.mark.parametrize("kind", sorted(GRADIENT_FROM_OUTPUT))
def test_gradient_may_follow_from_the_output(backend: AbstractBackend, kind: ActivationKind) -> None:
    z, dy = random_array(3, (200,)), random_array(4, (200,))
    y = backend.activation_forward(z, kind)
    if kind == ActivationKind.HEAVISIDE:
        assert not backend.activation_backward(dy, z, kind).any()
    else:
        assert_same_bits(backend.activation_backward(dy, y, kind), backend.activation_backward(dy, z, kind))


def test_which_activations_need_z() -> None:
    assert {kind for kind in KINDS if not needs_z(kind)} == set(GRADIENT_FROM_OUTPUT)


# The public functions


@pytest.mark.parametrize("name", sorted(set(activations.FUNCTIONS) - {"softmax"}))
def test_functions_are_the_operations(on_backend: AbstractBackend, name: str) -> None:
    x = random_array(5, (3, 4, 5))
    kind = ActivationKind[name.upper()]
    wanted = on_backend.activation_forward(x, kind)
    got = activations.FUNCTIONS[name](np.asfortranarray(x))
    assert got.flags.c_contiguous
    assert_same_bits(got, wanted)
    assert getattr(activations, name) is activations.FUNCTIONS[name]
    assert activations.get(name) is kind
    assert activations.get(activations.FUNCTIONS[name]) is kind
    assert activations.name_of(activations.FUNCTIONS[name]) == name


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (0, 4), (3, 0), (0,), (2, 0, 0)])
def test_softmax_function_works_on_the_last_axis(on_backend: AbstractBackend, shape: Shape) -> None:
    got = activations.softmax(random_array(6, shape))
    assert got.shape == shape
    assert got.dtype == np.float32
    if got.size:
        np.testing.assert_allclose(got.sum(axis=-1), 1.0, rtol=1e-6)


def test_names() -> None:
    assert activations.get(None) is ActivationKind.LINEAR
    assert activations.name_of(None) == "linear"
    assert activations.get("softmax") == activations.get(activations.softmax) == activations.SOFTMAX
    assert {kind.name.lower() for kind in KINDS} | {"softmax"} == set(activations.FUNCTIONS)
    assert LEAKY_RELU_SLOPE == 0.2
