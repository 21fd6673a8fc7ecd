"""What is measured: each case has its data, its least cost, and a check of what a library makes of it."""

from __future__ import annotations

from fastdrop.benchmark.cases.base import AbstractCase, Prepare, Work
from fastdrop.benchmark.cases.dense import Dense, Product
from fastdrop.benchmark.cases.dropout import Dropout, ScaledCopy
from fastdrop.benchmark.cases.network import Architecture, Fit, Inference, Serving, Step

__all__ = [
    "AbstractCase",
    "Architecture",
    "Dense",
    "Dropout",
    "Fit",
    "Inference",
    "Prepare",
    "Product",
    "ScaledCopy",
    "Serving",
    "Step",
    "Work",
]
