"""The compilation cache: hit when warm, keyed by source, sound with damaged files and many first runs, easy to turn off."""

from __future__ import annotations

from pathlib import Path

import pytest
from subprocesses import finish, run, start

from fastdrop import _config

COUNT = """
    import numpy as np
    from fastdrop.backends.cpu import masks
    from fastdrop.backends.select import backend
    from fastdrop.rng import Key

    backend("cpu").words(Key(1, 2, 3), 0, 0, 4)
    stats = masks.words_kernel.serial.stats
    print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
"""Run one small kernel; print its cache hits and misses."""


def test_the_second_run_compiles_nothing(tmp_path: Path) -> None:
    assert run(COUNT, FASTDROP_CACHE_DIR=tmp_path) == "0 1"
    assert run(COUNT, FASTDROP_CACHE_DIR=tmp_path) == "1 0"


@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc", "*.nb?"])
@pytest.mark.parametrize("kept", [0, 40, -30], ids=["empty", "head", "tail cut"])
def test_damaged_files_are_replaced(tmp_path: Path, pattern: str, kept: int) -> None:
    run(COUNT, FASTDROP_CACHE_DIR=tmp_path)
    files = list(tmp_path.rglob(pattern))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:kept])
    assert run(COUNT, FASTDROP_CACHE_DIR=tmp_path) == "0 1"
    assert run(COUNT, FASTDROP_CACHE_DIR=tmp_path) == "1 0"


def test_one_of_eight_first_runs_compiles(tmp_path: Path) -> None:
    processes = [start(COUNT, FASTDROP_CACHE_DIR=tmp_path) for _ in range(8)]
    assert sorted(finish(process)[0] for process in processes) == ["0 1"] + ["1 0"] * 7


def test_off(tmp_path: Path) -> None:
    assert run(COUNT, FASTDROP_CACHE="0", FASTDROP_CACHE_DIR=tmp_path) == "0 1"
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_means_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert run(COUNT, FASTDROP_CACHE_DIR=tmp_path / "file") == "0 1"
    assert (tmp_path / "file").read_text() == "no folder"


def test_the_temporary_folder_stands_in_for_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    (tmp_path / "tmp").mkdir()
    code = """
    import os
    os.environ.pop("FASTDROP_CACHE_DIR", None)
    from fastdrop._config import cache_folder
    print(cache_folder())
    """
    found = run(code, XDG_CACHE_HOME=tmp_path / "home", TMPDIR=tmp_path / "tmp")
    assert Path(found).is_relative_to(tmp_path / "tmp")


def test_the_key_follows_source_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "kernel.py"
    source.write_text("a = 1\n")
    monkeypatch.setattr(_config, "_source_files", lambda: [source])
    first = _config._fingerprint()
    assert _config._fingerprint() == first
    monkeypatch.setenv("NUMBA_NUM_THREADS", "7")
    assert _config._fingerprint() == first, "the number of threads is no compiler setting"
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert _config._fingerprint() != first
    monkeypatch.delenv("NUMBA_OPT")
    source.write_text("a = 2\n")
    assert _config._fingerprint() != first


def test_all_kernel_source_is_in_the_key() -> None:
    names = {file.relative_to(Path(_config.__file__).parent).as_posix() for file in _config._source_files()}
    wanted = {"backends/cpu/masks.py", "backends/cpu/dense.py", "backends/formulas/philox.py", "rng.py", "mask.py", "_types.py"}
    assert wanted <= names


def test_a_long_compilation_is_announced_once(tmp_path: Path) -> None:
    code = """
    from fastdrop.backends.cpu import _jit
    _jit.NOTICE_SECONDS = 0.01
    import numpy as np
    from fastdrop.backends.select import backend
    from fastdrop.rng import Key
    backend("cpu").words(Key(1, 2, 3), 0, 0, 4)
    backend("cpu").sum_of_squares(np.ones(3))
    """
    _, errors = finish(start(code, FASTDROP_CACHE_DIR=tmp_path))
    lines = errors.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("fastdrop: compiling kernels for this CPU")
    assert finish(start(code, FASTDROP_CACHE_DIR=tmp_path))[1] == ""


def test_warmup_compiles_every_kernel() -> None:
    code = """
        import importlib, pkgutil
        import fastdrop as fd
        from fastdrop.backends import cpu
        from fastdrop.backends.cpu._jit import Kernel

        fd.warmup()
        modules = [importlib.import_module(f"{cpu.__name__}.{each.name}") for each in pkgutil.iter_modules(cpu.__path__)]
        kernels = {value for module in modules for value in vars(module).values() if isinstance(value, Kernel)}
        cold = [each.name for each in kernels if not (each.serial.signatures or each.parallel.signatures)]
        print(len(kernels), cold)
    """
    count, cold = run(code).split(" ", 1)
    assert int(count) > 10
    assert cold.strip() == "[]"
