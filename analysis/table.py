"""The table of an ablation: intervals, differences, tests; with the published numbers where the rows are the report's.

    python -m analysis.table RUN [--out DIR]

Writes `table.md`, `table.tex` (booktabs) and `table.csv` (every number, one line a cell) to RUN/figures, and prints the
first.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path

from robustsearch.errors import UserError

from .load import Run, load
from .pareto import unwritable
from .table_numbers import ACCURACIES, COLUMNS, LATENCY, Cell, Numbers, notes, numbers

HEADINGS = {name: f"{heading} %" for name, heading in ACCURACIES.items()} | {LATENCY: "p50 ms"}
LEVEL = 0.05
"""Differences whose corrected p is below this are marked."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m analysis.table", description="Write the table of an ablation.")
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for the tables (default: RUN/figures)")
    arguments = parser.parse_args(argv)
    try:
        run = load(arguments.run)
        table = numbers(run)
        paths = write(run, table, arguments.out or run.folder / "figures")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(markdown(run, table))
    for path in paths:
        print(path)
    return 0


def write(run: Run, table: Numbers, folder: Path) -> list[Path]:
    """Write the three files into a folder.

    Raises:
        UserError: the folder cannot be written.
    """
    paths = [folder / f"table.{ending}" for ending in ("md", "tex", "csv")]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths[0].write_text(markdown(run, table), encoding="utf-8")
        paths[1].write_text(latex(run, table), encoding="utf-8")
        with paths[2].open("w", newline="", encoding="utf-8") as file:
            lines = csv.writer(file)
            lines.writerow(["row", "column", *(field.name for field in fields(Cell))])
            for name, cells in table.items():
                lines.writerows([name, column, *map(_plain, astuple(cell))] for column, cell in cells.items())
    except OSError as error:
        raise unwritable(folder, error) from error
    return paths


def caption(table: Numbers) -> str:
    """How to read the cells."""
    reference = next(iter(table))
    published = any(cell.published is not None for cells in table.values() for cell in cells.values())
    return (
        "Mean over seeds [95% interval over seeds and images; of latency, over seeds]"
        + (" (published value)" if published else "")
        + f". Differences are from {reference}, paired by seed, in points; of latency, ratios. An asterisk marks those "
        f"with p < {LEVEL:g}, corrected for the rows of a column (Holm). Images are taken as independent between rows, "
        "so intervals are rather too wide than too narrow."
    )


def markdown(run: Run, table: Numbers) -> str:
    """Both tables, values and differences, and the notes."""
    head = ["row", *(HEADINGS[column] for column in COLUMNS), "seeds"]
    parts = [f"# {run.name}", caption(table)]
    for body in bodies(table):
        lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append("\n".join(f"- {note}" for note in notes(table, run)))
    return "\n\n".join(part for part in parts if part) + "\n"


def latex(run: Run, table: Numbers) -> str:
    """The same for a paper, as two tabulars of booktabs; the caption and the notes are comments."""
    comments = [f"% {line}" for line in (run.name, caption(table), *notes(table, run))]
    head = ["row", *(HEADINGS[column] for column in COLUMNS), "seeds"]
    tabulars = []
    for body in bodies(table):
        lines = [" & ".join(_escaped(cell) for cell in line) + r" \\" for line in (head, *body)]
        columns = "l" + "r" * (len(head) - 1)
        rows = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
        tabulars.append("\n".join([*rows, r"\end{tabular}"]))
    return "\n".join(comments) + "\n" + "\n\n".join(tabulars) + "\n"


def bodies(table: Numbers) -> list[list[list[str]]]:
    """The lines of values, and those of differences without the first row; each with its row's name and seeds."""
    values, differences = [], []
    for place, (name, cells) in enumerate(table.items()):
        seeds = str(max(cell.seeds for cell in cells.values()))
        values.append([name, *(_value(cells[column], column) for column in COLUMNS), seeds])
        if place:
            differences.append([name, *(_difference(cells[column], column) for column in COLUMNS), seeds])
    return [body for body in (values, differences) if body]


def _value(cell: Cell, column: str) -> str:
    if math.isnan(cell.mean):
        return "–"
    factor, digits = (1, 2) if column == LATENCY else (100, 1)
    text = f"{factor * cell.mean:.{digits}f}"
    if not math.isnan(cell.low):
        text += f" [{factor * cell.low:.{digits}f}, {factor * cell.high:.{digits}f}]"
    return text if cell.published is None else f"{text} ({100 * cell.published:.4g})"


def _difference(cell: Cell, column: str) -> str:
    if math.isnan(cell.difference):
        return "–"
    mark = "*" if cell.p < LEVEL else ""
    if column == LATENCY:
        return f"×{cell.difference:.2f}{mark} [{cell.difference_low:.2f}, {cell.difference_high:.2f}]"
    return f"{100 * cell.difference:+.1f}{mark} [{100 * cell.difference_low:+.1f}, {100 * cell.difference_high:+.1f}]"


def _plain(value: float | None) -> float | str:
    """A number for CSV; empty where there is none."""
    return "" if value is None or math.isnan(value) else value


def _escaped(text: str) -> str:
    for character in "%_&#":
        text = text.replace(character, rf"\{character}")
    return text.replace("×", r"$\times$").replace("–", "--")


if __name__ == "__main__":
    sys.exit(main())
