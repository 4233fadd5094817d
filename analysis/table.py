"""The tables of an ablation: intervals, differences, tests; with the published numbers where the rows are the report's.

    python -m analysis.table RUN [--out DIR]

Writes `table.md`, `table.tex` (booktabs), `table.csv` (every number, one line a cell) and `effects.csv` (on the front's
hypervolume, and of the factors of a factorial) to RUN/figures, and prints the first.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path

from robustsearch.errors import UserError

from .load import Run, load
from .pareto import unwritable
from .table_columns import COLUMNS, Layout
from .table_effects import Line, lines
from .table_notes import notes
from .table_numbers import Cell, Measured, Numbers, layouts, measured, numbers, reference_name

TRIED = "What was tried at each place"
LEVEL = 0.05
"""Differences whose corrected p is below this are marked."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m analysis.table", description="Write the tables of an ablation.")
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for the tables (default: RUN/figures)")
    arguments = parser.parse_args(argv)
    try:
        run = load(arguments.run)
        tables = Tables(run)
        paths = tables.write(arguments.out or run.folder / "figures")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(tables.markdown())
    for path in paths:
        print(path)
    return 0


class Tables:
    """Everything that is shown of an ablation."""

    def __init__(self, run: Run) -> None:
        """Of this run.

        Raises:
            RunError: it is none of a design, or nothing of it was measured.
        """
        self.run = run
        self.found: Measured = measured(run)
        self.numbers: Numbers = numbers(self.found)
        self.layouts = layouts(self.found)
        self.effects = lines(self.found.only(self.found.stood))

    def write(self, folder: Path) -> list[Path]:
        """Write the files into a folder.

        Raises:
            UserError: the folder cannot be written.
        """
        paths = [folder / name for name in ("table.md", "table.tex", "table.csv", "effects.csv")]
        cells = ["table", "row", "column", *(field.name for field in fields(Cell)), "published"]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            paths[0].write_text(self.markdown(), encoding="utf-8")
            paths[1].write_text(self.latex(), encoding="utf-8")
            _write_csv(paths[2], cells, self._cells())
            _write_csv(paths[3], [field.name for field in fields(Line)], (astuple(line) for line in self.effects))
        except OSError as error:
            raise unwritable(folder, error) from error
        return paths

    def _cells(self) -> Iterator[list[object]]:
        for layout in self.layouts:
            for row, cells in self.numbers.items():
                for column in self._columns(layout):
                    published = layout.published.get(row, {}).get(column)
                    share = math.nan if published is None else published / 100
                    title = layout.title if row in self.found.stood else TRIED
                    yield [title, row, column, *astuple(cells[column]), share]

    def _columns(self, layout: Layout) -> list[str]:
        return [column for column in layout.columns if column in self.found.values]

    @property
    def caption(self) -> str:
        """How to read the cells."""
        published = any(layout.published for layout in self.layouts)
        return (
            "Mean over seeds [95% interval over seeds and images; of latency, over seeds]"
            + (" (published value)" if published else "")
            + f". Differences are from {reference_name(self.found.stood)}, paired by seed, in points; of latency, "
            f"ratios. An asterisk marks those with p < {LEVEL:g}, corrected for the rows of a column (Holm). Images "
            "are taken as independent between rows, so intervals are rather too wide than too narrow."
        )

    def markdown(self) -> str:
        """Every table, and the notes."""
        parts = [f"# {self.run.name}", self.caption]
        for title, head, body in self.bodies():
            rows = [head, ["---", *["---:"] * (len(head) - 1)], *body]
            parts += [f"## {title}", "\n".join(f"| {' | '.join(row)} |" for row in rows)]
        parts.append("\n".join(f"- {note}" for note in notes(self.numbers, self.found)))
        return "\n\n".join(part for part in parts if part) + "\n"

    def latex(self) -> str:
        """The same for a paper, as tabulars of booktabs; titles, the caption and the notes are comments."""
        comments = [f"% {line}" for line in (self.run.name, self.caption, *notes(self.numbers, self.found))]
        tabulars = []
        for title, head, body in self.bodies():
            rows = [" & ".join(_escaped(cell) for cell in row) + r" \\" for row in (head, *body)]
            columns = "l" + "r" * (len(head) - 1)
            ruled = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"]
            tabulars.append("\n".join([f"% {title}", *ruled, r"\end{tabular}"]))
        return "\n".join(comments) + "\n" + "\n\n".join(tabulars) + "\n"

    def bodies(self) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """Title, headings and lines of each table: values, differences without the first row, further effects."""
        reference = reference_name(self.found.stood)
        for layout in self.layouts:
            columns = self._columns(layout)
            head = ["row", *(COLUMNS[column].heading for column in columns), "seeds"]
            values, differences = [], []
            for place, name in enumerate(self.found.stood):
                cells = self.numbers[name]
                seeds, known = str(max(cell.seeds for cell in cells.values())), layout.published.get(name, {})
                own = [(cells[key], COLUMNS[key].timed, known.get(key)) for key in columns]
                values.append([name, *(_value(cell, timed, published) for cell, timed, published in own), seeds])
                if place:
                    differences.append([name, *(_difference(cell, timed) for cell, timed, _ in own), seeds])
            yield layout.title, head, values
            if differences:
                yield f"{layout.title}: differences from {reference}", head, differences
        if self.found.places:
            yield TRIED, *self._tried()
        for kind, title in (
            ("front", "What each row adds to the front's hypervolume, in points of robust accuracy within a budget"),
            ("factor", "Factors: high level minus low, and how far they act together"),
        ):
            chosen = [line for line in self.effects if line.kind == kind]
            if chosen:
                aliased = any(line.aliases for line in chosen)
                head = ["row" if kind == "front" else "term", "column", "effect [95%]", "p", *["same as"] * aliased]
                yield title, head, [_effect(line, aliased) for line in chosen]

    def _tried(self) -> tuple[list[str], list[list[str]]]:
        """Headings and lines of what a gaining path tried: accuracies, and what each adds to what was taken before."""
        columns = [column for column in ("robust", "adaptive") if column in self.found.values]
        headings = [text for column in columns for text in (COLUMNS[column].heading, "difference")]
        body = []
        for place in self.found.places:
            for row in place.tried:
                known = self.numbers.get(row)
                cells = [known[column] for column in columns] if known else []
                values = [text for cell in cells for text in (_value(cell, False, None), _difference(cell, False))]
                failed = str(self.found.failed.get(row, 0))
                body.append([row, *(values or ["–"] * len(headings)), failed, "taken" if row == place.taken else ""])
        return ["row", *headings, "failed", ""], body


