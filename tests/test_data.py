"""Readers of data files: what they return, and what each says of a file that is wrong."""

from __future__ import annotations

import gzip
import lzma
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import fastdrop as fd
from fastdrop.data import Dataset, load, load_inputs, read_cifar10, read_csv, read_idx, read_npz
from fastdrop.errors import ArgumentTypeError, ArgumentValueError, FileFormatError, MissingFileError
from fastdrop.rng import shuffle_order

IDX_CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
SEED = 20240


def idx_bytes(array: np.ndarray) -> bytes:
    code = IDX_CODES[array.dtype.str[1:]]
    return (
        struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, 256, shape, dtype=np.uint8)


def write_mnist(folder: Path, train: int = 7, test: int = 3, ending: str = ".gz") -> tuple[np.ndarray, np.ndarray]:
    compress: Callable[[bytes], bytes] = gzip.compress if ending == ".gz" else bytes
    images, labels = pixels(train + test, 4, 5), np.arange(train + test, dtype=np.uint8) % 3
    for name, rows in (("train", slice(0, train)), ("t10k", slice(train, None))):
        (folder / f"{name}-images-idx3-ubyte{ending}").write_bytes(compress(idx_bytes(images[rows])))
        (folder / f"{name}-labels-idx1-ubyte{ending}").write_bytes(compress(idx_bytes(labels[rows])))
    return images, labels


def cifar_records(count: int, first_label: int = 0) -> bytes:
    records = pixels(count, 3073)
    records[:, 0] = (first_label + np.arange(count)) % 10
    return records.tobytes()


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


# IDX


@settings(deadline=None, max_examples=40)
@given(data=st.data(), code=st.sampled_from(sorted(IDX_CODES)), compressed=st.booleans())
def test_read_idx_returns_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, code: str, compressed: bool
):
    array = data.draw(
        npst.arrays(
            np.dtype(code), npst.array_shapes(max_dims=4, max_side=4), elements={"allow_nan": False} if code[0] == "f" else None
        )
    )
    content = idx_bytes(array)
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if compressed else "a")
    path.write_bytes(gzip.compress(content) if compressed else content)
    result = read_idx(path)
    assert result.dtype == array.dtype
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_folder_of_idx_files(tmp_path: Path, ending: str):
    images, labels = write_mnist(tmp_path, ending=ending)
    dataset = load(tmp_path)
    assert (dataset.name, dataset.image_shape, dataset.labels) == (tmp_path.name, (4, 5, 1), ("0", "1", "2"))
    assert dataset.x_train.dtype == np.float32
    assert dataset.y_test.dtype == np.int64
    np.testing.assert_array_equal(dataset.x_train, images[:7, ..., np.newaxis].astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(dataset.y_test, labels[7:])


def test_idx_names_with_a_dot_and_a_prefix_are_recognised(tmp_path: Path):
    (tmp_path / "emnist-letters-train-images.idx3-ubyte").write_bytes(idx_bytes(pixels(10, 2, 2)))
    (tmp_path / "emnist-letters-train-labels.idx1-ubyte").write_bytes(idx_bytes(np.arange(10, dtype=np.uint8)))
    dataset = load(tmp_path)
    assert len(dataset.x_train) == 8
    assert len(dataset.x_test) == 2


def cut(content: bytes) -> bytes:
    return content[:-1]


IDX = idx_bytes(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a", b"", "not an IDX file: it begins with nothing"),
        ("a", b"\0\0\x08", "not an IDX file"),
        ("a", b"\x89PNG\r\n", "not an IDX file: it begins with 89 50 4e 47"),
        ("a", b"\0\0\x07\x01" + bytes(8), "not an IDX file: it begins with 00 00 07 01"),
        ("a", IDX[:10], "truncated: its header promises 12 bytes, 6 are there"),
        ("a", cut(IDX), "truncated: its header promises 12 bytes, 11 are there"),
        ("a", IDX + b"\0", "more data than its header promises"),
        ("a", struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**20, 8), "more than the 17179869184 that are read"),
        (
            "a",
            struct.pack(">4B2I", 0, 0, 8, 2, 2**16, 2**17) + b"\1\2",
            "truncated: its header promises 8589934592 bytes, 2 are there",
        ),
        ("a.gz", IDX, "damaged, truncated or unreadable: Not a gzipped file"),
        ("a.gz", gzip.compress(IDX, mtime=0)[:-9], "damaged, truncated or unreadable: Compressed file ended"),
        ("a.gz", gzip.compress(IDX, mtime=0)[:-1] + b"\x7f", "damaged, truncated or unreadable"),
        ("a.xz", lzma.compress(IDX)[:20], "damaged, truncated or unreadable"),
        ("a.xz", b"no xz at all", "damaged, truncated or unreadable"),
    ],
)
def test_malformed_idx_files(tmp_path: Path, name: str, content: bytes, words: str):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="^" + str(path)) as caught:
        read_idx(path)
    assert words in str(caught.value)


