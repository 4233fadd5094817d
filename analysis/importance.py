"""Which fields of the recipe move which objective: a table, and three figures for paper.

    python -m analysis.importance RUN [--epoch E] [--out DIR]

Writes `importance` (shares of variance with intervals), `slices` (each important field against each objective) and
`parallel` (all trials over the important fields), each as `.png`, `.svg` and `.pdf`, to RUN/figures, and names them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from rich import box
from rich.console import Console
from rich.table import Table

from robustsearch.errors import RunError, UserError
from robustsearch.pareto import OBJECTIVES, above_floor, is_front, objectives

from .fields import Field, fields
from .front_text import percent
from .importance_figure import draw_parallel, draw_shares, draw_slices
from .importance_numbers import PARTS, RESAMPLES, Values, comparable, importance
from .load import Run, load
from .paper import save
from .pareto import console, unwritable

SHOWN = 12
"""Most fields in the table and in the figure of shares."""

SLICED = 5
"""Most fields in slices and parallel coordinates."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 where the input is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.importance", description="Which fields of the recipe move which objective."
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument(
        "--epoch", metavar="E", type=int, help="rung to compare trials at (default: that of most trials)"
    )
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for the figures (default: RUN/figures)")
    arguments = parser.parse_args(argv)
    try:
        run = load(arguments.run)
        rows = comparable(run.table, arguments.epoch)
        found = fields(rows)
        if not found:
            raise RunError("importance needs a field that differs between trials, but these all have the same recipe")
        shares = importance(rows, found)
        order = list(dict.fromkeys(shares["field"].to_pylist()))
        found.sort(key=lambda field: order.index(field.name))
        paths = write(run, rows, shares, found, arguments.out or run.folder / "figures")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    show(run, rows, shares, found, console())
    for path in paths:
        print(path)
    return 0


def terms(run: Run, rows: pa.Table) -> str:
    """Which trials were compared."""
    return f"{run.name}: {len(rows)} trials of the sampler, measured after epoch {rows['epoch'][0]}."


EXPLAINED = (
    "Share of the variance of the objective's rank that the field explains alone (first-order functional ANOVA); "
    f"scales are cut into {PARTS} parts. 95% intervals from {RESAMPLES} half-samples. Noise level, dashed: what the "
    f"best of all fields stays below in 95% of {RESAMPLES} permutations."
)
SLICES = (
    "Grey: trials. Blue: median of a level, or of a fifth of a scale, with its 95% interval by order statistics (six "
    "trials or more). off: that part of the recipe is off."
)
PARALLEL = (
    "A line is a trial. Coloured: dominated by none of these trials; yellow is the most robust, purple the fastest. "
    "off: that part of the recipe is off."
)


def write(run: Run, rows: pa.Table, shares: pa.Table, found: Sequence[Field], folder: Path) -> list[Path]:
    """Draw the three figures, of fields in falling order of importance, into a folder.

    Raises:
        UserError: the folder cannot be written.
    """
    values: dict[str, Values] = {name: rows[name].to_numpy() for name in OBJECTIVES}
    points = objectives(rows)
    front = is_front(np.where(above_floor(points)[:, None], points, np.nan))
    sliced = found[:SLICED]
    captions = {name: f"{terms(run, rows)} {text}" for name, text in _CAPTIONS.items()}
    figures = {
        "importance": draw_shares(shares, found[:SHOWN], captions["importance"]),
        "slices": draw_slices(sliced, values, captions["slices"]),
        "parallel": draw_parallel(sliced, values, front, captions["parallel"]),
    }
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures.items():
            paths += save(figure, folder, name, f"{name.capitalize()} of {run.name}", captions[name])
    except OSError as error:
        raise unwritable(folder, error) from error
    return paths


_CAPTIONS = {"importance": EXPLAINED, "slices": SLICES, "parallel": PARALLEL}


def show(run: Run, rows: pa.Table, shares: pa.Table, found: Sequence[Field], console: Console) -> None:
    """Print the shares as a table, and how they were computed."""
    table = Table(title=f"Importance in {run.name}", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("field", no_wrap=True)
    for heading in ("trials", *(f"  {name} % [95%]" for name in OBJECTIVES)):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("  says the same", no_wrap=True)
    by_name = {(row["field"], row["objective"]): row for row in shares.to_pylist()}
    for field in found[:SHOWN]:
        cells = [by_name[field.name, objective] for objective in OBJECTIVES]
        table.add_row(
            field.name,
            str(cells[0]["trials"]),
            *(
                f"{percent(cell['explained'])} [{percent(cell['low'])}, {percent(cell['high'])}]"
                + ("*" if cell["explained"] > cell["noise"] else " ")
                for cell in cells
            ),
            f"  {', '.join(field.also)}",
        )
    console.print(table)
    noise = ", ".join(f"{name} {percent(by_name[found[0].name, name]['noise'])}%" for name in OBJECTIVES)
    rest = f" {len(found) - SHOWN} more fields explain less." if len(found) > SHOWN else ""
    lines = f"{terms(run, rows)} {EXPLAINED} Here: {noise}; above it: *.{rest}"
    console.print(lines.replace(", dashed", ""), markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
