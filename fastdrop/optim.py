"""Optimisers, with Keras's formulas and defaults; weight decay is decoupled and spares biases.

Notation: w parameter, g gradient, lr learning rate, v velocity, m and s running means of g and g**2, t number of the step from 1.

- all: ``w -= w * weight_decay * lr`` first, for parameters that decay
- SGD: ``w -= lr g``; with momentum ``v = momentum v - lr g; w += v``; Nesterov ``w += momentum v - lr g``
- Adam, AdamW: ``m += (g - m)(1 - beta_1)``; ``s += (g**2 - s)(1 - beta_2)``;
  ``w -= lr sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(s) + epsilon)``

Subnormal v, m and s become zero, which keeps steps fast when units die.

Source: Sutskever et al. 2013 (momentum); Kingma and Ba 2015, end of section 2; Loshchilov and Hutter 2019 (decoupled decay).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, NamedTuple, Self, TypeAlias

import numpy as np

from fastdrop import _validate, arrays
from fastdrop._configurable import CLASS, describe, make
from fastdrop._network import Network, TrainedParameter
from fastdrop._types import Array, Backward, UpdateKind
from fastdrop.backends.operands import Update
from fastdrop.backends.select import backend_of
from fastdrop.progress import Progress
from fastdrop.schedules import SCHEDULES, AbstractSchedule

Schedule: TypeAlias = Callable[[int], float]
Slots: TypeAlias = dict[str, Array]

FUNCTION: Final = "function"
"""Class of a schedule that is a plain function in a configuration: it cannot be made again from there."""


class Begun(NamedTuple):
    """A step that is begun: its learning rate, and the parameters to train with their state."""

    learning_rate: float
    parameters: list[tuple[TrainedParameter, Slots]]


def _trained(net: Network) -> list[TrainedParameter]:
    """Return the trainable parameters; one that stands in several layers is there as often."""
    return [parameter for parameter in net.parameters() if parameter.trainable]


class AbstractOptimizer(ABC):
    """What all optimisers share. Final subclasses: `SGD`, `Adam`, `AdamW`.

    Parameters
    ----------
    learning_rate : float >= 0 or function
        A number, or a schedule: a function of `iterations`.
    weight_decay : float >= 0
    clip_norm : float > 0, optional
        Before each step the gradients are scaled down to this global norm.

    Attributes
    ----------
    iterations : int
        Steps done so far.
    state : dict
        ``state[parameter name][slot]`` is a plain array that may be read and replaced. One optimiser serves one network.
    progress : Progress or None
        Where the last run of `fit` with this optimiser stands.
    """

    def __init__(self, learning_rate: float | Schedule, weight_decay: float, clip_norm: float | None) -> None:
        self._learning_rate = _learning_rate(learning_rate)
        self.weight_decay = _validate.real("weight_decay", weight_decay, 0.0)
        self.clip_norm = None if clip_norm is None else _validate.real("clip_norm", clip_norm, 0.0, open_low=True)
        self.iterations = 0
        self.state: dict[str, Slots] = {}
        self.progress: Progress | None = None

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step. A number or a schedule may be assigned."""
        if callable(self._learning_rate):
            return _validate.real("learning_rate", self._learning_rate(self.iterations), 0.0)
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float | Schedule) -> None:
        self._learning_rate = _learning_rate(value)

    @property
    def schedule(self) -> Schedule | None:
        """The schedule of the learning rate, or None where it is a number."""
        return self._learning_rate if callable(self._learning_rate) else None

    def step(self, net: Network) -> None:
        """Update the network's trainable parameters from their gradients: clip, decay, update, then constraints.

        Raises
        ------
        TypeError, ValueError: a state array that was replaced does not fit; nothing is changed then.
        """
        self._finish(net, self._begin(net))

    def backward_and_step(self, net: Network, backward: Backward, gradient: Array) -> None:
        """Do ``backward(gradient)``, `step` and ``net.zero_grad()``; bit for bit, but perhaps faster.

        Raises
        ------
        TypeError, ValueError: as `step`; nothing is changed then.
        """
        self._begin(net)  # raises, if anything, before there are gradients
        try:
            backward(gradient)
            self.step(net)
        finally:
            backend_of(gradient).finish_updates(forget=True)  # there are some after an error alone
            net.zero_grad()

    def _begin(self, net: Network) -> Begun:
        """Return what a step needs to know; it is checked, and no parameter is changed yet."""
        learning_rate, names = self.learning_rate, self._slot_names()
        return Begun(learning_rate, [(each, self._slots_of(each, names)) for each in dict.fromkeys(_trained(net))])

    def _finish(self, net: Network, begun: Begun, updated: Collection[TrainedParameter] = ()) -> None:
        """Do a step, but for the updates that are done already."""
        if self.clip_norm is not None:
            net.clip_grads(self.clip_norm)
        for parameter, slots in begun.parameters:
            if parameter not in updated:
                self._update(parameter.value, parameter.grad, slots, begun.learning_rate, self._decay_of(parameter))
        if begun.parameters:
            backend_of(begun.parameters[0][0].value).finish_updates()
        for parameter, _ in begun.parameters:
            if parameter.constraint is not None:
                parameter.constraint(parameter.value)
            parameter.mark_changed()
        self.iterations += 1

    def _decay_of(self, parameter: TrainedParameter) -> float:
        return self.weight_decay if parameter.decays else 0.0

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments and the name of the class, JSON-able."""
        schedule = self.schedule
        if isinstance(schedule, AbstractSchedule):
            return {**describe(self), "learning_rate": schedule.get_config()}
        return {**describe(self), "learning_rate": self._learning_rate if schedule is None else {CLASS: FUNCTION}}

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs; arrays are copies."""
        state = {name: {slot: arrays.host_copy(array) for slot, array in slots.items()} for name, slots in self.state.items()}
        return {"config": self.get_config(), "iterations": self.iterations, "state": state}

    def load_state_dict(self, d: dict[str, Any]) -> None:
        """Take over configuration, step count and state of an optimiser of the same class.

        Raises
        ------
        TypeError, ValueError: `d` is not what `state_dict` of this class returns; nothing is changed then. A schedule that is a
        plain function is not in `d`: this optimiser's own is kept, and must be there.
        """
        self.adopt(self.checked_copy(d))

    def adopt(self, other: Self) -> None:
        """Take over configuration, step count and state of another optimiser of the same class."""
        vars(self).update({**vars(other), "progress": self.progress})

    def checked_copy(self, d: Any) -> Self:
        """Return a new optimiser in the state of `d`; see `load_state_dict` for the errors."""
        for name in ("config", "iterations", "state"):
            if not isinstance(d, dict) or name not in d:
                _validate.fail_value("d", "what state_dict() of an optimiser returns", f"nothing for {name!r}")
        config = dict(_validate.instance("config", d["config"], dict, "a dict"))
        if config.get("learning_rate") == {CLASS: FUNCTION}:
            if self.schedule is None:
                _validate.fail_value("learning_rate", "the function that was used before", self._learning_rate)
            config["learning_rate"] = self.schedule
        fresh: Self = make("optimizer", config, (type(self),))
        fresh.iterations = _validate.integer("iterations", d["iterations"], 0)
        for name, slots in _validate.instance("state", d["state"], dict, "a dict").items():
            _validate.instance("state", slots, dict, "a dict of dicts")
            fresh.state[name] = {
                _validate.choice("state", slot, self._all_slots()): _validate.float_array(
                    f"state of {name}", array, min_ndim=0
                ).copy()
                for slot, array in slots.items()
            }
        return fresh

    def _slots_of(self, parameter: TrainedParameter, names: Sequence[str]) -> Slots:
        """Return the parameter's state, zeros at first, with arrays of those names that fit its value."""
        value = parameter.value
        slots = self.state.setdefault(parameter.name, {})
        for name in names:
            array = slots.get(name)
            if array is None:
                slots[name] = backend_of(value).zeros(value.shape, value.dtype)
            elif not _fits(array, value):
                slots[name] = _fitting(f"{name} of {parameter.name}", array, value)
        return slots

    @abstractmethod
    def _all_slots(self) -> tuple[str, ...]:
        """Return the names of the arrays that a parameter may have."""

    def _slot_names(self) -> tuple[str, ...]:
        """Return the names of the arrays that a step needs for each parameter."""
        return self._all_slots()

    @abstractmethod
    def _update(self, value: Array, grad: Array, slots: Slots, learning_rate: float, weight_decay: float) -> None:
        """Update one parameter in place."""


