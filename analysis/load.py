"""A run folder, read back: its description and its results table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from robustsearch import results
from robustsearch.devices import comparable
from robustsearch.errors import RunError
from robustsearch.runfolder import RunFolder


@dataclass(frozen=True)
class Run:
    """What a run wrote."""

    folder: Path
    info: Mapping[str, Any]
    """`run.json`: name, space, dataset, seed, command, versions, ...; any of them may be missing."""
    table: pa.Table
    """Every row of `results/`, failed trials included, sorted by trial and epoch; timings of one device type alone."""
    evaluations: pa.Table
    """Every row of `evaluations/`: single networks under another protocol, another split or another gate."""

    @property
    def name(self) -> str:
        """The run's name; its folder's where `run.json` has none."""
        return str(self.info.get("name") or self.folder.resolve().name)


def load(folder: Path) -> Run:
    """Read a run folder, or a run in an object store by its URL.

    Raises:
        RunError: it is no run folder, holds no results yet, or a file in it cannot be read.
    """
    run = RunFolder.fetched(folder)
    folder = run.root
    if not folder.is_dir():
        raise RunError(f"`RUN` must be a folder, but {folder} is none")
    info, evaluations = run.info(), results.read(folder / "evaluations")
    return Run(folder, info, comparable(results.with_verdicts(_results(folder / "results"), evaluations)), evaluations)


def _results(folder: Path) -> pa.Table:
    table = results.read(folder)
    if not table.num_rows:
        raise RunError(f"a run must have results before it can be analysed, but {folder} has none yet")
    return table
