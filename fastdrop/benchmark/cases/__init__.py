"""What is measured: each case has its data, its least cost, and a check of what a library makes of it."""

from __future__ import annotations

from fastdrop.benchmark.cases.base import AbstractCase, Prepare, Work
from fastdrop.benchmark.cases.convolution import Convolution, ImageFit, ImageNetwork, ImageStep
from fastdrop.benchmark.cases.dense import Dense, Product
from fastdrop.benchmark.cases.dropout import Dropout, ScaledCopy
from fastdrop.benchmark.cases.elementwise import Activation, Loss, Softmax
from fastdrop.benchmark.cases.masks import Decisions, Words
from fastdrop.benchmark.cases.network import Architecture, Fit, Inference, MonteCarlo, Serving, Step
from fastdrop.benchmark.cases.noise import GaussianDropout
from fastdrop.benchmark.cases.sharing import SharedDense, SharedMonteCarlo, SharedStep
from fastdrop.benchmark.cases.updates import ColumnNorms, SumOfSquares, Update

__all__ = [
    "AbstractCase",
    "Activation",
    "Architecture",
    "ColumnNorms",
    "Convolution",
    "Decisions",
    "Dense",
    "Dropout",
    "Fit",
    "GaussianDropout",
    "ImageFit",
    "ImageNetwork",
    "ImageStep",
    "Inference",
    "Loss",
    "MonteCarlo",
    "Prepare",
    "Product",
    "ScaledCopy",
    "Serving",
    "SharedDense",
    "SharedMonteCarlo",
    "SharedStep",
    "Softmax",
    "Step",
    "SumOfSquares",
    "Update",
    "Words",
    "Work",
]
