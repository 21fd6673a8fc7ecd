"""Where the results of a training run go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fastdrop._files import check_writable
from fastdrop.errors import OutputError
from fastdrop.experiments.figures import check_plot


def pictures_beside(output: Path, no_plot: bool) -> list[Path]:
    """Return the names of the pictures of a table or study; raises unless every one can be drawn and written."""
    pictures = [] if no_plot else [output.with_suffix(ending) for ending in (".png", ".svg")]
    for picture in pictures:
        check_plot(picture)
        check_writable(picture)
    return pictures


@dataclass(frozen=True)
class Outputs:
    """The files that `fastdrop train` writes."""

    model: Path
    history: Path
    plot: Path | None
    checkpoint: Path

    @classmethod
    def of(cls, model: Path, history: Path | None, plot: Path | None, no_plot: bool, checkpoint: Path | None) -> Outputs:
        """Return the paths, where not given beside the model; raises unless every one can be written."""
        check_writable(model)
        outputs = cls(
            model,
            history or model.with_name(f"{model.stem}-history.csv"),
            None if no_plot else plot or model.with_name(f"{model.stem}-history.png"),
            checkpoint or model.with_name(f"{model.stem}-checkpoint.safetensors"),
        )
        paths = [path for path in (outputs.model, outputs.history, outputs.plot, outputs.checkpoint) if path is not None]
        for path in paths:
            check_writable(path)
        if len({path.resolve() for path in paths}) < len(paths):
            raise OutputError(f"{model}: two outputs have the same name")
        if outputs.plot is not None:
            check_plot(outputs.plot)
        return outputs

    def describe(self) -> str:
        """Return the files, a line each."""
        plot = "" if self.plot is None else f"\nplot {self.plot}"
        return f"model {self.model}\nhistory {self.history}{plot}"
