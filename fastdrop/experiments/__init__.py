"""Experiments: training described by a few numbers, sweeps over rates, and the search for good ones."""

from fastdrop.experiments.recipe import Recipe
from fastdrop.experiments.space import SearchSpace
from fastdrop.experiments.sweep import Sweep, sweep
from fastdrop.experiments.tune import Trial, Tuning, tune

__all__ = ["Recipe", "SearchSpace", "Sweep", "Trial", "Tuning", "sweep", "tune"]
