"""Everything that only a machine with a GPU can show: tests, masks beside the CPU's, the sanitizer, memory, and speeds.

python bench/gpu_check.py                              # all of it, an hour; the table goes to bench/results/gpu.csv
python bench/gpu_check.py --steps masks,memory,speed   # what needs no compiling of hundreds of kernels: some minutes
NUMBA_ENABLE_CUDASIM=1 python bench/gpu_check.py --quick --steps masks,memory,speed -o /tmp/results    # does it work at all?

PyTorch, where it is installed for the GPU, is measured beside it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from results import append
from table import table
from tqdm import tqdm

import fastdrop as fd

FOLDER = Path(__file__).parent
TESTS = FOLDER.parent / "tests"
ON_GPU = {"NUMBA_ENABLE_CUDASIM": "0", "FASTDROP_TEST_CUDA": "1"}

RATES = (0.5, 0.1, 0.3, 0.75, 1 / 256, 1e-3)
SHIFTS = (0, 1, 7)
"""By how many elements views begin after a multiple of 16 bytes."""
ROUNDS = 7
SPARE_BYTES = 1 << 22
"""By how much the memory in use may grow beside results: what the driver takes at a time."""
WAYS = ("eager", "compile")
"""In which PyTorch runs."""
LEAST_SECONDS = 0.05
"""Of a round, which is made of as many calls as that takes."""


class Sizes(NamedTuple):
    """How much is compared and measured."""

    compared: int = 1 << 30
    piece: int = 1 << 26
    elements: int = 1 << 28
    square: int = 4096
    units: int = 1024
    batch: int = 128


QUICK = Sizes(600, 300, 512, 8, 8, 8)


def do_tests() -> bool:
    """Run every test of the CUDA backend on the device, in several processes if pytest-xdist is there."""
    several = ["-n", str(min(8, os.cpu_count() or 1))] if find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-q", *several, str(TESTS), "-k", "cuda"]
    return subprocess.run(command, env={**os.environ, **ON_GPU}, check=False).returncode == 0


def do_sanitizer() -> bool:
    """Run the backend's own tests under compute-sanitizer, where it is there: accesses, then races in shared memory."""
    found = shutil.which("compute-sanitizer")
    if found is None:
        print("compute-sanitizer is not there: not run")
        return True
    tests = [sys.executable, "-m", "pytest", "-q", str(TESTS / "test_cuda.py")]
    codes = [
        subprocess.run(
            [found, "--tool", *tool, "--error-exitcode", "1", *tests], env={**os.environ, **ON_GPU}, check=False
        ).returncode
        for tool in (("memcheck", "--report-api-errors", "no"), ("racecheck",))
    ]
    return not any(codes)


