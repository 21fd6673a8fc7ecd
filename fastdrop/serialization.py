"""Writing networks and checkpoints, and reading checkpoints: safetensors files, replaced in one step.

Tensors of parameters have the parameters' names. Tensors of a checkpoint's optimiser and callbacks start with "training/".
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from fastdrop import _validate, optim
from fastdrop._configurable import CLASS
from fastdrop._files import Container, Facts, Tensors, pack, read, reading, unpack, write
from fastdrop._network import Network
from fastdrop.errors import FileFormatError
from fastdrop.inference import OUTPUT_KINDS
from fastdrop.optim import AbstractOptimizer
from fastdrop.progress import Progress

PathLike: TypeAlias = str | os.PathLike[str]

MODEL: Final = "model"
CHECKPOINT: Final = "checkpoint"
TRAINING: Final = "training"
STRENGTHS: Final = ("rate", "stddev")
"""Arguments of layers that say how much is dropped, or how strong the noise is; they may change from step to step."""
BEGINNINGS: Final = ("name", "input_shape", *STRENGTHS)
"""Arguments of layers that may differ between a checkpoint's network and the one that goes on."""
MAX_SEED: Final = (1 << 64) - 1
MAX_STEPS: Final = 1 << 32


def save(net: Network, path: PathLike) -> None:
    """Write a network: weights, architecture, output kind, labels, dtype, seed and counters.

    Parameters
    ----------
    net : Sequential
    path : str or path
        A file that exists is replaced, in one step.

    Raises
    ------
    OutputError: the file cannot be written; one that existed is as it was.
    """
    write(_validate.path("path", path), Container(MODEL, net.state_dict(), network_facts(net)))


def save_checkpoint(path: PathLike, net: Network, optimizer: AbstractOptimizer) -> None:
    """Write all that `fit` needs to go on exactly here: network, optimiser, and where the last run of `fit` stands.

    Parameters
    ----------
    path : str or path
        A file that exists is replaced, in one step.
    net : Sequential
    optimizer : AbstractOptimizer
        The one that the network is trained with.

    Raises
    ------
    TypeError: `optimizer` is none. OutputError: the file cannot be written; one that existed is as it was.

    Notes
    -----
    May be called at any time: in any hook of a callback, after `fit` has ended or was interrupted, or without `fit`.
    """
    path = _validate.path("path", path)
    progress = optim.own(optimizer).progress or Progress()
    tensors = net.state_dict()
    training = {"optimizer": optimizer.state_dict(), "progress": progress.to_facts()}
    facts = {"network": network_facts(net), TRAINING: pack(training, TRAINING, tensors)}
    write(path, Container(CHECKPOINT, tensors, facts))


def load_checkpoint(path: PathLike, net: Network, optimizer: AbstractOptimizer) -> None:
    """Put network and optimiser into the state of a checkpoint.

    Parameters
    ----------
    path : str or path
    net : Sequential
        Of the checkpoint's architecture; weights, which of them are frozen, rates of dropout, seed, counters, output kind and
        labels are replaced.
    optimizer : AbstractOptimizer
        Of the checkpoint's class; its configuration and state are replaced.

    Raises
    ------
    MissingFileError: no such file. FileFormatError: damaged, or of another network or optimiser. Nothing is changed then.
    """
    optim.own(optimizer)
    read_checkpoint(path).restore(net, optimizer)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint file holds; restored in one step after all of it has been checked."""

    path: Path
    weights: Tensors
    network: Facts
    optimizer: Facts
    progress: Progress

    def make_optimizer(self) -> AbstractOptimizer:
        """Return a new optimiser of the checkpoint's class, to be restored."""
        with reading(self.path):
            config = _validate.instance("config", self.optimizer["config"], dict, "a dict")
            return optim.get(_validate.instance(CLASS, config[CLASS], str, "a string").lower())

    def restore(self, net: Network, optimizer: AbstractOptimizer) -> None:
        """Put network and optimiser into the checkpoint's state."""
        net.parameters()  # a network that has none yet is no fault of the file
        with reading(self.path):
            fresh = optimizer.checked_copy(self.optimizer)
            _check_state(fresh, self.weights)
            restore_network(net, self.network, self.weights)
        optimizer.adopt(fresh)
        optimizer.progress = self.progress


def read_checkpoint(path: PathLike) -> Checkpoint:
    """Read a checkpoint file; see `load_checkpoint` for the errors."""
    path = _validate.path("path", path)
    container = read(path)
    if container.kind != CHECKPOINT:
        raise FileFormatError(f"{path}: must be a checkpoint, got a {container.kind}")
    with reading(path):
        training = unpack(_validate.instance(TRAINING, container.facts[TRAINING], dict, "a dict"), container.tensors)
        network = _validate.instance("network", container.facts["network"], dict, "a dict")
        optimizer = _validate.instance("optimizer", training["optimizer"], dict, "a dict")
        progress = Progress.from_facts(_validate.instance("progress", training["progress"], dict, "a dict"))
    return Checkpoint(path, weights_of(container), network, optimizer, progress)


