"""Error types: each derives from `FastdropError` and from the built-in exception that fits."""


class FastdropError(Exception):
    """Base class of every error that fastdrop raises on purpose."""


class ArgumentTypeError(FastdropError, TypeError):
    """An argument has the wrong type, kind or dtype."""


class ArgumentValueError(FastdropError, ValueError):
    """An argument has the right type but a value or shape that is not allowed."""


class FileFormatError(FastdropError, ValueError):
    """A file is truncated, malformed, or not what its reader expects."""


class MissingFileError(FastdropError, FileNotFoundError):
    """A file or folder that was named does not exist."""


class OutputError(FastdropError, OSError):
    """A file cannot be written where it was asked for."""


class StaleBackwardError(FastdropError, RuntimeError):
    """A backward pass was called after the parameters of its forward pass changed."""


class StateError(FastdropError, RuntimeError):
    """A network is not yet in the state that a call needs (not built, no output kind, ...)."""


class BackendError(FastdropError, RuntimeError):
    """A backend cannot run here."""


class MissingDependencyError(FastdropError, ImportError):
    """An optional dependency is needed and not installed."""


class AllDroppedWarning(UserWarning):
    """A mask drops everything (rate 1): outputs and gradients are exact zeros."""