def test_idx_counts_must_agree(tmp_path: Path):
    write_mnist(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(4, np.uint8))))
    with pytest.raises(FileFormatError, match=r"4 labels for the 3 images in t10k-images-idx3-ubyte\.gz"):
        load(tmp_path)


def test_missing_idx_labels_are_named(tmp_path: Path):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(MissingFileError, match=r"train-labels-idx1-ubyte: the labels of train-images-idx3-ubyte\.gz are missing"):
        load(tmp_path)


def test_idx_labels_that_are_images_are_refused(tmp_path: Path):
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx_bytes(pixels(7, 2, 2))))
    with pytest.raises(FileFormatError, match=r"one column of class numbers or names, got shape \(7, 2, 2\) of uint8"):
        load(tmp_path)


# CIFAR-10


@pytest.mark.parametrize(("ending", "compress"), [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress)])
def test_a_folder_of_cifar10_files(tmp_path: Path, ending: str, compress: Callable[[bytes], bytes]):
    (tmp_path / f"data_batch_1.bin{ending}").write_bytes(compress(cifar_records(4)))
    (tmp_path / f"data_batch_2.bin{ending}").write_bytes(compress(cifar_records(3, 4)))
    (tmp_path / f"test_batch.bin{ending}").write_bytes(compress(cifar_records(2, 8)))
    dataset = load(tmp_path)
    assert (dataset.x_train.shape, dataset.x_test.shape, dataset.classes) == ((7, 32, 32, 3), (2, 32, 32, 3), 10)
    assert dataset.labels[3] == "cat"
    np.testing.assert_array_equal(dataset.y_train, np.arange(7))
    planes = np.frombuffer(cifar_records(4), np.uint8).reshape(4, 3073)[:, 1:].reshape(4, 3, 32, 32)
    np.testing.assert_array_equal(dataset.x_train[2, 5, 6], planes[2, :, 5, 6].astype(np.float32) / np.float32(255))


def test_cifar10_batches_that_are_there_twice_count_once(tmp_path: Path):
    (tmp_path / "data_batch_1.bin").write_bytes(cifar_records(5))
    (tmp_path / "data_batch_1.bin.xz").write_bytes(lzma.compress(cifar_records(5)))
    dataset = load(tmp_path)
    assert len(dataset.x_train) + len(dataset.x_test) == 5


def test_read_cifar10_takes_one_path_or_several(tmp_path: Path):
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(cifar_records(3))
    one, several = read_cifar10(path), read_cifar10([path, str(path)])
    assert one[0].shape == (3, 32, 32, 3)
    assert one[0].dtype == np.uint8
    np.testing.assert_array_equal(several[0], np.concatenate([one[0], one[0]]))
    np.testing.assert_array_equal(several[1], [0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "0 bytes are no multiple of a record's 3073"),
        (cut(cifar_records(2)), "6145 bytes are no multiple"),
        (cifar_records(1) + b"\x0a" + bytes(3072), "label out of range: 10 in record 1, wanted 0 to 9"),
    ],
)
def test_malformed_cifar10_files(tmp_path: Path, content: bytes, words: str):
    path = tmp_path / "data_batch_1.bin"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=words):
        load(tmp_path)


def test_a_cifar10_bomb_is_refused_while_it_unpacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fastdrop.data.cifar10.MAX_RECORDS", 10)
    path = tmp_path / "data_batch_1.bin.xz"
    path.write_bytes(lzma.compress(bytes(3073 * 11)))
    with pytest.raises(FileFormatError, match="more than 10 records"):
        read_cifar10(path)


# npz


