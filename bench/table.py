"""Make the README's tables, and the pictures of growth and skipping, from the committed results.

python bench/table.py > tables.md
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from bench_growth import of_width
from plot import plot_growth, plot_rates, sweep
from results import Row, read
from tabulate import tabulate

OWN, BARE_PEERS = "fastdrop", ("NumPy", "torch eager")
FUSED_PEERS = ("torch eager", "torch.compile", "JAX", "Keras")
LARGE, SMALL = "784-1024-1024-10", "64-64-64-10"
LARGE_RATES = "0.2/0.5/0.5"
ROOFLINE = ("dense", "dropout", "activations", "softmax", "losses", "updates", "masks")
FACTS = ("operation", "kind", "name", "rule", "activation", "rate", "backward", "batch", "fan_in", "fan_out", "rows", "columns")
FACTS += ("classes", "elements", "count", "dead")
"""What tells the kernels apart."""
LIMIT = 1.3
PRODUCTS_OF_BACKWARD = ("forward", "dx", "dweight")


class Results:
    """The rows of one suite."""

    def __init__(self, folder: Path, suite: str) -> None:
        self.rows = read(folder / f"{suite}.csv")

    def pick(self, **wanted: Any) -> list[Row]:
        """Return the rows with these facts."""
        return [row for row in self.rows if all(row.get(name) == value for name, value in wanted.items())]

    def median(self, **wanted: Any) -> float | None:
        """Return the least median of the rows with these facts, in microseconds: that of the faster memory layout."""
        return min((row["median_us"] for row in self.pick(**wanted)), default=None)

    def values(self, name: str, **wanted: Any) -> list[Any]:
        """Return the different values of a fact, in their order."""
        return list(dict.fromkeys(row[name] for row in self.pick(**wanted) if row.get(name, "") != ""))

    def libraries(self, **wanted: Any) -> list[str]:
        """Return the libraries that have such rows."""
        return self.values("library", **wanted)


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e3:.3g}"


def microseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def mean(values: Iterable[float | None]) -> float | None:
    """Return the geometric mean; None where a value is missing."""
    known = list(values)
    return geometric_mean(known) if known and None not in known else None  # type: ignore[arg-type]


def total(values: Sequence[float | None]) -> float | None:
    """Return the sum; None where a value is missing."""
    return None if None in values else sum(values)  # type: ignore[arg-type]


def ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def least(values: Iterable[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def shapes(results: Results, **wanted: Any) -> list[dict[str, int]]:
    """Return the shapes of the dense layers measured."""
    names = ("batch", "fan_in", "fan_out")
    found = dict.fromkeys(tuple(row[name] for name in names) for row in results.pick(**wanted))
    return [dict(zip(names, shape, strict=True)) for shape in found]


def products(results: Results) -> str:
    """Bare products: geometric means over the shapes, as speed next to the peers."""
    body = []
    for threads in results.values("threads"):
        for dtype in results.values("dtype", operation="product"):
            for kind in PRODUCTS_OF_BACKWARD:
                facts = {"operation": "product", "threads": threads, "dtype": dtype, "kind": kind}
                found = [
                    {library: results.median(library=library, **shape, **facts) for library in (OWN, *BARE_PEERS)}
                    for shape in shapes(results, **facts)
                ]
                peers = [least(each[peer] for peer in BARE_PEERS) for each in found]
                body.append(
                    [dtype, threads, kind]
                    + [times(mean(ratio(each[peer], each[OWN]) for each in found)) for peer in BARE_PEERS]
                    + [times(mean(ratio(peer, each[OWN]) for peer, each in zip(peers, found, strict=True)))]
                    + [f"{mean(row['share_of_peak'] for row in results.pick(library=OWN, **facts)):.0%}"]
                )
    return table(["", "threads", "product", *(f"times as fast as {peer}" for peer in BARE_PEERS), "the faster", "of peak"], body)


def products_by_shape(results: Results) -> str:
    """Bare products, float32, in milliseconds."""
    body = []
    for shape in shapes(results, operation="product"):
        for kind in PRODUCTS_OF_BACKWARD:
            facts = {"operation": "product", "dtype": "float32", "kind": kind, **shape}
            cells = [
                milliseconds(results.median(library=library, threads=threads, **facts))
                for threads in results.values("threads")
                for library in (OWN, *BARE_PEERS)
            ]
            body.append([" x ".join(map(str, shape.values())), kind, *cells])
    head = [f"{library}, {threads}" for threads in results.values("threads") for library in (OWN, *BARE_PEERS)]
    return table(["batch x in x out", "product, ms by threads", *head], body)


def fused(results: Results) -> str:
    """The fused layer beside bare products and beside other libraries: geometric means over the shapes measured."""
    body = []
    for threads in results.values("threads"):
        facts = {"operation": "dense", "threads": threads}
        for activation, rate, backward in dict.fromkeys(
            (row["activation"], row["rate"], row["backward"]) for row in results.pick(library=OWN, **facts)
        ):
            layer = {**facts, "activation": activation, "rate": rate, "backward": backward}
            kinds = PRODUCTS_OF_BACKWARD if backward else ("forward",)
            own = [(shape, results.median(library=OWN, **layer, **shape)) for shape in shapes(results, library=OWN, **layer)]
            products = [(_bare(results, (OWN,), shape, threads, kinds), value) for shape, value in own]
            best = [(_bare(results, BARE_PEERS, shape, threads, kinds), value) for shape, value in own]
            ratios = [mean(ratio(value, bare) for bare, value in pairs) for pairs in (products, best)]
            ratios += [
                mean(ratio(results.median(library=peer, **layer, **shape), value) for shape, value in own) for peer in FUSED_PEERS
            ]
            direction = "forward, backward" if backward else "forward"
            body.append([threads, activation, rate, direction, len(own), *map(times, ratios)])
    head = ["time next to own bare products", "time next to the faster peer's bare products"]
    return table(["threads", "", "rate", "", "shapes", *head, *(f"times as fast as {peer}" for peer in FUSED_PEERS)], body)


def _bare(results: Results, libraries: Sequence[str], shape: dict[str, int], threads: int, kinds: Sequence[str]) -> float | None:
    """Return the time of the products alone, each in the fastest of the libraries."""
    facts = {"operation": "product", "threads": threads, "dtype": "float32", **shape}
    found = [least(results.median(library=library, kind=kind, **facts) for library in libraries) for kind in kinds]
    return total(found)


def by_library(
    results: Results, columns: Sequence[dict[str, Any]], form: Callable[[float | None], str], titles: Sequence[str]
) -> str:
    """Return a table of libraries against columns of facts, at each number of threads."""
    threads = results.values("threads")
    wanted = [{**facts, "threads": count} for facts in columns for count in threads]
    body = [
        [library, *(form(results.median(library=library, **facts)) for facts in wanted)]
        for library in results.libraries()
        if any(results.pick(library=library, **facts) for facts in wanted)
    ]
    return table(["", *(f"{title}, {count} thread{'s' * (count > 1)}" for title in titles for count in threads)], body)


def steps(results: Results) -> str:
    """Training steps, in milliseconds."""
    columns = [
        {"operation": operation, "architecture": architecture} for architecture in (LARGE, SMALL) for operation in ("step", "fit")
    ]
    titles = [f"{each['architecture']}{', `fit`' * (each['operation'] == 'fit')}" for each in columns]
    return by_library(results, columns, milliseconds, titles)


def inference(results: Results) -> str:
    """Inference, in microseconds."""
    batches = results.values("batch")
    columns = [{"operation": "inference", "batch": batch} for batch in batches]
    return by_library(results, columns, microseconds, [f"batch {batch}" for batch in batches])


def monte_carlo(results: Results) -> str:
    """Means over passes with dropout, in milliseconds."""
    batches = results.values("batch")
    columns = [{"operation": "monte_carlo", "batch": batch} for batch in batches]
    return by_library(results, columns, milliseconds, [f"batch {batch}" for batch in batches])


def convolutions(results: Results) -> str:
    """Convolutions of the network for CIFAR-10, in milliseconds; torch's in the faster of its memory layouts, each time."""
    torch = "torch eager"
    body = []
    for threads in results.values("threads", operation="convolution"):
        ratios = []
        for extent, channels in dict.fromkeys((row["extent"], row["channels"]) for row in results.pick(operation="convolution")):
            facts = {"operation": "convolution", "threads": threads, "extent": extent, "channels": channels}
            found = {
                library: [results.median(library=library, kind=kind, **facts) for kind in PRODUCTS_OF_BACKWARD]
                for library in (OWN, torch)
            }
            ratios.append(ratio(total(found[torch]), total(found[OWN])))
            cells = [milliseconds(value) for each in zip(*found.values(), strict=True) for value in each]
            body.append([threads, f"{extent} x {extent} x {channels}", *cells, times(ratios[-1])])
        body.append([threads, "geometric mean", *[""] * (2 * len(PRODUCTS_OF_BACKWARD)), times(mean(ratios))])
    head = [f"{kind}, {library}" for kind in PRODUCTS_OF_BACKWARD for library in (OWN, torch)]
    return table(["threads", "images", *head, "all three: times as fast"], body)


