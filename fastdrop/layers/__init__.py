"""Layers: Dense, Conv2D, pooling, the dropout family, Activation, Flatten, Residual; each can be called alone, as in Keras."""

from fastdrop.layers.activation import Activation
from fastdrop.layers.alpha_dropout import AlphaDropout
from fastdrop.layers.augmentation import RandomCrop, RandomFlip
from fastdrop.layers.base import AbstractLayer
from fastdrop.layers.conv2d import Conv2D
from fastdrop.layers.dense import Dense
from fastdrop.layers.drop_block import DropBlock2D
from fastdrop.layers.drop_connect import DropConnect
from fastdrop.layers.drop_path import DropPath
from fastdrop.layers.dropout import Dropout
from fastdrop.layers.flatten import Flatten
from fastdrop.layers.noise import GaussianDropout, GaussianNoise
from fastdrop.layers.parameter import Parameter
from fastdrop.layers.pooling import AvgPool2D, GlobalAveragePool2D, MaxPool2D
from fastdrop.layers.residual import Residual
from fastdrop.layers.spatial_dropout import SpatialDropout1D, SpatialDropout2D, SpatialDropout3D

__all__ = [
    "AbstractLayer",
    "Activation",
    "AlphaDropout",
    "AvgPool2D",
    "Conv2D",
    "Dense",
    "DropBlock2D",
    "DropConnect",
    "DropPath",
    "Dropout",
    "Flatten",
    "GaussianDropout",
    "GaussianNoise",
    "GlobalAveragePool2D",
    "MaxPool2D",
    "Parameter",
    "RandomCrop",
    "RandomFlip",
    "Residual",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
]
