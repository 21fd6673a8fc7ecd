"""Callbacks of `fit`, with Keras's names. Their state is part of every checkpoint: a resumed run decides as one never stopped."""

from fastdrop.callbacks.base import Callback, LambdaCallback
from fastdrop.callbacks.files import CSVLogger, ModelCheckpoint
from fastdrop.callbacks.monitor import EarlyStopping, ReduceLROnPlateau
from fastdrop.callbacks.rates import DropoutScheduler, LearningRateScheduler

__all__ = [
    "CSVLogger",
    "Callback",
    "DropoutScheduler",
    "EarlyStopping",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
]