def image_steps(results: Results) -> str:
    """Training steps of the network for CIFAR-10, in milliseconds."""
    return by_library(results, [{"operation": "image_step"}, {"operation": "image_fit"}], milliseconds, ["step", "`fit`"])


def serving(results: Results) -> str:
    """Calls a second from several Python threads."""
    body = []
    for batch in results.values("batch"):
        found = {
            callers: results.median(operation="serving", batch=batch, callers=callers, threads=max(results.values("threads")))
            for callers in results.values("callers")
        }
        body.append([batch, *(f"{1e6 / value:.0f}" if value else "-" for value in found.values())])
    return table(["batch", *(f"calls a second, {callers} Python thread(s)" for callers in results.values("callers"))], body)


def elementwise(results: Results, operation: str) -> str:
    """Elementwise noise, forward, in nanoseconds an element; with one thread up to 2^16 elements, else with all."""
    threads, rates = results.values("threads"), results.values("rate")
    columns = [
        (elements, rate, threads[0] if elements <= 1 << 16 else threads[-1])
        for elements in results.values("elements")
        for rate in rates
    ]
    body = []
    for library in results.libraries():
        facts = [{"elements": n, "rate": rate, "threads": count, "library": library} for n, rate, count in columns]
        found = [results.median(operation=operation, backward=False, **each) for each in facts]
        if any(found):
            body.append([library, *(_per_element(value, n) for value, (n, _, _) in zip(found, columns, strict=True))])
        copies = [results.median(operation="scaled_copy", library=library, elements=n, threads=count) for n, _, count in columns]
        if any(copies):
            cells = [_per_element(value, n) for value, (n, _, _) in zip(copies, columns, strict=True)]
            body.append([f"{library}, scaled copy", *cells])
    return table(["forward, ns an element", *(f"2^{n.bit_length() - 1}, rate {rate}" for n, rate, _ in columns)], body)


