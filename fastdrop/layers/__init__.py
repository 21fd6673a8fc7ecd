"""Layers: Dense, Dropout, Activation, Flatten, Residual; each can be called alone, as in Keras."""

from fastdrop.layers.activation import Activation
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.dense import Dense
from fastdrop.layers.dropout import Dropout
from fastdrop.layers.flatten import Flatten
from fastdrop.layers.parameter import Parameter
from fastdrop.layers.residual import Residual

__all__ = ["AbstractLayer", "Activation", "Dense", "Dropout", "Flatten", "Parameter", "Residual"]