def test_an_archive_with_a_test_part(tmp_path: Path):
    x = np.linspace(-3, 3, 24).reshape(6, 4)
    path = npz(tmp_path / "a.npz", x_train=x[:4], y_train=np.array([[2], [0], [1], [1]]), x_test=x[4:], y_test=np.array([3, 0]))
    dataset = load(path)
    np.testing.assert_array_equal(dataset.x_train, x[:4].astype(np.float32))
    np.testing.assert_array_equal(dataset.y_train, [2, 0, 1, 1])
    assert (dataset.labels, dataset.image_shape, dataset.name) == (("0", "1", "2", "3"), None, "a")


def test_an_archive_without_a_test_part_is_split_by_a_fixed_shuffle(tmp_path: Path):
    x = np.arange(22, dtype=np.float32).reshape(11, 2)
    dataset = load(npz(tmp_path / "a.npz", x=x, y=np.arange(11) % 2))
    order = shuffle_order(0, 0, 11)
    np.testing.assert_array_equal(dataset.x_train, x[order[:9]])
    np.testing.assert_array_equal(dataset.x_test, x[order[9:]])
    np.testing.assert_array_equal(dataset.y_test, order[9:] % 2)


def test_bytes_are_pixels_and_other_numbers_keep_their_values(tmp_path: Path):
    y = np.zeros(2, int)
    images = load(npz(tmp_path / "a.npz", x_train=pixels(2, 3), y_train=y, x_test=pixels(2, 3), y_test=y))
    counts = load(npz(tmp_path / "b.npz", x_train=np.array([[7, 300]]), y_train=y[:1], x_test=np.array([[1, 2]]), y_test=y[:1]))
    assert images.x_train.max() <= 1
    np.testing.assert_array_equal(counts.x_train, [[7, 300]])


def test_an_archive_with_class_names(tmp_path: Path):
    x = np.zeros((5, 1), np.float32)
    dataset = load(
        npz(tmp_path / "a.npz", x_train=x, y_train=np.array(["b", "a", "c", "a", "b"]), x_test=x[:1], y_test=np.array(["c"]))
    )
    assert dataset.labels == ("a", "b", "c")
    np.testing.assert_array_equal(dataset.y_train, [1, 0, 2, 0, 1])
    np.testing.assert_array_equal(dataset.y_test, [2])


@settings(deadline=None, max_examples=40)
@given(
    data=st.data(),
    dtype=st.sampled_from(["?", "u1", "i8", ">i4", "f2", "f4", ">f8", "U3"]),
    compressed=st.booleans(),
    fortran=st.booleans(),
)
def test_read_npz_agrees_with_numpy(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, dtype: str, compressed: bool, fortran: bool
):
    array = data.draw(npst.arrays(np.dtype(dtype), npst.array_shapes(min_dims=0, min_side=0, max_side=5)))
    path = tmp_path_factory.mktemp("npz") / "a.npz"
    (np.savez_compressed if compressed else np.savez)(path, x=np.asfortranarray(array) if fortran else array, y=np.arange(3))
    with np.load(path) as expected:
        result = read_npz(path)
        assert list(result) == ["x", "y"]
        assert result["x"].dtype == expected["x"].dtype
        assert result["x"].tobytes() == expected["x"].tobytes()
        assert result["x"].shape == expected["x"].shape


def npy_entry(header: str, data: bytes = b"") -> bytes:
    padded = header.encode() + b" " * 20 + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + data


def archive(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in entries.items():
            file.writestr(f"{name}.npy", content)
    return path


F4 = "{'descr': '<f4', 'fortran_order': False, 'shape': %s}"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (b"", "array x: no NumPy header"),
        (b"\x93NUMPX\x01\x00", "array x: no NumPy header"),
        (npy_entry("{'descr': '<f4'}"), "array x: no NumPy header"),
        (npy_entry("__import__('os').abort()"), "array x: no NumPy header"),
        (npy_entry(F4 % "(2, 3)", bytes(23)), "array x: its header promises 24 bytes, 23 are there"),
        (npy_entry(F4 % "(2, 3)", bytes(25)), "more data than its header promises"),
        (npy_entry(F4 % "(2, -3)", bytes(24)), r"must hold numbers or text, got float32 of shape \(2, -3\)"),
        (npy_entry(F4 % "(1099511627776, 1024)", bytes(8)), "more than the 17179869184 that are read"),
        (npy_entry(F4 % "(1000000, 1000)", bytes(8)), "truncated: array x: its header promises 4000000000 bytes, 8 are there"),
        (
            npy_entry("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"\x80\x04N."),
            "holds Python objects, which are never",
        ),
        (
            npy_entry("{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}", bytes(8)),
            "must hold numbers or text, got complex64",
        ),
    ],
)
def test_malformed_arrays_in_an_archive(tmp_path: Path, entry: bytes, words: str):
    with pytest.raises(FileFormatError, match=words):
        load(archive(tmp_path / "a.npz", x=entry, y=npy_entry(F4 % "(0,)")))


