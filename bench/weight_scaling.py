"""How far inference with one scaled network is from the means over all thinned ones: a table and a picture.

Networks with 12 units that are dropped are trained on the handwritten digits, by each rate of dropout; then all 2**12 masks are
enumerated, each with its probability. The distance of two distributions is half the sum of absolute differences, here its mean
and largest value over the test images. tests/test_weight_scaling.py proves where it is 0.

python bench/weight_scaling.py
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from results import COMMENT, Row, read

import fastdrop as fd
from fastdrop._types import Array

FOLDER = Path(__file__).parent / "results"
NAME = "weight_scaling"
UNITS = 12
MASKS = np.array(list(itertools.product([False, True], repeat=UNITS)))
RATES = tuple(n / 10 for n in range(1, 10))
EPOCHS, BATCH, LEARNING_RATE, SEED = 60, 64, 0.005, 0
INCHES, DOTS_PER_INCH = (9.6, 4.0), 150
COLOURS = ("#cc3311", "#0077bb", "#009988", "#ee7733")
"""Colours that differ for everyone (Paul Tol's "vibrant" scheme)."""
MEANS = ("arithmetic", "geometric")

Layers = Callable[[float], list[Any]]
NETWORKS: dict[str, Layers] = {
    "linear": lambda rate: [fd.Dense(12, "relu"), fd.Dropout(rate), fd.Dense(10)],
    "softmax regression": lambda rate: [fd.Dense(12, "relu"), fd.Dropout(rate), fd.Dense(10)],
    "a hidden relu layer": lambda rate: [fd.Dense(12, "relu"), fd.Dropout(rate), fd.Dense(64, "relu"), fd.Dense(10)],
    "two dropped layers": lambda rate: [
        fd.Dense(6, "relu"), fd.Dropout(rate), fd.Dense(64, "relu"),
        fd.Dense(6, "relu"), fd.Dropout(rate), fd.Dense(64, "relu"), fd.Dense(10),
    ],
}  # fmt: skip
"""Each with 12 units that are dropped, of one layer or of two; "linear" has no softmax and is trained by squared error."""


def trained(name: str, rate: float, data: fd.data.Dataset) -> fd.Sequential:
    net = fd.Sequential(NETWORKS[name](rate), input_shape=data.x_train.shape[1:], seed=SEED, dtype="float64")
    linear = name == "linear"
    net.fit(
        data.x_train,
        np.eye(data.classes)[data.y_train] if linear else data.y_train,
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer=fd.optim.Adam(LEARNING_RATE),
        loss="mean_squared_error" if linear else "softmax_cross_entropy",
        metrics=(),
        progress=False,
    )
    return net


def thinned(layers: Iterable[Any], x: Array, keep: Array) -> Array:
    """Return the outputs of a thinned network, in plain NumPy."""
    at = 0
    for layer in layers:
        if isinstance(layer, fd.Dropout):
            units = x.shape[1]
            x, at = np.where(keep[at : at + units], x / layer.keep_prob((1, units)), 0.0), at + units
        else:
            z = x @ layer.weight.value + layer.bias.value
            x = np.maximum(z, 0.0) if layer.activation == "relu" else z
    return x


def log_softmax(z: Array) -> Array:
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def all_means(net: fd.Sequential, x: Array) -> dict[str, Array]:
    """Return the means of the outputs, or of their distributions, over all thinned networks."""
    first = next(i for i, layer in enumerate(net.layers) if isinstance(layer, fd.Dropout))
    x = thinned(net.layers[:first], x, MASKS[0])
    keep_prob = net.layers[first].keep_prob((1, UNITS))
    arithmetic: Any = 0.0
    logs: Any = 0.0
    for keep in MASKS:
        share = keep_prob ** keep.sum() * (1 - keep_prob) ** (UNITS - keep.sum())
        outputs = thinned(net.layers[first:], x, keep)
        if net.output_kind == "values":
            arithmetic = arithmetic + share * outputs
        else:
            log_distribution = log_softmax(outputs)
            arithmetic, logs = arithmetic + share * np.exp(log_distribution), logs + share * log_distribution
    if net.output_kind == "values":
        return {"arithmetic": arithmetic}
    return {"arithmetic": arithmetic, "geometric": np.exp(log_softmax(logs))}


def compare(name: str, rate: float, data: fd.data.Dataset) -> Row:
    """Return a row of the table."""
    net = trained(name, rate, data)
    x = data.x_test.astype(np.float64)
    scaled = net.predict(x) if net.output_kind == "values" else net.predict_proba(x)
    row: Row = {"network": name, "rate": rate}
    means = all_means(net, x)
    for mean, outputs in means.items():
        distance = 0.5 * np.abs(scaled - outputs).sum(axis=1)
        row |= {f"{mean}_mean_distance": float(f"{distance.mean():.3g}"), f"{mean}_max_distance": float(f"{distance.max():.3g}")}
    for kind, outputs in {"scaled": scaled, **means}.items():
        row[f"{kind}_error_percent"] = round(100 * float((outputs.argmax(axis=1) != data.y_test).mean()), 2)
    return row


def write(rows: list[Row], path: Path) -> None:
    facts = {
        "package": fd.__version__,
        "data": f"handwritten digits, {EPOCHS} epochs of Adam({LEARNING_RATE}), batch {BATCH}, seed {SEED}",
        "distance": "half the sum of absolute differences between inference and the mean over all 2**12 thinned networks",
    }
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(f"{COMMENT}{name}: {value}\n" for name, value in facts.items())
        writer = csv.DictWriter(file, max(rows, key=len), restval="")
        writer.writeheader()
        writer.writerows(rows)


def plot(rows: list[Row], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    figure.suptitle("Inference with the scaled network against the mean over all 4096 thinned ones", fontsize=11)
    for axes, mean in zip(figure.subplots(1, 2, sharey=True), MEANS, strict=True):
        for colour, name in zip(COLOURS, NETWORKS, strict=True):
            points = [(row["rate"], row[f"{mean}_mean_distance"]) for row in rows if row["network"] == name]
            if points[0][1] != "":
                axes.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3, label=name)
        axes.set(title=f"{mean} mean", xlabel="rate")
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    left, _ = figure.axes
    left.set_ylabel("distance, mean over test images")
    figure.legend(handles=left.lines, loc="outside lower center", ncols=len(NETWORKS), frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, help="folder of the CSV file and of the picture")
    folder = parser.parse_args().output
    data = fd.data.load("digits").flat()
    folder.mkdir(parents=True, exist_ok=True)
    table = folder / f"{NAME}.csv"
    write([compare(name, rate, data) for name in NETWORKS for rate in RATES], table)
    plot(read(table), folder / f"{NAME}.png")
    print(table.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
