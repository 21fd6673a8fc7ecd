"""Threads, the compilation cache, and what there is to know about this machine.

Nothing here imports Numba before a kernel is needed. Environment variables, read once at first use:

- FASTDROP_CACHE=0 turns the compilation cache off; FASTDROP_CACHE_DIR names its folder.
- NUMBA_NUM_THREADS limits the number of threads that exist at all.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from fastdrop import _validate
from fastdrop._version import __version__

CACHE_VARIABLE = "FASTDROP_CACHE"
CACHE_DIR_VARIABLE = "FASTDROP_CACHE_DIR"
NUMBA_THREADS_VARIABLE = "NUMBA_NUM_THREADS"
CGROUP_V2_QUOTA = Path("/sys/fs/cgroup/cpu.max")
CGROUP_V1_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
CGROUP_V1_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
GPU_FILES = (Path("/dev/nvidia0"), Path("/dev/dxg"))
"""Of which one is there where there is a GPU."""
CUDA_PACKAGES = ("numba-cuda", "numba-cuda-mlir", "nvmath-python")


# Threads


def cpu_quota() -> float | None:
    """Return the number of CPUs that a container's quota (cgroup v2 or v1) allows, or None without one."""
    try:
        if CGROUP_V2_QUOTA.exists():
            quota, period = CGROUP_V2_QUOTA.read_text().split()[:2]
        else:
            quota, period = CGROUP_V1_QUOTA.read_text().strip(), CGROUP_V1_PERIOD.read_text().strip()
        return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def affinity() -> int:
    """Return the number of CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_cpus() -> int:
    """Return the number of CPUs that this process can really use: its affinity mask, cut by a container's quota."""
    quota = cpu_quota()
    return affinity() if quota is None else max(1, min(affinity(), int(-(-quota // 1))))


def max_threads() -> int:
    """Return the largest thread count: NUMBA_NUM_THREADS if set, else `available_cpus()`."""
    if "numba" in sys.modules:
        return int(sys.modules["numba"].config.NUMBA_NUM_THREADS)
    setting = os.environ.get(NUMBA_THREADS_VARIABLE, "")
    return int(setting) if setting.isdigit() and int(setting) > 0 else available_cpus()


class _Threads:
    """The thread count that every calling Python thread sees; what Numba keeps for each thread is set from it."""

    def __init__(self) -> None:
        self.count: int | None = None
        self.seen = threading.local()


_threads = _Threads()


def get_num_threads() -> int:
    """Return the number of threads that kernels use, the same for every calling thread.

    Default: the CPUs of the affinity mask, cut by a container's CPU quota and by NUMBA_NUM_THREADS, found once in a process.
    """
    return _default_threads() if _threads.count is None else _threads.count


@cache
def _default_threads() -> int:
    return min(max_threads(), available_cpus())


def set_num_threads(n: int) -> None:
    """Set the number of threads that kernels use, from now on and for every calling thread.

    Results do not depend on it, bit for bit.

    Raises
    ------
    TypeError: n is no integer. ValueError: n is not in [1, NUMBA_NUM_THREADS].
    """
    _threads.count = _validate.integer("n", n, 1, max_threads())


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Let the calling Python thread run its kernels by itself: for work that is divided among Python threads."""
    before = is_single_thread()
    _threads.seen.single = True
    try:
        yield
    finally:
        _threads.seen.single = before


def is_single_thread() -> bool:
    """Return whether the calling Python thread runs its kernels by itself."""
    return getattr(_threads.seen, "single", False)


@cache
def load_numba() -> ModuleType:
    """Import Numba, with no more threads than this process can use and with its best threading layer within reach."""
    missing = NUMBA_THREADS_VARIABLE not in os.environ
    if missing and "numba" not in sys.modules:
        os.environ[NUMBA_THREADS_VARIABLE] = str(available_cpus())
    try:
        import numba
    finally:
        if missing:
            os.environ.pop(NUMBA_THREADS_VARIABLE, None)
    _preload_tbb()
    module: ModuleType = numba
    return module


def _preload_tbb() -> None:
    """Load libtbb from where its wheel puts it: the loader does not look inside a virtual environment."""
    try:
        files = metadata.files("tbb") or []
    except metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name in ("libtbb.so.12", "tbb12.dll"):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(Path(str(file.locate())).resolve()), mode=ctypes.RTLD_GLOBAL)
            return


class ThreadingLayer:
    """Numba's threading layer, and when it may be used.

    tbb is safe everywhere. omp kills a forked child of a process that has used it: there, kernels run serially.
    workqueue aborts the process when two threads call it at once: the second caller runs serially.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._inherited = False
        self._exclusive = threading.Lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._inherited = self.name is not None
        self._exclusive = threading.Lock()
        _threads.seen = threading.local()
        _default_threads.cache_clear()

    def enter(self) -> int:
        """Return the number of threads that the calling thread may use now; pair with `leave` if above 1."""
        count = 1 if is_single_thread() else get_num_threads()
        if count == 1 or (self._inherited and self.name == "omp"):
            return 1
        if getattr(_threads.seen, "count", None) != count:
            numba = load_numba()
            numba.set_num_threads(count)
            _threads.seen.count = count
            self.name = numba.threading_layer()
        if self.name == "workqueue" and not self._exclusive.acquire(blocking=False):
            return 1
        return count

    def leave(self) -> None:
        """End what `enter` began."""
        if self.name == "workqueue":
            self._exclusive.release()


threading_layer = ThreadingLayer()


# Compilation cache


def _user_cache_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local")).expanduser()
    if sys.platform == "darwin":
        return Path("~/Library/Caches").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _source_files() -> list[Path]:
    root = Path(__file__).parent
    return sorted([*root.glob("backends/**/*.py"), root / "_types.py", root / "rng.py", root / "mask.py"])


def _fingerprint() -> str:
    """Return a hash of everything that decides what a compiled kernel is: source, versions, CPU, compiler settings."""
    numba = load_numba()
    from llvmlite import binding

    digest = hashlib.sha256()
    for file in _source_files():
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    cpu = numba.config.CPU_NAME or binding.get_host_cpu_name()
    features = numba.config.CPU_FEATURES
    features = binding.get_host_cpu_features().flatten() if features is None else features
    settings = [f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith(("NUMBA_", "FASTDROP_SIMD"))]
    ignored = (NUMBA_THREADS_VARIABLE, "NUMBA_THREADING_LAYER", "NUMBA_CACHE_DIR")
    settings = [setting for setting in settings if not setting.startswith(ignored)]
    parts = (__version__, numba.__version__, binding.llvm_version_info, sys.version, cpu, features, settings)
    digest.update(repr(parts).encode())
    return digest.hexdigest()[:20]


@cache
def cache_folder() -> Path | None:
    """Return the folder of compiled kernels for exactly this code, Numba and CPU; None where the cache is off.

    The first of FASTDROP_CACHE_DIR, the user's cache folder and the temporary folder that can be written to.
    """
    if os.environ.get(CACHE_VARIABLE, "1") == "0":
        return None
    chosen = os.environ.get(CACHE_DIR_VARIABLE)
    user = f"fastdrop-{os.getuid()}" if hasattr(os, "getuid") else "fastdrop"
    candidates = (
        [Path(chosen).expanduser()] if chosen else [_user_cache_folder() / "fastdrop", Path(tempfile.gettempdir()) / user]
    )
    fingerprint = _fingerprint()
    for candidate in candidates:
        folder = candidate / fingerprint
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError:
            continue
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            continue  # compiled code that somebody else wrote is not run
        return folder
    return None


# What there is to know


def _cpu_name() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _gpu() -> str:
    """Return whether there is a GPU, and what of `CUDA_PACKAGES` is installed for it; nothing of CUDA is loaded."""
    if not any(path.exists() for path in GPU_FILES):
        return "none found"
    installed = []
    for package in CUDA_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed.append(f"{package} {metadata.version(package)}")
    return f"found, {', '.join(installed)}" if installed else 'found, not used: pip install "fastdrop-nn[cuda13]"'


def config() -> dict[str, Any]:
    """Return facts about versions, CPU, threads and cache; loads Numba and its threading layer."""
    import numpy

    numba = load_numba()
    if threading_layer.enter() > 1:
        threading_layer.leave()
    folder = cache_folder()
    entries = list(folder.glob("*.nbc")) if folder is not None else []
    size = sum(file.stat().st_size for file in entries)
    quota = cpu_quota()
    return {
        "fastdrop": __version__,
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "numba": numba.__version__,
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpus": os.cpu_count(),
        "affinity": affinity(),
        "cpu quota": "none" if quota is None else f"{quota:g}",
        "threads": get_num_threads(),
        "threading layer": threading_layer.name or "not started (one thread)",
        "cache": "off" if folder is None else str(folder),
        "cached kernels": f"{len(entries)} ({size / 1e6:.1f} MB)",
        "gpu": _gpu(),
    }


def show_config() -> None:
    """Print versions, CPU, threads, threading layer and the state of the compilation cache."""
    facts = config()
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value}")  # noqa: T201
