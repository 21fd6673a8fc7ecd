"""The experiment of the articles: the dropout rate of a convolutional network for CIFAR-10, from 0.0 to 0.9.

Convolutions of 64, 128 and 256 channels (3 x 3, relu, with 2 x 2 max-pooling behind each), two dense layers of 512 relu units
with dropout behind both, an output for each of ten classes. What is done is kept; the same command goes on.

few     : 10,000 training images, rates 0.0 to 0.9 in steps of 0.1, 40 epochs, three seeds
all     : all 50,000 training images, four rates, 10 epochs
sigmoid : as few, but sigmoid outputs with categorical cross-entropy, four rates, one seed

python bench/cifar10.py few --data ../shared/data/cifar-10 --processes 2
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from fastdrop.cli.app import run

FOLDER = Path(__file__).parent / "results"
NETWORK = "--filters 64,128,256 --hidden 512,512"
SWEEPS = {
    "few": "--rows 10000 --rates 0.0:0.9:0.1 --seeds 1,2,3 --epochs 40",
    "all": "--rates 0,0.2,0.5,0.8 --seeds 1 --epochs 10",
    "sigmoid": "--rows 10000 --rates 0,0.2,0.5,0.8 --seeds 1 --epochs 40 --outputs sigmoid",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="+", choices=SWEEPS)
    parser.add_argument("--data", required=True, help="folder of the files of CIFAR-10")
    parser.add_argument("--processes", default="1", help="runs at the same time")
    arguments = parser.parse_args()
    for name in arguments.sweeps:
        table = FOLDER / f"cifar10-{name}.csv"
        options = [*shlex.split(f"{NETWORK} {SWEEPS[name]}"), "--data", arguments.data, "--processes", arguments.processes]
        command = ["sweep", *options, "-o", str(table)]
        print(shlex.join(["fastdrop", *command]))
        status = run(command)
        if status:
            sys.exit(status)


if __name__ == "__main__":
    main()
