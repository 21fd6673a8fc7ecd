"""Rates of a whole network, and widths that make up for them."""

from __future__ import annotations

from fastdrop import _validate
from fastdrop._network import Network
from fastdrop.layers import AbstractLayer

RATE = "rate"


def dropout_rates(net: Network | AbstractLayer) -> dict[str, float]:
    """Return the rates of all dropout layers of a network by name, as ``net.set_strengths`` takes them.

    Raises
    ------
    ValueError: there is none.
    """
    rates = {name: value for name, value in net.strengths().items() if name.rpartition(".")[2] == RATE}
    if not rates:
        _validate.fail_value("net", "a network with dropout layers", f"a {type(net).__name__} without")
    return rates


def set_dropout(net: AbstractLayer, rate: float) -> None:
    """Set the rate of every dropout layer of a network.

    That are all layers with a `rate`: Dropout and its variants, AlphaDropout, GaussianDropout, DropBlock2D, DropPath and
    DropConnect, those in nested networks and residual blocks included. GaussianNoise, which has none, stays as it is.

    Parameters
    ----------
    net : Sequential or layer
    rate : float in [0, 1]
        Probability that an element is DROPPED; below 1 where there is a GaussianDropout.

    Raises
    ------
    TypeError, ValueError: bad arguments, or no dropout layer; nothing is changed then.

    Examples
    --------
    >>> import fastdrop as fd
    >>> net = fd.Sequential([fd.Dropout(0.2), fd.Residual([fd.AlphaDropout(0.5)])])
    >>> fd.set_dropout(net, 0.1)
    >>> net.layers[0].rate
    0.1
    """
    _validate.instance("net", net, AbstractLayer, "a network or layer")
    net.set_strengths(dict.fromkeys(dropout_rates(net), _validate.rate("rate", rate)))


def widen(units: int, rate: float) -> int:
    """Return ``units / (1 - rate)``, rounded to the nearest integer: as many units as make up for those that are dropped.

    Parameters
    ----------
    units : int >= 1
        Of a layer that does well without dropout.
    rate : float in [0, 1)
        Of the dropout behind it. At 1 no number of units is enough.

    Raises
    ------
    TypeError, ValueError: an argument of the wrong kind or out of range.

    Notes
    -----
    On average, ``units`` of them are then kept. Halves are rounded to the even integer. Source: Srivastava et al. 2014,
    appendix A.1: "if an n-sized layer is optimal for a standard neural net on any given task, a good dropout net should have at
    least n/p units", p their probability of retaining.

    Examples
    --------
    >>> import fastdrop as fd
    >>> fd.widen(1024, 0.5), fd.widen(1024, 0.2)
    (2048, 1280)
    """
    units = _validate.integer("units", units, 1)
    return round(units / (1.0 - _validate.real("rate", rate, 0.0, 1.0, open_high=True)))
