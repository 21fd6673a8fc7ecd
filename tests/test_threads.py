"""Threads: one count for all, the same bits for any, safe from many Python threads and after a fork."""

from __future__ import annotations

import os
import threading
from importlib import metadata
from pathlib import Path

import pytest
from subprocesses import finish, run, start

import fastdrop as fd
from fastdrop import _config

RESULTS = """
    import hashlib, numpy as np
    import fastdrop as fd
    from fastdrop._types import ActivationKind
    from fastdrop.backends.select import backend

    def results():
        ops, digest = backend("cpu"), hashlib.sha256()
        rng = np.random.default_rng(0)
        x, dy = rng.standard_normal((129, 300), dtype="float32"), rng.standard_normal((129, 257), dtype="float32")
        w, b = rng.standard_normal((300, 257), dtype="float32"), rng.standard_normal(257, dtype="float32")
        m_in = fd.Mask(0.2, fd.Key(1, 0, 3)).bind(x.shape, as_matrix=True)
        m_out = fd.Mask(0.3, fd.Key(1, 1, 3), fixed_count=True).bind(dy.shape, as_matrix=True)
        for act in ActivationKind:
            y, z = ops.dense_forward(x, w, b, act, m_in, m_out, True)
            dw, db = np.empty_like(w), np.empty_like(b)
            dx = ops.dense_backward(dy, x, w, y, z, act, m_in, m_out, True, dw, db, False)
            for array in (y, dx, dw, db):
                digest.update(array.tobytes())
        big = rng.standard_normal((1000, 1025), dtype="float32")
        y, backward = fd.dropout(big, fd.Mask(0.1, fd.Key(2, 0, 0), row_offset=5))
        digest.update(y.tobytes() + backward(big).tobytes())
        digest.update(repr(ops.sum_of_squares(big)).encode())
        loss, grad = ops.softmax_cross_entropy(big, np.arange(1000), None, 1000.0)
        digest.update(repr(loss).encode() + grad.tobytes())
        return digest.hexdigest()
"""


def test_the_bits_are_the_same_for_1_2_3_and_5_threads() -> None:
    code = (
        RESULTS
        + """
    found = set()
    for count in (1, 2, 3, 5):
        fd.set_num_threads(count)
        assert fd.get_num_threads() == count
        found.add(results())
    print(len(found))
    """
    )
    assert run(code, NUMBA_NUM_THREADS="5") == "1"


FIT = """
    import hashlib, itertools, sys
    import numpy as np
    import fastdrop as fd
    from fastdrop import activations, optim

    fd.set_num_threads(COUNT)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((300, 400), dtype="float32"), rng.integers(0, 10, 300)
    names = sorted(activations.FUNCTIONS, key=lambda name: name != "heaviside")  # first: no gradient passes through it
    kinds = {"relu": {"fixed_count": True}, "selu": {"shared_rows": 3}}

    def trained(optimizer):
        layers = []
        for number, name in enumerate(names):
            layers.append(fd.Dropout((0.2, 0.5, 0.1)[number % 3], **kinds.get(name, {})))
            layers.append(fd.Dense(300 + 37 * number, activation=name))
        net = fd.Sequential([*layers, fd.Dropout(0.5), fd.Dense(10)], input_shape=(400,), seed=1)
        before = {name: value.copy() for name, value in net.state_dict().items()}
        history = net.fit(x, labels, epochs=2, batch_size=128, optimizer=optimizer, progress=False)
        assert np.isfinite(history.history["loss"]).all()
        digest = hashlib.sha256(repr(history.history).encode())
        for number, (name, value) in enumerate(net.state_dict().items()):
            assert np.isfinite(value).all()
            assert number < 2 or not (value == before[name]).all(), name
            digest.update(value)
        return digest.hexdigest()

    optimizers = optim.SGD(0.1, momentum=0.9), optim.Adam(0.001), optim.SGD(0.1, momentum=0.9, nesterov=True, clip_norm=0.1)
    print(*map(trained, optimizers))
"""
"""Train a network of every activation by several optimizers; print a digest of weights and history of each."""


def test_training_has_the_same_bits_with_1_2_3_and_5_threads() -> None:
    counts = (1, 2, 3, 5)
    processes = [start(FIT.replace("COUNT", str(count)), NUMBA_NUM_THREADS=str(count)) for count in counts]
    digests = [finish(process)[0].split() for process in processes]
    assert digests == [digests[0]] * len(counts)
    assert len(set(digests[0])) == 3


def test_every_python_thread_sees_the_count() -> None:
    code = """
    import threading, numpy as np
    import fastdrop as fd
    from twins import record_kernel, numba

    seen = []
    def work():
        ids, sums = np.full(64, -1), np.zeros(64)
        record_kernel(1e9, 20000, ids, sums)
        seen.append((fd.get_num_threads(), numba.get_num_threads(), int(ids.max()) + 1))

    fd.set_num_threads(3)
    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    work()
    assert [(a, b) for a, b, _ in seen] == [(3, 3)] * 3, seen
    assert all(c <= 3 for _, _, c in seen), seen
    """
    run(code, NUMBA_NUM_THREADS="5", FASTDROP_CACHE="0")


