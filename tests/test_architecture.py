"""The shape of the package, read from its source: who imports whom, and rules that hold for every file."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastdrop

ROOT = Path(fastdrop.__file__).parent

ORDER = [  # low to high: a module imports only from what stands before it, or from within its own package
    "_version", "errors", "_types", "_device",
    "_validate", "rng", "mask", "window", "_config",
    "backends.operands", "backends.base",
    "backends.reference", "backends.formulas", "backends.cpu", "backends.cuda", "backends.select",
    "arrays", "activations", "fused", "convolved", "functional",
    "_configurable", "progress", "_interrupt", "_network", "_files", "_display",
    "init", "constraints", "regularizers", "losses", "metrics", "schedules", "optim",
    "layers", "rates", "fusion", "predictor",
    "inference", "monte_carlo", "serialization", "callbacks", "evaluation", "_run", "training",
    "sequential", "loading", "data", "warm",
    "testing", "benchmark", "experiments",
    "cli", "__main__",
]  # fmt: skip

MAX_LINES = 450
OPERATIONS = [
    "activations", "conv2d", "dense", "drop_block", "dropout", "losses", "masks", "noise", "pooling", "softmax", "units",
    "updates",
]  # fmt: skip
FILES = sorted(path for path in ROOT.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def _name(path: Path) -> str:
    """The module's name within the package: "backends.cpu.masks"; "" for the package itself."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in FILES}
INITS = [path for path in FILES if path.name == "__init__.py"]
LAZY_INIT = ROOT / "__init__.py"


def _unit(module: str) -> str:
    """The entry of ORDER that a module belongs to."""
    parts = module.split(".")
    candidates = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((c for c in candidates if c in ORDER), module)


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _nodes(child)


