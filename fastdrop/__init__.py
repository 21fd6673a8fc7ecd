"""Fast dropout networks on ordinary CPUs. NumPy is loaded by the first name that needs it, Numba by the first kernel."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from fastdrop._version import __version__

_MODULES = ("activations", "callbacks", "constraints", "data", "init", "losses", "metrics", "optim", "regularizers", "schedules")

_HOME = {
    "Activation": "layers",
    "AlphaDropout": "layers",
    "AvgPool2D": "layers",
    "Conv2D": "layers",
    "Dense": "layers",
    "DropBlock2D": "layers",
    "DropConnect": "layers",
    "DropPath": "layers",
    "Dropout": "layers",
    "FastdropError": "errors",
    "Flatten": "layers",
    "GaussianDropout": "layers",
    "GaussianNoise": "layers",
    "GlobalAveragePool2D": "layers",
    "Key": "rng",
    "Mask": "mask",
    "MaxNorm": "constraints",
    "MaxPool2D": "layers",
    "RandomCrop": "layers",
    "RandomFlip": "layers",
    "Recipe": "experiments",
    "Residual": "layers",
    "SearchSpace": "experiments",
    "Sequential": "sequential",
    "SpatialDropout1D": "layers",
    "SpatialDropout2D": "layers",
    "SpatialDropout3D": "layers",
    "conv2d": "functional",
    "dense": "functional",
    "dropout": "functional",
    "get_num_threads": "_config",
    "load": "loading",
    "load_checkpoint": "serialization",
    "save_checkpoint": "serialization",
    "set_dropout": "rates",
    "set_num_threads": "_config",
    "show_config": "_config",
    "sweep": "experiments",
    "tune": "experiments",
    "warmup": "warm",
    "widen": "rates",
}

__all__ = ["__version__", *sorted([*_MODULES, *_HOME])]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"fastdrop.{name}")
    if name in _HOME:
        value = getattr(import_module(f"fastdrop.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'fastdrop' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
