"""Experiments: training described by a few numbers, sweeps over rates, and the search for good ones."""

from fastdrop.experiments.recipe import Recipe
from fastdrop.experiments.sweep import Sweep, sweep

__all__ = ["Recipe", "Sweep", "sweep"]