def weights_of(container: Container) -> Tensors:
    """Return the parameters in a model or checkpoint."""
    return {name: array for name, array in container.tensors.items() if not name.startswith(f"{TRAINING}/")}


def network_facts(net: Network) -> Facts:
    """Return what is known of a network beside its parameters.

    Raises
    ------
    TypeError, ValueError: ``net.output_kind`` or ``net.labels`` was set to something else than it may be.
    """
    return {
        "config": net.get_config(),
        "seed": net.seed,
        "dtype": str(net.dtype),
        "step_count": net.step_count,
        "epochs_completed": net.epochs_completed,
        "output_kind": _output_kind(net.output_kind),
        "labels": _labels(net.labels),
    }


def restore_network(net: Network, facts: Facts, weights: Tensors) -> None:
    """Put a network of the same architecture into the state that `network_facts` described, after checking all of it."""
    if facts["dtype"] != str(net.dtype):
        _validate.fail_value("dtype", f"that of the network ({net.dtype})", facts["dtype"])
    seed = _validate.integer("seed", facts["seed"], 0, MAX_SEED)
    step_count = _validate.integer("step_count", facts["step_count"], 0, MAX_STEPS)
    epochs_completed = _validate.integer("epochs_completed", facts["epochs_completed"], 0, MAX_STEPS)
    output_kind, labels = _output_kind(facts["output_kind"]), _labels(facts["labels"])
    config = _validate.instance("config", facts["config"], dict, "a dict")
    _check_same("config", _architecture(config), _architecture(json.loads(json.dumps(net.get_config()))))
    strengths = net.checked_strengths(dict(_strengths(config)))
    parameters = {parameter.name: parameter for parameter in net.parameters()}
    frozen = _validate.sequence("config.frozen", config["frozen"], "a list of names")
    for name in frozen:
        _validate.choice("config.frozen", name, parameters)
    net.load_state_dict(weights)
    net.set_strengths(strengths)
    for name, parameter in parameters.items():
        parameter.trainable = name not in frozen
    net.seed = seed
    net.step_count = step_count
    net.epochs_completed = epochs_completed
    net.output_kind = output_kind
    net.labels = labels


def _architecture(config: Facts) -> Facts:
    """Return a network's description without what a checkpoint replaces, and what only a new network is made with."""
    return {name: value for name, value in _without_beginnings(config).items() if name not in ("seed", "frozen", "built_shape")}


def _without_beginnings(value: Any) -> Any:
    """Return a description without names, rates and what starting values are drawn from, at any depth."""
    if isinstance(value, dict):
        left = {name: entry for name, entry in value.items() if name not in BEGINNINGS and not name.endswith("_initializer")}
        return {name: _without_beginnings(entry) for name, entry in left.items()}
    return [_without_beginnings(entry) for entry in value] if isinstance(value, list) else value


def _check_same(name: str, got: Any, wanted: Any) -> None:
    """Raise unless two descriptions are the same; the error names the first place where they are not."""
    if isinstance(got, dict) and isinstance(wanted, dict) and got.keys() == wanted.keys():
        for key, value in got.items():
            _check_same(f"{name}.{key}", value, wanted[key])
    elif isinstance(got, list) and isinstance(wanted, list):
        if len(got) != len(wanted):
            _validate.fail_value(name, f"of {len(wanted)} entries, as that of the network", len(got))
        for i, value in enumerate(got):
            _check_same(f"{name}.{i}", value, wanted[i])
    elif got != wanted:
        _validate.fail_value(name, f"that of the network ({wanted})", got)


def _strengths(config: Facts, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of the rates and standard deviations in a network's description, as ``net.strengths`` names them."""
    for i, layer in enumerate(config["layers"]):
        yield from ((f"{path}{i}.{name}", layer[name]) for name in STRENGTHS if name in layer)
        if "layers" in layer:
            yield from _strengths(layer, f"{path}{i}.")


def _output_kind(output_kind: Any) -> str | None:
    return None if output_kind is None else _validate.choice("output_kind", output_kind, OUTPUT_KINDS)


def _labels(labels: Any) -> list[str] | None:
    if labels is None:
        return None
    return [str(_validate.instance("labels", label, str, "strings")) for label in _validate.sequence("labels", labels)]


def _check_state(optimizer: AbstractOptimizer, weights: Mapping[str, Any]) -> None:
    """Raise unless the optimiser's arrays are of the network's parameters."""
    for name, slots in optimizer.state.items():
        if name not in weights:
            _validate.fail_value("state", "of the network's parameters", name)
        for slot, array in slots.items():
            _validate.same_dtype(f"{slot} of {name}", array, weights[name].dtype, name)
            _validate.exact_shape(f"{slot} of {name}", array, weights[name].shape)
