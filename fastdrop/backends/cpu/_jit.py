"""How kernels are compiled, cached and launched: the only module that names Numba's options.

`device` is for functions that kernels call; `kernel` makes a `Kernel`: two compiled twins of one Python body, a parallel one
and a serial one, each compiled at its first call and kept in the compilation cache.

A kernel's last parameter is `threads`; its body is ``for t in prange(threads): ...`` over blocks of work that depend on t and
threads only in who does what, never in the result.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import IO, Any, TypeVar

from fastdrop._config import cache_folder, load_numba, threading_layer

numba = load_numba()
from numba.core import caching  # noqa: E402  (numba comes in through load_numba, with its environment prepared)

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
INNER_OPTIONS: dict[str, Any] = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
JIT_DISABLED = bool(numba.config.DISABLE_JIT)
NOTICE_SECONDS = 1.5
LOCK_PATIENCE_SECONDS = 180.0
LOCK_POLL_SECONDS = 0.05

PARALLEL_NANOSECONDS = 40_000
"""Work below this estimate is done by the serial twin: starting threads would cost more than it saves."""


def device(function: Function) -> Function:
    """Compile a function that is called by kernels."""
    return numba.njit(**INNER_OPTIONS)(function)  # type: ignore[no-any-return]


class _FileLock:
    """A lock between processes on one cache entry; waits a limited time, and a dead holder frees it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None

    def acquire(self) -> None:
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        self._file = self._path.open("ab")
        while not self._try() and time.monotonic() < deadline:
            time.sleep(LOCK_POLL_SECONDS)

    def _try(self) -> bool:
        assert self._file is not None
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(self._file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """Puts every kernel into the package's own cache folder, whose name already says source, versions and CPU."""

    def __init__(self, folder: Path, module: str) -> None:
        self._folder, self._module = folder, module

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._folder.name

    def get_disambiguator(self) -> str:
        return hashlib.sha256(self._module.encode()).hexdigest()[:8]

    @classmethod
    def from_function(cls, py_func: FunctionType, py_file: str) -> _Locator:  # noqa: ARG003
        folder = cache_folder()
        assert folder is not None
        return cls(folder, py_func.__module__)


class _CacheImpl(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_Locator]  # noqa: RUF012


class _Notice:
    """One line on stderr, once a process, when compiling takes long."""

    given = False

    def __init__(self, name: str) -> None:
        self._timer = threading.Timer(NOTICE_SECONDS, self._give, [name])
        self._timer.daemon = True
        self._timer.start()

    @classmethod
    def _give(cls, name: str) -> None:
        if not cls.given:
            cls.given = True
            again = "this happens once" if cache_folder() is not None else "the cache is off"
            print(f"fastdrop: compiling kernels for this CPU, starting with {name} ({again})", file=sys.stderr)  # noqa: T201

    def end(self) -> None:
        self._timer.cancel()


class _KernelCache(caching.FunctionCache):  # type: ignore[misc]
    """Numba's function cache that survives damaged files and lets one of many processes compile."""

    _impl_class = _CacheImpl

    def __init__(self, function: FunctionType) -> None:
        super().__init__(function)
        self._lock = _FileLock(Path(self._cache_path) / f"{self._impl.filename_base}.lock")
        self._notice: _Notice | None = None

    def _try_load(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged entry can fail in any way while it is unpickled
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = self._try_load(sig, target_context)
        if found is None:
            with contextlib.suppress(OSError):
                self._lock.acquire()
            found = self._try_load(sig, target_context)
            if found is None:
                self._notice = _Notice(self._py_func.__name__)
            else:
                self._lock.release()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            with contextlib.suppress(OSError):
                super().save_overload(sig, data)
        finally:
            if self._notice is not None:
                self._notice.end()
            self._lock.release()


class Kernel:
    """Two compiled twins of one Python body; see the module's docstring."""

    def __init__(self, body: FunctionType) -> None:
        self.name = body.__name__
        self.__doc__ = body.__doc__
        self.serial = self._twin(body, parallel=False)
        self.parallel = self._twin(body, parallel=True)

    @staticmethod
    def _twin(body: FunctionType, *, parallel: bool) -> Callable[..., Any]:
        if JIT_DISABLED:
            return body
        suffix = "parallel" if parallel else "serial"
        twin = FunctionType(body.__code__, body.__globals__, f"{body.__name__}_{suffix}", body.__defaults__, body.__closure__)
        twin.__qualname__ = twin.__name__  # Numba's cache keys on this and not on its options
        twin.__module__ = body.__module__
        dispatcher = numba.njit(parallel=parallel, **OPTIONS)(twin)
        if cache_folder() is not None:
            dispatcher._cache = _KernelCache(twin)
        return dispatcher  # type: ignore[no-any-return]

    def __call__(self, nanoseconds: float, *args: Any) -> Any:
        """Run the kernel on `args` and a thread count that suits `nanoseconds` of estimated single-thread work."""
        if nanoseconds < PARALLEL_NANOSECONDS:
            return self.serial(*args, 1)
        threads = threading_layer.enter()
        if threads == 1:
            return self.serial(*args, 1)
        try:
            return self.parallel(*args, threads)
        finally:
            threading_layer.leave()


def kernel(function: Callable[..., Any]) -> Kernel:
    """Make a kernel of a function whose last parameter is `threads`."""
    assert isinstance(function, FunctionType)
    return Kernel(function)


def max_scratch_threads() -> int:
    """Return how many threads scratch must be made for."""
    return int(numba.config.NUMBA_NUM_THREADS)
