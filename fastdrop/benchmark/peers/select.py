"""The libraries by name."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Final

from fastdrop import _validate
from fastdrop.benchmark.peers.base import AbstractPeer

OWN: Final = "fastdrop"
PEERS: Final = {
    OWN: "own.Fastdrop",
    "NumPy": "numpy.NumPy",
    "torch eager": "torch.TorchEager",
    "torch.compile": "torch.TorchCompile",
    "JAX": "jax.Jax",
    "Keras": "keras.Keras",
    "onnxruntime": "onnxruntime.OnnxRuntime",
    "scikit-learn": "sklearn.ScikitLearn",
}
"""Module and class of each library; the modules of others are called as what they import."""


def installed() -> list[str]:
    """Return the names of those that can be imported."""
    return [name for name, place in PEERS.items() if name == OWN or find_spec(place.partition(".")[0]) is not None]


@cache
def peer(name: str) -> AbstractPeer:
    """Return the library of that name; a single object each.

    Raises
    ------
    ValueError: no such library. ImportError: it is not installed.
    """
    module, _, kind = PEERS[_validate.choice("peer", name, PEERS)].partition(".")
    made: AbstractPeer = getattr(import_module(f"fastdrop.benchmark.peers.{module}"), kind)()
    return made


def with_threads(names: Sequence[str], threads: int) -> list[AbstractPeer]:
    """Return those of the libraries that can use so many threads, set to do so."""
    return [library for library in map(peer, names) if library.set_threads(threads)]
