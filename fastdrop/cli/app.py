"""The commands together, and the one place where errors become a line of text and an exit code."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import click

from fastdrop._version import __version__
from fastdrop.cli.bench import bench
from fastdrop.cli.info import info
from fastdrop.cli.predict import predict
from fastdrop.cli.sweep import sweep
from fastdrop.cli.train import EXIT_INTERRUPTED, train
from fastdrop.cli.tune import tune
from fastdrop.errors import FastdropError

EXIT_ERROR = 1


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="fastdrop")
def app() -> None:
    """Fast dropout networks on ordinary CPUs.

    \b
    Examples:
      fastdrop train                              train on the embedded handwritten digits
      fastdrop train --data mnist --epochs 30     train on a folder of IDX files
      fastdrop sweep --rates 0.0:0.9:0.1          the same with ten rates, and the picture of what they do
      fastdrop tune --hidden 256,256 --epochs 10  search for the rates, the learning rate and the width
      fastdrop predict model.safetensors x.csv -o classes.csv
      fastdrop bench                              how fast this machine is, next to other libraries
      fastdrop info                               versions, CPU, threads, cache
    """


app.add_command(train)
app.add_command(sweep)
app.add_command(tune)
app.add_command(predict)
app.add_command(bench)
app.add_command(info)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 for an error, 2 for wrong usage, 130 when interrupted."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            result = app.main(given, prog_name="fastdrop", standalone_mode=False, obj=given)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except (FastdropError, OSError, MemoryError) as error:
        click.echo(f"error: {str(error) or 'out of memory'}", err=True)
        return EXIT_ERROR
    return result if isinstance(result, int) else 0


def _show_warning(message: Warning | str, category: type[Warning], *place: object, **more: object) -> None:  # noqa: ARG001
    """Print a warning as one line, without the place in the code that means nothing here."""
    click.echo(f"warning: {message}", err=True)
