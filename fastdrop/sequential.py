"""`Sequential`: a network of layers one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from fastdrop import _configurable, _validate, arrays, evaluation, fusion, inference, layers, monte_carlo, serialization, training
from fastdrop._configurable import Config
from fastdrop._types import Array, Shape
from fastdrop.backends.select import backend_of
from fastdrop.errors import StateError
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.chain import AbstractChain
from fastdrop.layers.conversion import weight_factors
from fastdrop.layers.dropout import DOWNSCALE, UPSCALE
from fastdrop.layers.parameter import Parameter
from fastdrop.layers.passes import InnerBackward, Pass, run_chain
from fastdrop.predictor import Predictor


class Sequential(AbstractChain):
    """A network of layers one after the other; neighbours are fused (`summary` shows it).

    Parameters
    ----------
    layers : sequence of at least one layer
        Networks and residual blocks included. The same layer object twice is an error.
    input_shape : tuple of int, optional
        Shape of a row of x; without it, the network is built by its first call.
    seed : int in [0, 2**64), optional
        Of all masks and starting values; from the operating system, and recorded, by default.
    dtype : "float32" or "float64"
        Of the parameters and of all that is computed; that of an enclosing network replaces it.

    Attributes
    ----------
    layers : tuple of layers
    seed : int; step_count, epochs_completed : int
        Training steps that were counted, and epochs of `fit`.
    output_kind : None, "logits", "sigmoid_logits", "probabilities" or "values"
        What the outputs are, as the loss that `fit` used says.
    labels : None or list of str
        Names of the classes.

    Examples
    --------
    >>> import numpy as np, fastdrop as fd
    >>> net = fd.Sequential([fd.Dropout(0.2), fd.Dense(3, activation="relu"), fd.Dense(2)], input_shape=(4,), seed=0)
    >>> net(np.zeros((5, 4), "float32")).shape
    (5, 2)
    """

    dtype: np.dtype[Any]

    def __init__(
        self, layers: Sequence[AbstractLayer], input_shape: Any = None, seed: int | None = None, dtype: Any = "float32"
    ) -> None:
        super().__init__(layers, input_shape=input_shape, seed=seed)
        self.dtype = _validate.dtype("dtype", dtype)
        self._check_dtypes(self.dtype)
        for _, layer, _ in self.walk():
            if layer.dtype is not None:
                layer.dtype = self.dtype
        self.epochs_completed = 0
        self.output_kind: str | None = None
        self.labels: list[str] | None = None
        self._plan = fusion.plan(self.layers)
        if self.input_shape is not None:
            self._fit(self.input_shape)

    def apply(self, x: Array, pass_: Pass) -> tuple[Array, InnerBackward]:
        """Return (y, backward), fused steps one after the other."""
        return run_chain(self._plan, x, pass_)

    # Training, inference and files: functions of a network, here as its methods

    fit = training.fit
    train_on_batch = training.train_on_batch
    evaluate = evaluation.evaluate
    predict = inference.predict
    predict_proba = inference.predict_proba
    predict_mc = monte_carlo.predict_mc
    save = serialization.save

    def predictor(self) -> Predictor:
        """Return a frozen snapshot with packed weights, which any number of threads may call at once: what a server holds.

        Raises
        ------
        RuntimeError: the network has no parameters yet.
        """
        on_device = any(parameter.device == "cuda" for _, parameter in self._built())
        return Predictor(self._plan, self._known_shape(), self.dtype, on_device)

    # Parameters and gradients

    def zero_grad(self) -> None:
        """Set all gradients to zero; there are none before the network is built."""
        for _, parameter in self._named or ():
            parameter.zero_grad()

    def clip_grads(self, max_norm: float) -> float:
        """Scale the gradients down together so that their norm is at most `max_norm`; return the norm before.

        The norm is that of all trainable parameters' gradients as one vector, added up in binary64. Gradients whose norm is
        not finite are left as they are.
        """
        max_norm = _validate.real("max_norm", max_norm, 0.0, open_low=True)
        grads = [parameter.grad for parameter in self._different() if parameter.trainable]
        norm = math.sqrt(sum(backend_of(grad).sum_of_squares(grad) for grad in grads))
        if max_norm < norm < math.inf:
            for grad in grads:
                grad *= max_norm / norm  # noqa: PLW2901  (in place)
        return norm

    def penalty(self) -> float:
        """Return the sum of the L1 and L2 penalties of all trainable parameters."""
        return sum((parameter.penalty() for parameter in self._different()), 0.0)

    def _different(self) -> Iterable[Parameter]:
        """Return the parameters, each once, in however many layers it stands."""
        return dict.fromkeys(parameter for _, parameter in self._built())

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters' values by name, NumPy arrays wherever the network is: {"1.weight": array, ...}."""
        return {name: arrays.host_copy(parameter.value) for name, parameter in self._built()}

    def load_state_dict(self, d: Mapping[str, Any], strict: bool = True) -> None:
        """Replace parameters by name; everything is checked before anything is changed.

        Parameters
        ----------
        d : dict of name -> array
            Of the parameters' shapes; converted to the network's dtype.
        strict : bool
            Missing and unknown names are errors; with False, they are passed over.
        """
        _validate.instance("d", d, Mapping, "a dict of arrays")
        parameters = dict(self._built())
        missing, unknown = parameters.keys() - d.keys(), d.keys() - parameters.keys()
        if _validate.boolean("strict", strict) and (missing or unknown):
            got = f"missing {sorted(missing)} and unknown {sorted(map(str, unknown))}"
            _validate.fail_value("d", "a state of this network", got)
        arrays = {name: p.checked(name, d[name]) for name, p in parameters.items() if name not in missing}
        for name, array in arrays.items():
            parameters[name].replace(array)

    # Description

    def summary(self, print_fn: Callable[[str], object] = print) -> str:
        """Print and return a table of the layers: shapes, parameters, which are fused, rates and streams."""
        counts = [(math.prod(p.shape), p.trainable) for _, p in self._built()]
        total, frozen = sum(count for count, _ in counts), sum(count for count, trainable in counts if not trainable)
        table = fusion.table(self, self._known_shape())
        text = f"{table}\n{total:,} parameters ({frozen:,} frozen), {self.dtype}, seed {self.seed}"
        print_fn(text)
        return text

    def _known_shape(self) -> Shape:
        if self.input_shape is None:
            raise StateError("this Sequential has no input shape yet: give `input_shape`, or call it first")
        return self.input_shape

    def get_config(self) -> Config:
        """Return a JSON-able description of the network without its weights: what `from_config` makes it from again."""
        built_shape = self.input_shape if self._named is not None else None
        return self.config() | {
            "seed": self.seed,
            "built_shape": None if built_shape is None else list(built_shape),
            "frozen": [name for name, parameter in self._named or () if not parameter.trainable],
        }

    @classmethod
    def from_config(cls, config: Config) -> Sequential:
        """Return a network from its description, with starting values from its seed.

        Raises
        ------
        TypeError, ValueError: not the description of a network.
        """
        _validate.instance("config", config, dict, "a dict")
        extra = ("built_shape", "frozen")
        try:
            made = _layer_from_config({key: value for key, value in config.items() if key not in extra})
        except RecursionError:
            _validate.fail_value("config", "a description that is not nested so deeply", "too many levels")
        net: Sequential = _validate.instance("config", made, cls, "the description of a Sequential")
        if config.get("built_shape") is not None:
            net.build(config["built_shape"])
        parameters = dict(net._named or ())
        for name in _validate.instance("config.frozen", config.get("frozen", []), list, "a list of names"):
            parameters[_validate.choice("config.frozen", name, parameters)].trainable = False
        return net

    def _arguments(self) -> Config:
        return super()._arguments() | {"seed": self.own_seed, "dtype": str(self.dtype)}

    def to_upscale_in_train(self) -> Sequential:
        """Return a network that infers the same, whose Dropouts all scale in training (`mode`) and not in inference.

        The weight behind a Dropout of mode "downscale_in_infer" is multiplied by its keep_prob, in binary64 and rounded once.

        Raises
        ------
        ValueError: something that a factor does not simply pass through, such as tanh or a Residual, lies between such a Dropout
        and the next Dense or Conv2D, or none follows; the error names the layer. RuntimeError: the network has no parameters yet.
        """
        state, paths = self.state_dict(), {layer: path[:-1] for path, layer, _ in self.walk()}
        for layer, factor in weight_factors(self.layers, self._known_shape(), paths).items():
            weight = state[f"{paths[layer]}.weight"]
            weight[...] = weight.astype(np.float64) * factor
        net = Sequential.from_config(_with_mode_upscale(self.get_config()))
        net.load_state_dict(state)
        net.step_count, net.epochs_completed = self.step_count, self.epochs_completed
        net.output_kind, net.labels = self.output_kind, self.labels
        return net


LAYERS: Final = Sequential, *(getattr(layers, name) for name in layers.__all__ if name not in ("AbstractLayer", "Parameter"))
"""What a description may describe."""


def _layer_from_config(config: Any) -> Any:
    """Return a layer from its description, the layers inside it first."""
    if isinstance(config, dict) and isinstance(config.get("layers"), list):
        config = config | {"layers": [_layer_from_config(layer) for layer in config["layers"]]}
    return _configurable.make("config", config, LAYERS)


def _with_mode_upscale(config: Config) -> Config:
    """Return a description in which all Dropouts scale in training."""
    changed = dict(config)
    if "layers" in changed:
        changed["layers"] = [_with_mode_upscale(layer) for layer in changed["layers"]]
    if changed.get("mode") == DOWNSCALE:
        changed["mode"] = UPSCALE
    return changed
