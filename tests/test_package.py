"""The package as it is shipped: metadata, size, embedded files, and what the README says."""

from __future__ import annotations

import ast
import io
import re
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import fastdrop as fd

PACKAGE = Path(fd.__file__).parent
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAX_WHEEL_BYTES = 1_000_000


def code_blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_version_is_written_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "version" not in project
    assert project["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", fd.__version__)
    literal = [path for path in PACKAGE.rglob("*.py") if f'"{fd.__version__}"' in path.read_text(encoding="utf-8")]
    assert literal == [PACKAGE / "_version.py"]


def test_metadata_of_the_installed_distribution():
    try:
        distribution = metadata.distribution("fastdrop-nn")
    except metadata.PackageNotFoundError:
        pytest.skip("fastdrop-nn is not installed, the tests run from the source tree")
    assert distribution.version == fd.__version__
    (script,) = [entry for entry in distribution.entry_points if entry.group == "console_scripts"]
    assert (script.name, script.value) == ("fastdrop", "fastdrop.__main__:main")
    assert {"app", "test", "bench", "dev"} <= set(distribution.metadata.get_all("Provides-Extra"))


def test_all_that_is_shipped_is_small():
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path)
    assert len(wheel.getvalue()) < MAX_WHEEL_BYTES
    assert {path.suffix for path in files} == {".py", ".npz", ".txt", ".typed"}
    for name in ("py.typed", "data/digits.npz", "data/digits.txt"):
        assert (PACKAGE / name).is_file(), name


def test_the_licence_of_the_digits_is_beside_them():
    text = (PACKAGE / "data/digits.txt").read_text()
    for word in ("Optical Recognition of Handwritten Digits", "E. Alpaydin", "C. Kaynak", "CC BY 4.0", "scikit-learn"):
        assert word in text
        assert word in README


def test_scikit_learn_is_never_imported():
    """But to compare with it."""
    for path in set(PACKAGE.rglob("*.py")) - {PACKAGE / "benchmark/peers/sklearn.py"}:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] in ("sklearn", "scipy", "pickle") for name in names), path


def test_every_public_name_resolves():
    for name in fd.__all__:
        assert getattr(fd, name) is not None
    assert set(fd.__all__) <= set(dir(fd))
    with pytest.raises(AttributeError, match="module 'fastdrop' has no attribute 'nonsense'"):
        fd.nonsense  # noqa: B018


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first is not None
    assert first[1] == fd.__version__


def test_the_commands_of_the_readme_are_those_that_are_checked():
    script = (ROOT / ".ci/run").read_text()
    for command in ('pip install ".[app]" && fastdrop train', 'pip install -e ".[test]" && pytest -n 2'):
        last = command.split(" && ")[1]
        assert re.findall(rf"^    (pip install .*&& {last})$", README, re.MULTILINE) == [command]  # as .ci/run looks for it
        assert f"readme {last}" in script or f"readme '{last}'" in script
    for command in ("ruff check\n", "ruff format --check\n", "mypy\n"):
        assert command in script


def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    blocks = code_blocks("python")
    assert len(blocks) == 4
    assert "epochs=20" in blocks[0]
    scope: dict[str, object] = {}
    exec(blocks[0].replace("epochs=20", "epochs=3"), scope)
    exec(blocks[2], scope)
    assert all(drop.config()["shared_rows"] == "batch" for drop in scope["net"].layers[::2])
    exec(blocks[1], scope)
    assert "'accuracy': 0.9" in capsys.readouterr().out
    assert fd.load("digits.safetensors").labels is None
    assert ((scope["y"] == 0) == (scope["dx"] == 0)).all()


def test_the_variables_of_the_readme_exist():
    source = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    for variable in re.findall(r"^\| `([A-Z_]+)[`=]", README, re.MULTILINE):
        assert f'"{variable}"' in source, variable