def _imports(path: Path) -> Iterator[str]:
    """Absolute names of everything that a file imports, functions included."""
    for node in _nodes(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _own_imports(path: Path) -> set[str]:
    """Modules of the package that a file imports."""
    found = set()
    for name in _imports(path):
        if name.split(".")[0] == "fastdrop":
            inner = name.removeprefix("fastdrop").removeprefix(".")
            while inner not in MODULES:
                inner = inner.rpartition(".")[0]
            found.add(inner)
    return found


def test_every_module_has_its_place() -> None:
    bare = {"", "backends"}
    assert {_unit(module) for module in MODULES if module not in bare} == set(ORDER)
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_a_module_imports_only_what_stands_before_it(module: str) -> None:
    mine = _unit(module)
    for other in _own_imports(MODULES[module]):
        theirs = _unit(other)
        if theirs != mine:
            assert theirs in ORDER, f"{module} imports {other or 'the package itself'}"
            assert ORDER.index(theirs) < ORDER.index(mine), f"{module} imports {other}, which stands above it"


def test_there_are_no_cycles() -> None:
    graph = {module: _own_imports(path) - {module} for module, path in MODULES.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(MODULES)


def test_the_reference_imports_no_other_backend() -> None:
    for module, path in MODULES.items():
        if module.startswith("backends.reference"):
            assert not {m for m in _own_imports(path) if m.startswith(("backends.cpu", "backends.formulas"))}, module


def test_only_selection_imports_a_backend() -> None:
    """The measurement of the machine's peak is a kernel of its own."""
    for module, path in MODULES.items():
        for name in ("backends.cpu", "backends.reference"):
            if not module.startswith(name) and any(other.startswith(name) for other in _own_imports(path)):
                assert module in ("backends.select", "benchmark.peak"), module


HEAVY = {
    "numba": ("_config", "backends.cpu", "backends.formulas"),
    "nvmath": ("backends.cuda",),
    "llvmlite": ("_config", "backends.cpu", "backends.cuda", "backends.formulas", "benchmark"),
    "safetensors": ("_files",),
    "tqdm": ("_display", "experiments", "cli"),
    "tabulate": ("cli",),
    "pytest": ("testing",),
    "matplotlib": ("experiments",),
    "click": ("cli",),
    "optuna": ("experiments",),
    "sqlalchemy": ("experiments",),
    **dict.fromkeys(("torch", "jax", "keras", "tensorflow", "onnx", "onnxruntime", "sklearn", "threadpoolctl"), ("benchmark",)),
}
LAZY = {"safetensors", "tqdm", "matplotlib", "tabulate"}
"""Imported inside functions only."""


@pytest.mark.parametrize("package", HEAVY)
def test_heavy_packages_are_imported_where_they_belong(package: str) -> None:
    users = {module for module, path in MODULES.items() if package in {name.split(".")[0] for name in _imports(path)}}
    assert all(_unit(module) in HEAVY[package] for module in users), users


@pytest.mark.parametrize("package", sorted(LAZY))
def test_heavy_packages_are_imported_inside_functions(package: str) -> None:
    for path, tree in TREES.items():
        for node in tree.body:
            names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in getattr(node, "names", [])]
            assert package not in {str(name).split(".")[0] for name in names}, path


# What may stand in a file


@pytest.mark.parametrize("path", INITS, ids=_name)
def test_init_files_only_re_export(path: Path) -> None:
    body = TREES[path].body
    assert ast.get_docstring(TREES[path]), "no docstring"
    if path == LAZY_INIT:
        body = [node for node in body if not isinstance(node, ast.FunctionDef) or node.name not in ("__getattr__", "__dir__")]
        tables = {"_MODULES", "_HOME"}
    else:
        tables = set()
    exported: list[str] = []
    imported: list[str] = []
    for node in body[1:]:
        if isinstance(node, ast.ImportFrom):
            imported += [alias.asname or alias.name for alias in node.names if node.module != "__future__"]
            continue
        assert isinstance(node, ast.Assign), f"line {node.lineno}: {type(node).__name__}"
        target = node.targets[0]
        assert isinstance(target, ast.Name)
        assert target.id in {"__all__"} | tables
        if target.id == "__all__" and path != LAZY_INIT:
            exported = ast.literal_eval(node.value)
    if path != LAZY_INIT:
        assert exported == sorted(exported)
        assert set(exported) == set(imported)


def test_public_names_resolve() -> None:
    names = fastdrop.__all__
    assert names[0] == "__version__"
    assert names[1:] == sorted(names[1:])
    assert len(names) == len(set(names))
    for name in names:
        assert getattr(fastdrop, name) is not None
    assert dir(fastdrop) == sorted(names)
    with pytest.raises(AttributeError, match="module 'fastdrop' has no attribute 'nothing'"):
        _ = fastdrop.nothing


NUMBA_OPTIONS = {"parallel", "fastmath", "error_model", "nogil", "boundscheck"}
OPTION_FILES = {"backends.cpu._jit", "backends.cuda._jit", "backends.cuda._mlir", "backends.formulas._formula"}
OTHER_COMPILERS = {"benchmark.peers.jax"}


@pytest.mark.parametrize("module", sorted(set(MODULES) - OPTION_FILES - OTHER_COMPILERS))
def test_numba_options_are_written_in_one_place(module: str) -> None:
    """Kernels are made by the project's decorators, which own all options."""
    for node in ast.walk(TREES[MODULES[module]]):
        if isinstance(node, ast.keyword):
            assert node.arg not in NUMBA_OPTIONS, f"line {node.value.lineno}: {node.arg}"
        if isinstance(node, ast.Attribute | ast.Name):
            called = node.attr if isinstance(node, ast.Attribute) else node.id
            assert called not in ("njit", "jit", "vectorize", "guvectorize"), f"line {node.lineno}: {called}"


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"_validate"}))
def test_argument_errors_are_raised_in_one_place(module: str) -> None:
    for node in ast.walk(TREES[MODULES[module]]):
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            name = getattr(raised, "id", getattr(raised, "attr", ""))
            assert name not in ("ArgumentTypeError", "ArgumentValueError"), f"line {node.lineno}: raise {name}"
            assert name not in ("NotImplementedError", "ValueError", "TypeError"), f"line {node.lineno}: raise {name}"


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_has_the_same_file_in_every_backend(operation: str) -> None:
    assert f"backends.reference.{operation}" in MODULES
    assert f"backends.cpu.{operation}" in MODULES


def test_the_reference_has_no_other_operations() -> None:
    files = {path.stem for path in (ROOT / "backends" / "reference").glob("*.py") if not path.stem.startswith("_")}
    assert files == {"backend", *OPERATIONS}


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_no_file_is_too_long(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(TREES[path])


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_nothing_is_unfinished(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"\b(TODO|FIXME|XXX|HACK|NotImplemented)\b", text)
    assert not found
