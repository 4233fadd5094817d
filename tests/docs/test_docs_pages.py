"""Every block of code in the documentation is run: the guides, in their order, in one folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .pages import OUTPUT, apply, blocks

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDES = ("guides/first-search", "guides/space", "guides/dataset", "ablation", "guides/audit", "guides/extend")
"""In this order: later ones use what earlier ones left."""
TREE = ("robustsearch", "search_spaces", "analysis", "tests")


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A copy of the source tree, to work in and to edit."""
    for name in TREE:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_block_of_the_guides_runs(workplace: Path) -> None:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = os.environ | {"PYTHONPATH": str(workplace), "PATH": path}
    for guide in GUIDES:
        page = DOCS / f"{guide}.md"
        for block in blocks(page):
            if block.kind in OUTPUT or block.proof:
                continue
            try:
                apply(block, workplace, environment)
            except AssertionError as error:
                raise AssertionError(f"{page.relative_to(ROOT)}:{block.line}: {error}") from error


def test_every_guide_is_tried() -> None:
    assert {f"guides/{page.stem}" for page in (DOCS / "guides").glob("*.md")} <= set(GUIDES)


PAGES = sorted([*DOCS.glob("*.md"), *DOCS.glob("guides/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_block_that_is_not_run_names_the_test_that_proves_it(page: Path) -> None:
    for block in blocks(page):
        if block.proof:
            assert (ROOT / block.proof).is_file(), f"{page.name}:{block.line}"
        elif page.relative_to(DOCS).with_suffix("").as_posix() not in GUIDES:
            assert block.kind in OUTPUT or block.kind.startswith("{"), f"{page.name}:{block.line} is run by no test"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    """As `make docs` does, but for the theme: on each page, furo lays out the tree of all pages twice."""
    shutil.copytree(DOCS, tmp_path / "docs")
    for name in ("robustsearch", "search_spaces", "analysis"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"),
            *("-D", "html_theme=basic", "docs", "html"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "html" / "reference" / "robustsearch" / "robustsearch.recipe.html").is_file()
