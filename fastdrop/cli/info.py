"""`fastdrop info`."""

from __future__ import annotations

import click

from fastdrop import _config


@click.command()
def info() -> None:
    """Show versions, CPU, threads, threading layer, cache and GPU."""
    _config.show_config()