def do_masks(sizes: Sizes) -> bool:
    """Compare masks with the CPU's, element by element, in pieces of one long array, and those of views that begin anywhere."""
    cuda, ones, equal = _cuda(), np.ones(sizes.piece, np.float32), True
    whole = cuda.to_device(ones)
    for rate in RATES:
        for number in tqdm(range(sizes.compared // sizes.piece), desc=f"masks at rate {rate:.4g}"):
            shift = SHIFTS[number % len(SHIFTS)]
            mask = fd.Mask(rate, fd.Key(1, 2, 3), row_offset=number * sizes.piece + shift)
            got, _ = fd.dropout(whole[shift:], mask)
            wanted, _ = fd.dropout(ones[shift:], mask)
            equal &= bool(np.array_equal(got.copy_to_host().view(np.uint32), wanted.view(np.uint32)))
    print(f"masks of {len(RATES)} x {sizes.compared} elements are {'equal' if equal else 'NOT EQUAL'}")
    return equal


def do_memory(sizes: Sizes) -> bool:
    """Measure what a forward pass holds for its backward pass, beyond what it was given and has returned: no mask."""
    cuda, mask, equal = _cuda(), fd.Mask(0.5, fd.Key(1, 2, 3)), True
    x = cuda.device_array(sizes.elements, np.float32)
    out, (a, b) = cuda.device_array_like(x), (cuda.to_device(np.ones((sizes.square,) * 2, np.float32)) for _ in range(2))
    passes = {
        "dropout into an array": lambda: (fd.dropout(x, mask, out=out), 0),
        "dense + relu + dropout": lambda: (fd.dense(a, b, activation="relu", output_mask=mask), a.size * a.dtype.itemsize),
    }
    for name, forward in passes.items():
        forward()  # compiles, and takes what scratch there is
        before = _free_bytes()
        held, results = forward()
        grown = before - _free_bytes()
        print(f"{name}: {grown} bytes more are taken after a forward pass, {results} of them are y")
        equal &= not grown > results + SPARE_BYTES  # a simulator's are not a number
        del held
    return equal


class Case(NamedTuple):
    """Something to measure: what it is called, ours, and PyTorch's in the ways it has."""

    name: str
    ours: Callable[[], Any]
    torch: dict[str, Callable[[], Any]]
    least: Callable[[], Any] | None = None
    """What moves the same bytes and does nothing else."""


def do_speed(sizes: Sizes, path: Path) -> bool:
    """Measure, print and write the table."""
    from fastdrop.backends.cuda._products import best_multiply

    synchronize, name, torch = _cuda().synchronize, _gpu_name(), _torch()
    products = getattr(best_multiply(), "__name__", type(best_multiply()).__name__)
    print(f"products by {products}")
    body, complete = [], True
    for make in _cases(sizes, torch):
        try:
            case = make()
            ours = _milliseconds(case.ours, synchronize)
            least = None if case.least is None else _milliseconds(case.least, synchronize)
            others = {way: _milliseconds(function, synchronize) for way, function in case.torch.items()}
        except Exception:  # whatever it is, the other cases are still worth their time
            traceback.print_exc()
            complete = False
            continue
        row = {"gpu": name, "products": products, "case": case.name, "ours_ms": round(ours, 4)}
        row |= {f"torch_{way}_ms": round(others[way], 4) if way in others else "" for way in WAYS}
        append(path, row | {"copy_ms": "" if least is None else round(least, 4)})
        share = "" if least is None else f"{least / ours:.2f}"
        body.append([case.name, f"{ours:.3f}", share, *(f"{others[way] / ours:.2f}" if way in others else "" for way in WAYS)])
    print(table([f"on {name}", "ms", "of a copy's speed", "torch eager takes, times", "torch.compile takes, times"], body))
    return complete


def _cases(sizes: Sizes, torch: Any) -> Iterator[Callable[[], Case]]:
    """Yield what makes each case, one at a time, so that memory is free again."""
    for dtype in (np.float32, np.float16):
        for rate in (0.5, 0.1):
            yield partial(_elementwise, sizes.elements, dtype, rate, torch)
    yield partial(_step, (784, sizes.units, sizes.units, 10), sizes.batch, torch)
    yield partial(_step, (sizes.square,) * 4, sizes.square, torch)
    for dtype in ("float32", "bfloat16"):
        if dtype == "float32" or torch is not None:
            yield partial(_dense, sizes.square, dtype, torch)


def _elementwise(elements: int, dtype: Any, rate: float, torch: Any) -> Case:
    cuda, mask = _cuda(), fd.Mask(rate, fd.Key(1, 2, 3))
    x, out = cuda.to_device(np.ones(elements, dtype)), cuda.device_array(elements, dtype)
    _, backward = fd.dropout(x, mask, out=out)

    def ours() -> None:
        fd.dropout(x, mask, out=out)
        backward(x, out=out)

    others = {}
    if torch is not None:
        tensor = torch.as_tensor(x, device="cuda").requires_grad_()
        gradient = tensor.detach()
        others["eager"] = lambda: torch.autograd.grad(torch.nn.functional.dropout(tensor, rate), tensor, gradient)
    return Case(
        f"dropout forward + backward, 2^{elements.bit_length() - 1} {np.dtype(dtype)}, rate {rate}",
        ours,
        others,
        lambda: [out.copy_to_device(x), out.copy_to_device(x)],
    )


def _dense(square: int, dtype: str, torch: Any) -> Case:
    rng, mask = np.random.default_rng(0), fd.Mask(0.5, fd.Key(1, 2, 3))
    x, weight, dy = (rng.normal(size=(square, square)).astype(np.float32) for _ in range(3))
    bias = np.zeros(square, np.float32)
    others: dict[str, Callable[[], Any]] = {}
    if torch is None:
        arrays = [_cuda().to_device(each) for each in (x, weight, bias, dy)]
    else:
        torch.backends.cuda.matmul.allow_tf32 = False
        arrays = [torch.as_tensor(each, device="cuda").to(getattr(torch, dtype)) for each in (x, weight, bias, dy)]
        tensors = [each.clone().requires_grad_() for each in arrays[:3]]

        def layer() -> Any:
            return torch.nn.functional.dropout(torch.relu(tensors[0] @ tensors[1] + tensors[2]), 0.5)

        compiled = torch.compile(layer)
        others = {
            "eager": lambda: torch.autograd.grad(layer(), tensors, arrays[3]),
            "compile": lambda: torch.autograd.grad(compiled(), tensors, arrays[3]),
        }

    def ours() -> None:
        _, backward = fd.dense(*arrays[:3], activation="relu", output_mask=mask)
        backward(arrays[3])

    return Case(f"dense + relu + dropout forward + backward, ({square}, {square}, {square}) {dtype}", ours, others)


def _step(widths: tuple[int, ...], batch: int, torch: Any) -> Case:
    rates, layers = (0.2, *[0.5] * (len(widths) - 2)), []
    activations = [*["relu"] * (len(widths) - 2), None]
    for rate, units, activation in zip(rates, widths[1:], activations, strict=True):
        layers += [fd.Dropout(rate), fd.Dense(units, activation=activation)]
    net, optimizer = fd.Sequential(layers, input_shape=widths[:1], seed=0), fd.optim.SGD(0.01, momentum=0.9)
    net.to("cuda")
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(batch, widths[0])).astype(np.float32), rng.integers(0, widths[-1], batch)
    there = _cuda().to_device(x), _cuda().to_device(labels)
    others: dict[str, Callable[[], Any]] = {}
    if torch is not None:
        nn, modules = torch.nn, []
        for rate, wide, units in zip(rates, widths, widths[1:], strict=False):
            modules += [nn.Dropout(rate), nn.Linear(wide, units), nn.ReLU()]
        model = nn.Sequential(*modules[:-1]).cuda()
        inputs, goals = (torch.as_tensor(each, device="cuda") for each in (x, labels))
        theirs = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
        for way, forward in (("eager", model), ("compile", torch.compile(model))):

            def step(forward: Any = forward) -> None:
                theirs.zero_grad(set_to_none=True)
                nn.functional.cross_entropy(forward(inputs), goals).backward()
                theirs.step()

            others[way] = step
    name = f"training step {'-'.join(map(str, widths))}, batch {batch}"
    return Case(name, lambda: net.train_on_batch(*there, optimizer), others)


def _milliseconds(function: Callable[[], Any], synchronize: Callable[[], Any]) -> float:
    """Return the median time of a call, with the device's work done."""
    function()
    calls = 1
    times = []
    while len(times) < ROUNDS:
        synchronize()
        begun = time.perf_counter()
        for _ in range(calls):
            function()
        synchronize()
        seconds = time.perf_counter() - begun
        if seconds < LEAST_SECONDS and not times:
            calls = max(2 * calls, int(calls * LEAST_SECONDS / max(seconds, 1e-9)))
        else:
            times.append(1000 * seconds / calls)
    return median(times)


def _cuda() -> Any:
    from fastdrop.backends.cuda._jit import cuda

    return cuda


def _free_bytes() -> Any:
    """Return how much of the device's memory is free, when what is not used any more is given back."""
    context = _cuda().current_context()
    _cuda().synchronize()
    if hasattr(context, "deallocations"):
        context.deallocations.clear()
    return context.get_memory_info().free


def _gpu_name() -> str:
    from fastdrop.backends.cuda._jit import SIMULATED

    if SIMULATED:
        return "the simulator"
    name = _cuda().get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)


def _torch() -> Any:
    """Return PyTorch if it can use the GPU."""
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def _succeeds(step: Callable[[], bool]) -> bool:
    """Do a step; an error is shown, and the others are done all the same."""
    try:
        return step()
    except Exception:
        traceback.print_exc()
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default="masks,memory,speed,tests,sanitizer", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="sizes that a simulator can do")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER / "results", help="folder of gpu.csv")
    arguments = parser.parse_args()
    sizes = QUICK if arguments.quick else Sizes()
    steps = {
        "masks": lambda: do_masks(sizes),
        "memory": lambda: do_memory(sizes),
        "speed": lambda: do_speed(sizes, arguments.output / "gpu.csv"),
        "tests": do_tests,
        "sanitizer": do_sanitizer,
    }
    failed = [step for step in arguments.steps.split(",") if not _succeeds(steps[step])]
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
