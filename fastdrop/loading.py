"""Reading networks from files."""

from __future__ import annotations

from fastdrop import _validate
from fastdrop._files import read, reading
from fastdrop.sequential import Sequential
from fastdrop.serialization import CHECKPOINT, PathLike, restore_network, weights_of


def load(path: PathLike) -> Sequential:
    """Return the network in a file that ``net.save`` or `save_checkpoint` wrote.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    net : Sequential
        With weights, seed, counters, output kind and labels as they were.

    Raises
    ------
    MissingFileError: no such file. FileFormatError: truncated, damaged, of another program or of a newer version.
    """
    path = _validate.path("path", path)
    container = read(path)
    with reading(path):
        facts = container.facts["network"] if container.kind == CHECKPOINT else container.facts
        net = Sequential.from_config(facts["config"])
        restore_network(net, facts, weights_of(container))
    return net
