"""The fenced blocks of a page of the documentation, and what is to be done with each.

A block of Python whose first line is a comment with a file name belongs to that file: `# my_space.py` is the whole
file, `# FILE, in NAME` comes right after the line that begins with NAME, `# FILE, before NAME` right above it. Other
Python is run as it stands, and `bash` line by line. `text` is output. A comment `<!-- proved by tests/x.py -->` above
a block, or `<!-- blocks proved by tests/x.py -->` for a whole page, says which test runs it instead.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(
    r"^(?:<!-- proved by (?P<proof>[\w./-]+) -->\n\n?)?```(?P<kind>[\w{}:-]*)[^\n]*\n(?P<text>.*?)^```$",
    flags=re.DOTALL | re.MULTILINE,
)
PLACE = re.compile(r"# (?P<file>[\w./-]+\.py)(?:, (?P<where>in|before) (?P<name>[\w ]+))?\n")
OUTPUT = ("text", "", "yaml", "toml")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    kind: str
    text: str
    line: int
    """Of the page, where its text begins."""
    proof: str | None
    """The test that runs it instead."""


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    source = page.read_text()
    proof = re.search(r"^<!-- blocks proved by ([\w./-]+) -->$", source, flags=re.MULTILINE)
    for found in FENCE.finditer(source):
        line = source.count("\n", 0, found.start("text")) + 1
        yield Block(found["kind"], found["text"], line, found["proof"] or (proof and proof[1]))


def apply(block: Block, folder: Path, environment: dict[str, str]) -> None:
    """Do in `folder` what a block says.

    Raises:
        AssertionError: a command fails, or there is no place for an edit.
    """
    if block.kind == "bash":
        for command in block.text.replace("\\\n", " ").splitlines():
            _run(["bash", "-ec", command], folder, environment)
    elif block.kind == "python":
        place = PLACE.match(block.text)
        if place is None:
            _run([sys.executable, "-c", block.text], folder, environment)
        elif place["where"] is None:
            (folder / place["file"]).write_text(block.text)
        else:
            path = folder / place["file"]
            path.write_text(_edited(path.read_text(), place, block.text[place.end() :]))
    else:
        raise AssertionError(f"nobody knows how to try a block of kind {block.kind!r}")


def _edited(source: str, place: re.Match[str], addition: str) -> str:
    anchor = re.search(rf"^{place['name']}\b.*\n", source, flags=re.MULTILINE)
    assert anchor, f"{place['file']} has no line that begins with {place['name']}"
    at = anchor.end() if place["where"] == "in" else anchor.start()
    return source[:at] + addition + source[at:]


def _run(command: list[str], folder: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