class Rule(NamedTuple):
    """What the updates of several parameters in a step have in common."""

    kind: UpdateKind
    slot_names: tuple[str, ...]
    rates: Array


class AbstractFusable(AbstractOptimizer):
    """An optimiser whose rule backends know: they can apply it where they compute a gradient, which is then not kept."""

    def backward_and_step(self, net: Network, backward: Backward, gradient: Array) -> None:
        """Do ``backward(gradient)``, `step` and ``net.zero_grad()``, with the updates inside the backward pass where possible.

        Not possible with clipping, which needs all gradients first; for a parameter whose gradient comes from more than one
        place (`needs_grad`, or one that stands in two layers); and in a class from elsewhere, which may update otherwise.

        Raises
        ------
        TypeError, ValueError: as `step`; nothing is changed then.
        """
        if self.clip_norm is not None or type(self) not in OPTIMIZERS:
            super().backward_and_step(net, backward, gradient)
            return
        begun = self._begin(net)
        tied = len(begun.parameters) < len(_trained(net))
        staying = self._rule(begun.learning_rate, 0.0, net.dtype)
        decaying = self._rule(begun.learning_rate, self.weight_decay, net.dtype) if self.weight_decay else staying
        updates = {
            parameter: self._as_update(parameter.value, slots, decaying if parameter.decays else staying)
            for parameter, slots in begun.parameters
            if not (tied or parameter.needs_grad)
        }
        offered = frozenset(updates)
        try:
            backward(gradient, updates=updates)
            self._finish(net, begun, offered - updates.keys())
        finally:
            backend_of(gradient).finish_updates(forget=True)  # there are some after an error alone
            net.zero_grad()

    @abstractmethod
    def _rates(self, learning_rate: float, decay: float) -> tuple[UpdateKind, tuple[float, ...]]:
        """Return kind and rates of an `Update`; decay is the product of weight decay and learning rate."""

    def _rule(self, learning_rate: float, weight_decay: float, dtype: np.dtype[Any]) -> Rule:
        kind, rates = self._rates(learning_rate, weight_decay * learning_rate)
        return Rule(kind, self._slot_names(), np.array(rates, dtype))

    def _as_update(self, value: Array, slots: Slots, rule: Rule) -> Update:
        """Return what `_update` does, as backends take it."""
        kind, names, rates = rule
        first, second, *_ = *[slots[name] for name in names], value, value
        return Update(kind, value, first, second, rates)

    def _update(self, value: Array, grad: Array, slots: Slots, learning_rate: float, weight_decay: float) -> None:
        rule = self._rule(learning_rate, weight_decay, value.dtype)
        backend_of(value).update_later(self._as_update(value, slots, rule), grad)


