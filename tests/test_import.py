"""`import fastdrop` is light: NumPy, and nothing that takes time. Each test is a process of its own."""

from __future__ import annotations

import json

import pytest
from subprocesses import run

HEAVY = ["numba", "llvmlite", "safetensors", "click", "tqdm", "matplotlib", "tbb", "optuna", "sqlalchemy"]


LIST_MODULES = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"


def _loaded(code: str, **settings: str) -> set[str]:
    """Top-level names of the modules that are loaded after the code has run."""
    return set(json.loads(run(f"{code}\n{LIST_MODULES}", **settings).splitlines()[-1]))


def test_import_loads_numpy_at_most() -> None:
    loaded = _loaded("import fastdrop as fd")
    assert not loaded & set(HEAVY)


def test_import_loads_only_the_package_itself() -> None:
    """Submodules come with the first use of a name."""
    own = run("import fastdrop, sys; print(sorted(name for name in sys.modules if name.startswith('fastdrop')))")
    assert own == "['fastdrop', 'fastdrop._version']"


@pytest.mark.parametrize(
    "code",
    [
        "fd.Mask(0.5, fd.Key(0, 0, 0)).to_array((3, 4))",
        "fd.Key(1, 2, 3).fold_in(4)",
        "fd.Sequential([fd.Dropout(0.2), fd.Dense(3, activation='relu')], input_shape=(4,), seed=0).summary()",
        "fd.optim.SGD(0.1); fd.losses; fd.metrics; fd.callbacks; fd.data; fd.init; fd.schedules; fd.constraints; fd.activations",
        "fd.get_num_threads()",
        "[getattr(fd, name) for name in fd.__all__]",
    ],
)
def test_describing_a_network_loads_nothing_heavy(code: str) -> None:
    loaded = _loaded(f"import fastdrop as fd\n{code}")
    assert "numpy" in loaded
    assert not loaded & set(HEAVY)


def test_the_reference_backend_needs_no_numba() -> None:
    code = "import fastdrop as fd, numpy as np\nfd.dense(np.ones((2, 3)), np.ones((3, 4)), activation='gelu')[1](np.ones((2, 4)))"
    assert "numba" not in _loaded(code, FASTDROP_BACKEND="reference")


def test_the_first_kernel_loads_numba() -> None:
    """The counterpart of the others: what they look for is really there when it is needed."""
    code = "import fastdrop as fd, numpy as np\nfd.dropout(np.ones((2, 3), np.float32), fd.Mask(0.5, fd.Key(0, 0, 0)))"
    assert "numba" in _loaded(code)


def test_an_unknown_backend_is_an_error() -> None:
    code = """
        import fastdrop as fd, numpy as np
        try:
            fd.dropout(np.ones(3, np.float32), fd.Mask(0.5, fd.Key(0, 0, 0)))
        except fd.FastdropError as error:
            print(error)
    """
    assert run(code, FASTDROP_BACKEND="gpu") == "`backend` must be one of cpu, cuda, reference, got 'gpu'"