X4 = np.zeros((4, 2), np.float32)
Y4 = np.array([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"z": X4}, "no array x_train or x in the archive"),
        ({"x": X4}, "no array y in the archive, but x"),
        ({"x": X4, "y": Y4[:3]}, "4 rows of data but 3 labels"),
        ({"x": X4[:1], "y": Y4[:1]}, "needs at least two rows"),
        ({"x": X4[:0], "y": Y4[:0]}, r"at least one of each, got \(0, 2\)"),
        ({"x": X4[:, :0], "y": Y4}, r"at least one of each, got \(4, 0\)"),
        ({"x": X4[:, 0], "y": Y4}, r"must be of shape \(rows, features, ...\)"),
        ({"x": np.array([["a"], ["b"]]), "y": Y4[:2]}, "x must hold numbers, got <U1"),
        ({"x": X4, "y": np.array([0, 1, -1, 1])}, "label out of range: -1 in row 2, wanted 0 to 65535"),
        ({"x": X4, "y": np.array([0, 1, 2, 2**40])}, "label out of range: 1099511627776 in row 3"),
        ({"x": X4, "y": np.array([0.5, 1, 2, 3])}, "class numbers or names, got shape (4,) of float64"),
        ({"x": X4, "y": np.eye(4, dtype=int)}, "class numbers or names, got shape (4, 4) of int64"),
        ({"x": X4, "y": np.array([["a"]] * 4)}, "class names must be one column"),
        ({"x": X4 + np.float32(np.nan), "y": Y4}, "x holds NaN or inf (or numbers beyond float32), first in row 0"),
        ({"x": np.array([[0.0], [1e39]]), "y": Y4[:2]}, "x holds NaN or inf (or numbers beyond float32), first in row 1"),
        (
            {"x_train": X4, "y_train": Y4, "x_test": X4[:, :1], "y_test": Y4},
            "training rows of shape (2,) but test rows of shape (1,)",
        ),
    ],
)
def test_archives_that_are_no_data_set(tmp_path: Path, arrays: dict[str, np.ndarray], words: str):
    with pytest.raises(FileFormatError) as caught:
        load(npz(tmp_path / "a.npz", **arrays))
    assert words.replace("\\", "") in str(caught.value)


@pytest.mark.parametrize("code", ["<u4", ">u4"])
@pytest.mark.parametrize(
    ("point", "words"), [(0x110000, "array y is not valid text"), (0xD800, "class names are not valid text")]
)
def test_names_that_are_no_unicode_are_refused(tmp_path: Path, code: str, point: int, words: str):
    header = f"{{'descr': '{code[0]}U1', 'fortran_order': False, 'shape': (4,)}}"
    y = npy_entry(header, np.array([97, 98, point, 97], code).tobytes())
    with pytest.raises(FileFormatError, match=words):
        load(archive(tmp_path / "a.npz", x=npy_entry(F4 % "(4, 2)", bytes(32)), y=y))


@pytest.mark.parametrize("content", [b"", b"no zip", zipfile.ZipFile])
def test_a_file_that_is_no_archive(tmp_path: Path, content: object):
    path = npz(tmp_path / "a.npz", x=X4, y=Y4)
    path.write_bytes(content if isinstance(content, bytes) else path.read_bytes()[:-30])
    with pytest.raises(FileFormatError, match=r"a\.npz: damaged, truncated or unreadable"):
        load(path)


# csv


def test_a_table_with_a_header_and_names(tmp_path: Path):
    table = read_csv(text(tmp_path / "a.csv", "width;Class ;height\n1;cat;2.5\n\n-3e2;a dog;4\n"))
    np.testing.assert_array_equal(table.x, np.array([[1, 2.5], [-300, 4]], np.float32))
    assert table.labels == ("cat", "a dog")
    assert table.names == ("width", "height")


def test_a_table_without_a_header(tmp_path: Path):
    table = read_csv(text(tmp_path / "a.csv", "\ufeff1,2,x\n3,4,y\n"))
    np.testing.assert_array_equal(table.x, [[1, 2], [3, 4]])
    assert (table.labels, table.names) == (("x", "y"), None)