def _write_csv(path: Path, head: list[str], rows: Iterator[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for row in rows:
            writer.writerow("" if isinstance(value, float) and math.isnan(value) else value for value in row)


def _value(cell: Cell, timed: bool, published: float | None) -> str:
    if math.isnan(cell.mean):
        return "–"
    factor, digits = (1, 2) if timed else (100, 1)
    text = f"{factor * cell.mean:.{digits}f}"
    if not math.isnan(cell.low):
        text += f" [{factor * cell.low:.{digits}f}, {factor * cell.high:.{digits}f}]"
    return text if published is None else f"{text} ({published:.4g})"


def _difference(cell: Cell, timed: bool) -> str:
    if math.isnan(cell.difference):
        return "–"
    return _change(cell.difference, cell.difference_low, cell.difference_high, timed, "*" if cell.p < LEVEL else "")


def _effect(line: Line, aliased: bool) -> list[str]:
    change = _change(line.effect, line.low, line.high, COLUMNS[line.column].timed, "*" if line.p < LEVEL else "")
    p = "–" if math.isnan(line.p) else f"{line.p:.2g}"
    return [line.name, line.column, change, p, *[line.aliases] * aliased]


def _change(effect: float, low: float, high: float, timed: bool, mark: str) -> str:
    if timed:
        return f"×{effect:.2f}{mark} [{low:.2f}, {high:.2f}]"
    return f"{100 * effect:+.1f}{mark} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _escaped(text: str) -> str:
    for character in "%_&#":
        text = text.replace(character, rf"\{character}")
    return text.replace("×", r"$\times$").replace("–", "--")


if __name__ == "__main__":
    sys.exit(main())
