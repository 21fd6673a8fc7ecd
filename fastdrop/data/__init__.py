"""Readers of data files, and `load`, which recognises what lies at a path.

Formats: folders of IDX files (MNIST and its relatives), folders of CIFAR-10 binary files, ``.npz`` archives, ``.csv`` tables,
and the embedded handwritten digits under the name "digits".
"""

from fastdrop.data.cifar10 import read_cifar10
from fastdrop.data.dataset import Dataset
from fastdrop.data.idx import read_idx
from fastdrop.data.loading import load, load_inputs
from fastdrop.data.npz import read_npz
from fastdrop.data.table import Table, read_csv

__all__ = ["Dataset", "Table", "load", "load_inputs", "read_cifar10", "read_csv", "read_idx", "read_npz"]