def test_a_header_of_numbers_is_known_by_its_label_column(tmp_path: Path):
    table = read_csv(text(tmp_path / "a.tsv", "label\t0\t1\n7\t0.5\t1\n"))
    assert (table.labels, table.names, table.x.tolist()) == (("7",), ("0", "1"), [[0.5, 1.0]])


def test_a_table_without_labels(tmp_path: Path):
    path = text(tmp_path / "a.csv", "1,2\n3,4\n")
    assert read_csv(path, features=2).labels is None
    assert read_csv(path, features=1).labels == ("2", "4")
    assert read_csv(path).labels == ("2", "4")


def test_classes_of_a_table_are_in_the_order_of_numbers_or_of_the_alphabet(tmp_path: Path):
    rows = [f"{row},{label}" for row, label in enumerate(("10", "9", "2", "10"))]
    numbers = load(text(tmp_path / "a.csv", "\n".join(rows)))
    names = load(text(tmp_path / "b.csv", "\n".join(row + "x" for row in rows)))
    assert (numbers.labels, names.labels) == (("2", "9", "10"), ("10x", "2x", "9x"))
    everything = sorted(
        zip(numbers.x_train[:, 0].tolist() + numbers.x_test[:, 0].tolist(), [*numbers.y_train, *numbers.y_test], strict=True)
    )
    assert everything == [(0, 2), (1, 1), (2, 0), (3, 2)]