class SGD(AbstractFusable):
    """Stochastic gradient descent with momentum. Parameters as in `AbstractOptimizer`, and:

    Parameters
    ----------
    momentum : float in [0, 1]
    nesterov : bool
    """

    def __init__(
        self,
        learning_rate: float | Schedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip_norm)
        self.momentum = _validate.real("momentum", momentum, 0.0, 1.0)
        self.nesterov = _validate.boolean("nesterov", nesterov)

    def _all_slots(self) -> tuple[str, ...]:
        return ("velocity",)

    def _slot_names(self) -> tuple[str, ...]:
        return self._all_slots() if self.momentum else ()

    def _rates(self, learning_rate: float, decay: float) -> tuple[UpdateKind, tuple[float, ...]]:
        if not self.momentum:
            return UpdateKind.SGD, (learning_rate, decay)
        return UpdateKind.NESTEROV if self.nesterov else UpdateKind.MOMENTUM, (learning_rate, decay, self.momentum)


class AbstractAdam(AbstractFusable):
    """What Adam and AdamW share: they differ in the default of `weight_decay`. Parameters as in `AbstractOptimizer`, and:

    Parameters
    ----------
    beta_1, beta_2 : float in [0, 1)
        Decay rates of the running means of g and g**2.
    epsilon : float > 0
    """

    def __init__(
        self,
        learning_rate: float | Schedule,
        beta_1: float,
        beta_2: float,
        epsilon: float,
        weight_decay: float,
        clip_norm: float | None,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip_norm)
        self.beta_1 = _validate.real("beta_1", beta_1, 0.0, 1.0, open_high=True)
        self.beta_2 = _validate.real("beta_2", beta_2, 0.0, 1.0, open_high=True)
        self.epsilon = _validate.real("epsilon", epsilon, 0.0, open_low=True)

    def _all_slots(self) -> tuple[str, ...]:
        return ("mean", "variance")

    def _rates(self, learning_rate: float, decay: float) -> tuple[UpdateKind, tuple[float, ...]]:
        t = self.iterations + 1
        step_size = learning_rate * math.sqrt(1.0 - self.beta_2**t) / (1.0 - self.beta_1**t)
        return UpdateKind.ADAM, (step_size, decay, 1.0 - self.beta_1, 1.0 - self.beta_2, self.epsilon)