def sharing(results: Results) -> str:
    """What skipping saves, next to masks of each row's own, and next to the fastest step of another library."""
    body = []
    for threads in results.values("threads"):
        cases = [("layer 1024 x 1024, rate 0.5", {"operation": "shared_dense"}, None)]
        for momentum, name in ((0.0, "plain SGD"), (0.9, "momentum")):
            facts = {"operation": "shared_step", "momentum": momentum, "rates": LARGE_RATES}
            cases.append((f"step, {name}", facts, "step"))
        for name, facts, peers in cases:
            facts["threads"] = threads
            usual = results.median(shared_rows=1, **facts)
            for rows in results.values("shared_rows", **facts):
                value = results.median(shared_rows=rows, **facts)
                others = [each for each in results.libraries(operation=peers) if each != OWN] if peers else []
                best = least(results.median(operation=peers, library=each, threads=threads) for each in others)
                body.append([threads, name, rows, milliseconds(value), times(ratio(usual, value)), times(ratio(best, value))])
    return table(["threads", "", "`shared_rows`", "ms", "times as fast as 1", "times as fast as the fastest peer"], body)


def roofline(results: Results) -> str:
    """Own kernels, float32, one thread: time next to the least that peak and copy bandwidth allow."""
    body = []
    for row in results.pick(library=OWN, threads=min(results.values("threads"))):
        if row.get("dtype", "float32") == "float32" and row["operation"] not in ("serving", "fit"):
            elements = row.get("elements") or row.get("rows", 0) * (row.get("columns") or row.get("classes", 0))
            body.append(
                [
                    " ".join(str(row[name]) for name in FACTS if row.get(name, "") not in ("", False)).replace(
                        "True", "backward"
                    ),
                    microseconds(row["median_us"]),
                    _per_element(row["median_us"], elements) if elements else "-",
                    f"{row['gflops']:.1f}" if row["gflops"] else "-",
                    f"{row['gbytes']:.1f}",
                    f"{row['share_of_peak']:.0%}",
                ]
            )
    return table(["kernel", "us", "ns an element", "GF/s", "GB/s", "of peak"], body)