def test_a_compressed_table(tmp_path: Path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"1,a\n2,b\n3,a\n"))
    assert load(path).labels == ("a", "b")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no rows with features"),
        ("\n\n", "no rows with features"),
        ("x,y\n", "no rows with features"),
        ("a\nb\n", "no rows with features"),
        ("1,2,a\n1,b\n", "line 2: 2 columns, the first line has 3"),
        ("1,2,a\n1,2,b,3\n", "line 2: 4 columns, the first line has 3"),
        ("1,2,a\n1,two,b\n", "line 2: not a number: 'two'"),
        ("1,2,a\n1,,b\n", "line 2: not a number: ''"),
        ("1,2,a\n1,2, \n", "line 2: the label is empty"),
        ("1,2,a\n1,nan,b\n", "the table holds NaN or inf (or numbers beyond float32), first in row 1"),
        ("1,2,a\n1,1e60,b\n", "the table holds NaN or inf (or numbers beyond float32), first in row 1"),
        ('1,2,a\n1,"2\n', "after line"),
        ("1,2,a\n", "needs at least two rows"),
    ],
)
def test_malformed_tables(tmp_path: Path, content: str, words: str):
    path = text(tmp_path / "a.csv", content)
    with pytest.raises(FileFormatError) as caught:
        load(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_table_that_is_not_text(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"1,2,a\n\xff\xfe\xfd,2,b\n")
    with pytest.raises(FileFormatError, match="not a text file in UTF-8"):
        load(path)


# digits, load, load_inputs, Dataset


def test_digits_are_complete_and_split_in_five():
    dataset = load()
    assert isinstance(dataset, Dataset)
    assert (dataset.x_train.shape, dataset.x_test.shape, dataset.labels) == ((1438, 8, 8, 1), (359, 8, 8, 1), tuple("0123456789"))
    everything = np.concatenate([dataset.y_train, dataset.y_test])
    np.testing.assert_array_equal(np.bincount(everything), [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    assert dataset.x_train.min() == 0
    assert dataset.x_train.max() == 1
    assert float(np.concatenate([dataset.x_train, dataset.x_test]).sum(dtype=np.float64)) * 16 == 561718
    assert dataset.flat().x_train.shape == (1438, 64)


def test_hold_out_takes_training_rows_only():
    dataset = load().flat()
    watched = dataset.hold_out(0.25)
    assert (len(watched.x_train), len(watched.x_test)) == (1078, 360)
    together = np.concatenate([watched.x_train, watched.x_test])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(dataset.x_train, axis=0))
    for fraction in (0.0, 1.0, 1.5, float("nan")):
        with pytest.raises(ArgumentValueError, match=r"`fraction` must be in \(0, 1\)"):
            dataset.hold_out(fraction)
    assert len(dataset.hold_out(1e-9).x_test) == 1
    assert len(dataset.hold_out(1 - 1e-9).x_train) == 1


def test_nothing_known_at_a_path(tmp_path: Path):
    with pytest.raises(MissingFileError, match="nowhere: no such file or folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(MissingFileError, match="no known data in this folder; wanted a folder of IDX"):
        load(tmp_path)
    with pytest.raises(FileFormatError, match=r"a\.txt: unknown kind of file; wanted"):
        load(text(tmp_path / "a.txt", "1,2\n"))
    for reader in (read_idx, read_npz, read_csv, read_cifar10):
        with pytest.raises(MissingFileError, match="no such file or folder"):
            reader(tmp_path / "nowhere")
        with pytest.raises(ArgumentTypeError, match="must be a path, got int"):
            reader(3)
        with pytest.raises(FileFormatError, match="Is a directory"):
            reader(tmp_path)
    for path in ("", "a\0b"):
        with pytest.raises(ArgumentValueError, match="`path` must be the name of a file or folder"):
            load(path)
    with pytest.raises(ArgumentValueError, match="`paths` must be at least one file"):
        read_cifar10([])


def test_load_inputs_of_every_kind(tmp_path: Path):
    images, _ = write_mnist(tmp_path)
    expected = images.reshape(10, 20).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(load_inputs(tmp_path, 20), expected[7:])
    np.testing.assert_array_equal(load_inputs(tmp_path / "train-images-idx3-ubyte.gz", 20), expected[:7])
    x = np.array([[1, 2], [3, 4]], np.float32)
    np.testing.assert_array_equal(load_inputs(npz(tmp_path / "a.npz", x=x), 2), x)
    np.testing.assert_array_equal(load_inputs(npz(tmp_path / "b.npz", x_train=x[:1], x_test=x), 2), x)
    np.testing.assert_array_equal(load_inputs(text(tmp_path / "a.csv", "1,2\n3,4\n"), 2), x)
    np.testing.assert_array_equal(load_inputs(text(tmp_path / "b.csv", "1,2,a\n3,4,b\n"), 2), x)
    assert load_inputs("digits", 64).shape == (359, 64)
    assert load_inputs("digits", (8, 8, 1)).shape == (359, 8, 8, 1)


def test_a_folder_with_one_archive(tmp_path: Path):
    x = np.array([[1, 2], [3, 4]], np.float32)
    npz(tmp_path / "a.npz", x=x, y=np.array([0, 1]))
    np.testing.assert_array_equal(load_inputs(tmp_path, 2), x)
    assert load(tmp_path).x_train.shape == (1, 2)
    npz(tmp_path / "b.npz", x=x, y=np.array([0, 1]))
    with pytest.raises(MissingFileError, match=r"no known data in this folder; wanted .* a \.npz archive or a folder with one"):
        load(tmp_path)
    with pytest.raises(MissingFileError, match="no known data in this folder"):
        load_inputs(tmp_path, 2)


def test_load_inputs_of_images(tmp_path: Path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 2, 3, 2)
    path = npz(tmp_path / "a.npz", x=images)
    np.testing.assert_array_equal(load_inputs(path, (2, 3, 2)), images / np.float32(255))
    np.testing.assert_array_equal(load_inputs(path, 12), images.reshape(2, 12) / np.float32(255))
    with pytest.raises(FileFormatError, match=r"images of shape \(2, 3, 2\), but the network takes \(2, 2, 3\)"):
        load_inputs(path, (2, 2, 3))
    with pytest.raises(FileFormatError, match=r"images of shape \(2, 3, 2\), but the network takes \(2, 3, 1\)"):
        load_inputs(path, (2, 3, 1))
    single = npz(tmp_path / "b.npz", x=images[..., 0])
    np.testing.assert_array_equal(load_inputs(single, (2, 3, 1)), images[..., :1] / np.float32(255))
    np.testing.assert_array_equal(load_inputs(text(tmp_path / "a.csv", "1,2,3,4\n"), (2, 2, 1)), [[[[1], [2]], [[3], [4]]]])


def test_load_inputs_refuses_other_numbers_of_features(tmp_path: Path):
    path = text(tmp_path / "a.csv", "1,2,3,a\n")
    with pytest.raises(FileFormatError, match="rows of 3 features, but the network takes 2"):
        load_inputs(path, 2)
    with pytest.raises(FileFormatError, match="no array x or x_test in the archive"):
        load_inputs(npz(tmp_path / "a.npz", z=X4), 2)
    with pytest.raises(FileFormatError, match="unknown kind of file"):
        load_inputs(text(tmp_path / "a.txt", ""), 2)


def test_the_module_is_reached_from_the_package():
    assert fd.data.load is load
