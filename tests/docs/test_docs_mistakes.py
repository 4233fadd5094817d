"""docs/first-hour.md is true: each mistake, made for real, has the answer that the page says."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import mistakes

PAGE = Path(__file__).parents[2] / "docs" / "first-hour.md"


def rows() -> list[tuple[str, str, str]]:
    """The command, what it is given, and its answer, of each row of the page."""
    found, command = [], ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            heading = re.match(r"## `python -m ([\w.]+)`", line)
            command = heading[1] if heading else ""
        elif command and (row := re.match(r"\| .*? \| (?:`(.*?)`|nothing) \| (.*) \|$", line)):
            found.append((command, row[1] or "", row[2]))
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("first-hour")
    mistakes.make(folder)
    return folder


@pytest.fixture(autouse=True)
def as_a_command(monkeypatch: pytest.MonkeyPatch, workplace: Path) -> Iterator[None]:
    """In the workplace, with an environment that is put back."""
    monkeypatch.chdir(workplace)
    monkeypatch.syspath_prepend(str(workplace))
    monkeypatch.delitem(sys.modules, "mynet", raising=False)  # another test's
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_the_page_has_mistakes_of_every_command() -> None:
    assert len(rows()) >= 50
    assert len({command for command, _, _ in rows()}) >= 5


@pytest.mark.parametrize(("command", "given", "answer"), rows())
def test_a_mistake_ends_with_the_answer_of_the_page(
    command: str, given: str, answer: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(workplace.rglob("*"))
    try:
        code = importlib.import_module(command).main(shlex.split(given))
    except SystemExit as end:  # argparse's own
        code = end.code
    assert code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    place = 0
    for part in answer.split("…"):
        place = said.find(part, place)
        assert place >= 0, f"{said}\nlacks: {part}"
    assert sorted(workplace.rglob("*")) == before
