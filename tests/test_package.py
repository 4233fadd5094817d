"""The installed package: what the wheel holds and what it puts at the top of site-packages."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import robustsearch

ROOT = Path(__file__).parents[1]


def test_every_package_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    own = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "robustsearch").rglob("__init__.py")}
    assert set(listed) == own | {"robustsearch.analysis", "robustsearch.search_spaces"}


def test_version_is_stated_once() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == robustsearch.__version__


@pytest.mark.slow
def test_the_wheel_holds_everything_under_one_name_and_runs(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0] for name in names} == {
        "robustsearch",
        f"robustsearch-{robustsearch.__version__}.dist-info",
    }
    for folder in ("robustsearch", "analysis", "search_spaces"):
        inside = "robustsearch" if folder == "robustsearch" else f"robustsearch/{folder}"
        for path in (path for suffix in ("py", "c") for path in (ROOT / folder).rglob(f"*.{suffix}")):
            assert f"{inside}/{path.relative_to(ROOT / folder)}" in names
    code = (
        "import robustsearch.run, robustsearch.search_spaces as s, robustsearch.analysis.pareto as p;"
        "print(robustsearch.__file__, p.__file__, s.names())"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert shown.count(str(tmp_path / "site")) == 2
    assert "['joint', 'lwta', 'mix', 'pni', 'table1']" in shown