class Adam(AbstractAdam):
    """Adam. Parameters as in `AbstractAdam`."""

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, clip_norm)


class AdamW(AbstractAdam):
    """Adam with decoupled weight decay by default. Parameters as in `AbstractAdam`."""

    def __init__(
        self,
        learning_rate: float | Schedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float = 0.004,
        clip_norm: float | None = None,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay, clip_norm)


OPTIMIZERS: Final = (Adam, AdamW, SGD)
NAMES: Final[dict[str, Callable[[], AbstractOptimizer]]] = {each.__name__.lower(): each for each in OPTIMIZERS}


def get(optimizer: str | AbstractOptimizer) -> AbstractOptimizer:
    """Return an optimiser given as itself, or a new one by its name: "adam", "adamw" or "sgd"."""
    if isinstance(optimizer, str):
        return NAMES[_validate.choice("optimizer", optimizer, NAMES)]()
    return own(optimizer)


def own(optimizer: Any) -> AbstractOptimizer:
    """Return `optimizer` if it is one: where a name would lose its state from call to call."""
    checked: AbstractOptimizer = _validate.instance(
        "optimizer", optimizer, AbstractOptimizer, "an optimiser such as fastdrop.optim.SGD(0.01)"
    )
    return checked


def _learning_rate(value: Any) -> float | Schedule:
    """Return a learning rate given as a number, a schedule, or a schedule's description."""
    if isinstance(value, dict):
        schedule: Schedule = make("learning_rate", value, SCHEDULES)
        return schedule
    return value if callable(value) else _validate.real("learning_rate", value, 0.0)


def _fits(array: Any, value: Array) -> bool:
    """Return whether an array of state can be used as it is."""
    return (
        type(array) is type(value)
        and array.dtype == value.dtype
        and array.shape == value.shape
        and (arrays.is_device(array) or bool(array.flags.carray))
    )


def _fitting(name: str, array: Any, value: Array) -> Array:
    """Return a copy of an array of state that can be used; an error under that name unless it has the value's dtype and shape."""
    if not (isinstance(array, np.ndarray) or arrays.is_device(array)) or array.dtype != value.dtype:
        _validate.fail_type(name, f"an array of dtype {value.dtype}", getattr(array, "dtype", type(array).__name__))
    _validate.exact_shape(name, array, value.shape)
    return backend_of(value).copy_of(array)