@pytest.mark.parametrize("state", ["cold", "warm"])
def test_the_serial_twin_uses_one_thread(state: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp() / "twins"
    code = """
    import numpy as np
    from twins import record_kernel, numba

    numba.get_num_threads()  # starts the threading layer, which get_thread_id in the serial twin needs
    def threads_used(nanoseconds):
        ids, sums = np.full(64, -1), np.zeros(64)
        record_kernel(nanoseconds, 20000, ids, sums)
        return len(set(ids.tolist()))

    assert all(threads_used(0) == 1 for _ in range(20))
    assert any(threads_used(1e9) > 1 for _ in range(200))  # a busy machine may run all parts on one
    print(sum(record_kernel.serial.stats.cache_hits.values()) + sum(record_kernel.parallel.stats.cache_hits.values()))
    """
    assert run(code, NUMBA_NUM_THREADS="3", FASTDROP_CACHE_DIR=folder) == ("0" if state == "cold" else "2")


@pytest.mark.parametrize("layer", ["tbb", "omp", "workqueue"])
def test_four_python_threads_at_once(layer: str) -> None:
    code = (
        RESULTS
        + """
    import threading
    from fastdrop._config import threading_layer
    wanted, found = results(), []
    threads = [threading.Thread(target=lambda: found.append(results())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [wanted] * 4
    print(threading_layer.name)
    """
    )
    assert run(code, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2") == layer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.parametrize("layer", ["tbb", "omp", "workqueue"])
def test_a_forked_child_works(layer: str) -> None:
    code = (
        RESULTS
        + """
    import os
    wanted = results()
    child = os.fork()
    if child == 0:
        os._exit(0 if results() == wanted else 3)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
    assert results() == wanted
    """
    )
    run(code, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="2")


def test_a_container_quota_limits_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(_config, "CGROUP_V2_QUOTA", quota)
    monkeypatch.setattr(_config, "affinity", lambda: 64)
    for text, wanted in (("max 100000\n", 64), ("150000 100000\n", 2), ("50000 100000\n", 1), ("nonsense\n", 64)):
        quota.write_text(text)
        assert _config.available_cpus() == wanted
    quota.unlink()
    v1_quota, v1_period = tmp_path / "quota", tmp_path / "period"
    monkeypatch.setattr(_config, "CGROUP_V1_QUOTA", v1_quota)
    monkeypatch.setattr(_config, "CGROUP_V1_PERIOD", v1_period)
    v1_period.write_text("100000\n")
    for text, wanted in (("-1\n", 64), ("400000\n", 4)):
        v1_quota.write_text(text)
        assert _config.available_cpus() == wanted


def test_the_default_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes longer than many a kernel."""
    before = fd.get_num_threads()
    monkeypatch.setattr(_config, "affinity", lambda: pytest.fail("looked for again"))
    assert fd.get_num_threads() == before


def test_kernels_of_a_thread_that_shares_the_work_are_serial() -> None:
    layer = _config.threading_layer
    with _config.single_thread():
        with _config.single_thread():
            assert layer.enter() == 1
        assert layer.enter() == 1
    assert not _config.is_single_thread()


def test_numba_starts_no_more_threads_than_the_quota() -> None:
    code = """
    import os
    from fastdrop import _config
    _config.affinity = lambda: 64
    _config.cpu_quota = lambda: 1.5
    numba = _config.load_numba()
    assert "NUMBA_NUM_THREADS" not in os.environ
    print(numba.config.NUMBA_NUM_THREADS, _config.get_num_threads())
    """
    assert run(code) == "2 2"


def test_setting_the_count() -> None:
    before = fd.get_num_threads()
    try:
        fd.set_num_threads(1)
        assert fd.get_num_threads() == 1
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(fd.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [1]
    finally:
        fd.set_num_threads(before)


def test_bad_counts() -> None:
    most = _config.max_threads()
    with pytest.raises(ValueError, match=rf"`n` must be in \[1, {most}\], got 0"):
        fd.set_num_threads(0)
    with pytest.raises(ValueError, match=rf"`n` must be in \[1, {most}\], got {most + 1}"):
        fd.set_num_threads(most + 1)
    with pytest.raises(TypeError, match="`n` must be an integer, got float"):
        fd.set_num_threads(2.0)  # type: ignore[arg-type]


def _has_tbb() -> bool:
    try:
        metadata.version("tbb")
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.skipif(not _has_tbb(), reason="tbb has wheels for Linux and Windows on x86-64 only")
def test_tbb_is_found_in_a_virtual_environment() -> None:
    assert run("from fastdrop._config import config; print(config()['threading layer'])", NUMBA_NUM_THREADS="2") == "tbb"