def outliers(results: Results) -> str:
    """Sizes whose time is above LIMIT times the line through their neighbours, by work."""
    body = []
    for against in ("batch", "width"):
        for threads in results.values("threads"):
            for library in results.libraries():
                points = sweep(results.pick(threads=threads), library, against)
                for (left, before), (size, time), (right, after) in zip(points, points[1:], points[2:], strict=False):
                    line = before + (after - before) * (work(against, size) - work(against, left)) / (
                        work(against, right) - work(against, left)
                    )
                    if time > LIMIT * line:
                        body.append([library, threads, against, size, f"{time / line:.2f}"])
    return table(["library", "threads", "", "size", "times the line through its neighbours"], body)


def work(against: str, size: int) -> float:
    """Return the operations of a step of that size, but for a factor."""
    return size if against == "batch" else of_width(size).flops(1)


def _per_element(value: float | None, elements: int) -> str:
    return "-" if value is None else f"{value * 1e3 / elements:.2f}"


def table(head: Sequence[str], body: Sequence[Sequence[Any]]) -> str:
    return tabulate(body, head, tablefmt="pipe", disable_numparse=True)


TABLES: dict[str, tuple[str, Callable[[Results], str]]] = {
    "Bare products": ("dense", products),
    "Bare products by shape": ("dense", products_by_shape),
    "Fused layer": ("dense", fused),
    "Training steps": ("step", steps),
    "Inference": ("inference", inference),
    "Serving": ("inference", serving),
    "Monte-Carlo dropout": ("monte_carlo", monte_carlo),
    "Skipping": ("sharing", sharing),
    "Convolution": ("convolution", convolutions),
    "Network for CIFAR-10": ("convolution", image_steps),
    "Dropout": ("dropout", lambda results: elementwise(results, "dropout")),
    "Gaussian dropout": ("noise", lambda results: elementwise(results, "gaussian_dropout")),
    **{f"Roofline: {suite}": (suite, roofline) for suite in ROOFLINE},
    "Growth": ("growth", outliers),
}


def main(folder: Path) -> None:
    for title, (suite, make) in TABLES.items():
        results = Results(folder, suite)
        if results.rows:
            print(f"### {title}\n\n{make(results)}\n")
    growth = Results(folder, "growth").rows
    if growth:
        plot_growth(growth, folder / "growth.png")
    shared = Results(folder, "sharing").pick(operation="shared_step", momentum=0.9)
    if shared:
        plot_rates(shared, folder / "skipping.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results")
