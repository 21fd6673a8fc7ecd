"""`fastdrop predict`: classes and probabilities of new rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np

from fastdrop._files import check_writable
from fastdrop._types import Array
from fastdrop.cli.files import write_csv
from fastdrop.data import load_inputs
from fastdrop.errors import StateError
from fastdrop.loading import load

PATH = click.Path(path_type=Path)


@click.command(context_settings={"show_default": True})
@click.argument("model", type=PATH)
@click.argument("data")
@click.option(
    "-o", "--output", type=PATH, default="predictions.csv", help="Row number, class, and the probability of each class."
)
def predict(model: Path, data: str, output: Path) -> None:
    """Write the class of each row of DATA, and the probabilities of all classes, as MODEL sees them.

    DATA is what `fastdrop train` takes (the test part is used, labels are ignored), a file of IDX images, or a table or archive
    without labels.

    \b
    Examples:
      fastdrop predict model.safetensors digits
      fastdrop predict mnist.safetensors t10k-images-idx3-ubyte.gz -o classes.csv
    """
    check_writable(output)
    net = load(model)
    if net.input_shape is None:
        raise StateError(f"{model}: this network knows no input shape, so no rows can be read for it")
    x = load_inputs(data, net.input_shape)
    probabilities = by_class(net.predict_proba(x))
    labels = net.labels or [str(number) for number in range(probabilities.shape[1])]
    if len(labels) != probabilities.shape[1]:
        raise StateError(f"{model}: {len(labels)} labels for {probabilities.shape[1]} outputs")
    write_csv(output, ["row", "class", *labels], _rows(probabilities, labels))
    click.echo(f"{len(x)} rows predicted: {output}")


def by_class(probabilities: Array) -> Array:
    """Return the probabilities as (rows, classes); a single column is that of the second of two classes."""
    if probabilities.ndim != 2:
        raise StateError(f"a network with outputs of shape {probabilities.shape[1:]} a row does not tell classes apart")
    return np.hstack([1 - probabilities, probabilities]) if probabilities.shape[1] == 1 else probabilities


def _rows(probabilities: Array, labels: list[str]) -> Iterator[list[object]]:
    """Yield row number, class, and probabilities, rounded to what float32 can tell."""
    for number, row in enumerate(probabilities):
        yield [number, labels[int(row.argmax())], *(f"{value:.7g}" for value in row)]
