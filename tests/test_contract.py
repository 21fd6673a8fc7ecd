"""The mask contract: known answers, on every backend. Each file of vectors is tested as a whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
from assertions import assert_near

from fastdrop import Key, Mask, rng
from fastdrop._types import MONTE_CARLO_DOMAIN, Domain
from fastdrop.backends.base import AbstractBackend
from fastdrop.mask import BoundMask, threshold_of

FILES = {
    "own": oracle.VECTORS,
    "shared": Path(__file__).parents[2] / "shared" / "contract" / "vectors.json",
}

Entry = dict[str, Any]


def _vectors(kind: str) -> Callable[..., Any]:
    """Parametrise a test over all entries of one kind in all files; a file that is absent is one skipped test."""
    cases = []
    for name, path in FILES.items():
        if not path.exists():
            cases.append(pytest.param(None, id=name, marks=pytest.mark.skip(reason=f"{path} is not here")))
            continue
        entries = json.loads(path.read_text())[kind]
        assert entries, f"{path} holds no vectors of kind {kind}"
        cases += [pytest.param(entry, id=f"{name}{i}") for i, entry in enumerate(entries)]
    return pytest.mark.parametrize("entry", cases)


def _key(entry: Entry) -> Key:
    return Key(entry["seed"], entry["stream"], entry["step"])


def _unpack(text: str, count: int) -> np.ndarray:
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8), bitorder="little")[:count].astype(bool)


def _kept(backend: AbstractBackend, bound: BoundMask) -> np.ndarray:
    """All decisions of a bound mask, asked for through the seam and unpacked."""
    bits = backend.decisions(bound, (0, bound.rows), (0, bound.columns))
    assert bits.dtype == np.uint64
    assert bits.shape == (bound.rows, -(-bound.columns // 64))
    return np.unpackbits(bits.astype("<u8").view(np.uint8), axis=1, bitorder="little")[:, : bound.columns].astype(bool)


def test_committed_vectors_are_the_oracles() -> None:
    """All exactly, but for the normals: the last bit of a sine depends on the C library."""
    committed, computed = json.loads(oracle.VECTORS.read_text()), oracle.vectors()
    for kind, name in (("normals", "values"), ("initialisers", "normals")):
        for mine, wanted in zip(committed[kind], computed[kind], strict=True):
            assert mine.pop(name) == pytest.approx(wanted.pop(name), rel=1e-14)
    assert committed == computed


@_vectors("philox4x32_10")
def test_philox(entry: Entry) -> None:
    counter, key = ([int(w, 16) for w in entry[name]] for name in ("counter", "key"))
    first, second = (np.array([w], dtype=np.uint64) for w in counter[:2])
    got = rng.philox_blocks(first, second, counter[2], counter[3], *key)
    assert [f"{w:08x}" for w in got[0].tolist()] == entry["out"]


@_vectors("words")
def test_words(entry: Entry, backend: AbstractBackend) -> None:
    got = backend.words(_key(entry), entry["domain"], entry["first"], len(entry["words"]))
    assert got.dtype == np.uint32
    assert [f"{w:08x}" for w in got.tolist()] == entry["words"]


@_vectors("bernoulli")
def test_bernoulli(entry: Entry, backend: AbstractBackend) -> None:
    assert float.fromhex(entry["rate_hex"]) == entry["rate"]
    assert threshold_of(entry["rate"]) == entry["threshold"]
    mask = Mask(entry["rate"], _key(entry), row_offset=entry["row_offset"])
    wanted = _unpack(entry["keep_hex"], entry["n"])
    assert wanted.sum() == entry["kept"]
    if 0 < entry["threshold"] < 2**32:
        np.testing.assert_array_equal(_kept(backend, mask.bind((entry["n"],)))[0], wanted)
        np.testing.assert_array_equal(mask.to_array(entry["n"]), wanted)
    else:
        expected = np.full(entry["n"], entry["threshold"] == 0)
        np.testing.assert_array_equal(wanted, expected)


@_vectors("rows")
def test_rows(entry: Entry, backend: AbstractBackend) -> None:
    mask = Mask(entry["rate"], _key(entry), row_offset=entry["row_offset"], shared_rows=entry["shared_rows"])
    shape = (entry["rows"], entry["row_size"])
    wanted = np.stack([_unpack(row, shape[1]) for row in entry["keep_hex"]])
    np.testing.assert_array_equal(mask.to_array(shape), wanted)
    np.testing.assert_array_equal(_kept(backend, mask.bind(shape, as_matrix=True)), wanted)
    np.testing.assert_array_equal(_kept(backend, mask.bind(shape)).reshape(shape), wanted)


@_vectors("noise_shape")
def test_noise_shape(entry: Entry, backend: AbstractBackend) -> None:
    mask = Mask(entry["rate"], _key(entry), row_offset=entry["row_offset"], noise_shape=entry["noise_shape"])
    shape = tuple(entry["shape"])
    noise = [extent if size is None else size for size, extent in zip(entry["noise_shape"], shape, strict=True)]
    wanted = np.broadcast_to(_unpack(entry["mask_hex"], int(np.prod(noise))).reshape(noise), shape)
    np.testing.assert_array_equal(mask.to_array(shape), wanted)
    for as_matrix in (False, True):
        np.testing.assert_array_equal(_kept(backend, mask.bind(shape, as_matrix=as_matrix)).reshape(shape), wanted)


@_vectors("fixed_count")
def test_fixed_count(entry: Entry, backend: AbstractBackend) -> None:
    mask = Mask(entry["rate"], _key(entry), row_offset=entry["row_offset"], shared_rows=entry["shared_rows"], fixed_count=True)
    shape = (entry["rows"], entry["n"])
    wanted = np.stack([_unpack(row, shape[1]) for row in entry["keep_hex"]])
    assert ((~wanted).sum(axis=1) == entry["dropped_per_row"]).all()
    np.testing.assert_array_equal(mask.to_array(shape), wanted)
    np.testing.assert_array_equal(_kept(backend, mask.bind(shape, as_matrix=True)), wanted)


@_vectors("monte_carlo")
def test_monte_carlo(entry: Entry, backend: AbstractBackend) -> None:
    mask = Mask(entry["rate"], Key(entry["seed"], entry["stream"], entry["sample"]))
    bound = mask.bind((entry["n"],), domain_base=MONTE_CARLO_DOMAIN)
    np.testing.assert_array_equal(_kept(backend, bound)[0], _unpack(entry["keep_hex"], entry["n"]))


@_vectors("scale")
@pytest.mark.filterwarnings("ignore::fastdrop.errors.AllDroppedWarning")
def test_scale(entry: Entry, backend: AbstractBackend) -> None:
    bound = Mask(entry["rate"], Key(0, 0, 0)).bind((2, 600))
    scale = float.fromhex(entry["scale_hex"])
    assert bound.scale == scale
    for dtype in (np.float32, np.float64):
        largest = backend.dropout_forward(np.ones((2, 600), dtype), bound).max()
        assert largest == (dtype(scale) if Mask(entry["rate"], Key(0, 0, 0)).to_array((2, 600)).any() else 0)


@_vectors("fixed_count_scale")
def test_fixed_count_scale(entry: Entry, backend: AbstractBackend) -> None:
    bound = Mask(entry["rate"], Key(0, 0, 0), fixed_count=True).bind((2, entry["n"]))
    scale = float.fromhex(entry["scale_hex"])
    assert bound.scale == scale
    for dtype in (np.float32, np.float64):
        assert backend.dropout_forward(np.ones((2, entry["n"]), dtype), bound).max() == dtype(scale)


@_vectors("normals")
def test_normals(entry: Entry) -> None:
    wanted = np.array(entry["values"])
    assert_near(rng.normals(_key(entry), entry["domain"], 2 * entry["first_pair"], len(wanted)), wanted, 1e-14)


@_vectors("initialisers")
def test_initialisers(entry: Entry) -> None:
    key = Key(entry["seed"], entry["ordinal"], 0)
    assert rng.uniforms(key, Domain.INITIALISERS, 0, len(entry["uniforms"])).tolist() == entry["uniforms"]
    wanted = np.array(entry["normals"])
    assert_near(rng.normals(key, Domain.INITIALISERS, 0, len(wanted)), wanted, 1e-14)


@_vectors("shuffle")
def test_shuffle(entry: Entry) -> None:
    assert rng.shuffle_order(entry["seed"], entry["epoch"], entry["n"]).tolist() == entry["order"]


@_vectors("fold_in")
def test_fold_in(entry: Entry) -> None:
    assert _key(entry).fold_in(entry["i"]) == Key(entry["new_seed"], entry["stream"], entry["step"])
