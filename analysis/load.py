"""A run folder, read back: its description and its results table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from robustsearch import results
from robustsearch.devices import comparable
from robustsearch.errors import RunError


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
    """Read a run folder.

    Raises:
        RunError: it is no run folder, holds no results yet, or a file in it cannot be read.
    """
    if not folder.is_dir():
        raise RunError(f"`RUN` must be a folder, but {folder} is none")
    info, table, evaluations = (
        description(folder / "run.json"),
        _results(folder / "results"),
        _read(folder / "evaluations"),
    )
    return Run(folder, info, comparable(results.with_verdicts(table, evaluations)), evaluations)


def description(path: Path) -> Mapping[str, Any]:
    """What a `run.json` says.

    Raises:
        RunError: it is absent, or cannot be read.
    """
    if not path.is_file():
        raise RunError(f"`RUN` must be the folder of a run, with a run.json, but {path.parent} has none")
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"run.json must be readable JSON, but {path} is not: {error}") from error
    if not isinstance(info, dict):
        raise RunError(f"run.json must hold a JSON object, but {path} holds a {type(info).__name__}")
    return info


def _results(folder: Path) -> pa.Table:
    table = _read(folder)
    if not table.num_rows:
        raise RunError(f"a run must have results before it can be analysed, but {folder} has none yet")
    return table


def _read(folder: Path) -> pa.Table:
    try:
        return results.read(folder)
    except (OSError, pa.ArrowException) as error:
        first_line = str(error).partition("\n")[0]
        raise RunError(f"results must be Parquet files of robustsearch, but {folder} is not: {first_line}") from error
