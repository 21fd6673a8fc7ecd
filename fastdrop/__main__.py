"""The command line: `fastdrop ...` and `python -m fastdrop ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line with the given arguments (default: those of the process) and exit with its code."""
    if find_spec("click") is None:
        sys.exit('error: the command line needs the package click: pip install "fastdrop-nn[app]"')
    from fastdrop.cli.app import run

    sys.exit(run(arguments))


if __name__ == "__main__":
    main()
