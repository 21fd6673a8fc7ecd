"""The libraries by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Final, NamedTuple

from fastdrop import _validate
from fastdrop.benchmark.peers.base import AbstractPeer


class Place(NamedTuple):
    """Where an adapter is: module and class, and the packages that it imports."""

    module: str
    kind: str
    packages: tuple[str, ...]


OWN: Final = "fastdrop"
PEERS: Final = {
    OWN: Place("own", "Fastdrop", ()),
    "NumPy": Place("numpy", "NumPy", ("numpy",)),
    "torch eager": Place("torch", "TorchEager", ("torch",)),
    "torch.compile": Place("torch", "TorchCompile", ("torch",)),
    "JAX": Place("jax", "Jax", ("jax",)),
    "Keras": Place("keras", "Keras", ("keras", "tensorflow")),
    "onnxruntime": Place("onnxruntime", "OnnxRuntime", ("onnxruntime", "onnx")),
    "scikit-learn": Place("sklearn", "ScikitLearn", ("sklearn",)),
}


def installed() -> list[str]:
    """Return the names of those that can be imported."""
    return [name for name, place in PEERS.items() if all(find_spec(package) is not None for package in place.packages)]


@cache
def peer(name: str) -> AbstractPeer:
    """Return the library of that name; a single object each.

    Raises
    ------
    ValueError: no such library. ImportError: it is not installed.
    """
    place = PEERS[_validate.choice("peer", name, PEERS)]
    made: AbstractPeer = getattr(import_module(f"fastdrop.benchmark.peers.{place.module}"), place.kind)()
    return made


def with_threads(names: Sequence[str], threads: int) -> list[AbstractPeer]:
    """Return those of the libraries that can use so many threads, set to do so."""
    return [library for library in map(peer, names) if library.set_threads(threads)]
