"""The Pareto front of a run: robust accuracy against latency, as a table, figures for paper, and a page.

    python -m analysis.pareto RUN [--color FIELD] [--third COLUMN] [--out DIR]
    python -m analysis.pareto RUN RUN ... [--out DIR]

Writes `pareto.png`, `.svg`, `.pdf` and `.html` to RUN/figures, prints the front, and names the files. With a third
objective the front is that of three, the files are `pareto-COLUMN.*`, and colour shows it. Of several runs
it draws what they attain together (`attainment`), as `attainment.png`, `.svg` and `.pdf`, in the first run's figures.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
from rich import box
from rich.console import Console
from rich.table import Table

from robustsearch.errors import UserError
from robustsearch.pareto import THIRD
from robustsearch.recipe import Recipe

from . import attainment, style
from .front import front_rows, front_table
from .front_figure import draw
from .front_page import page
from .front_text import caption, count, interval, masking, milliseconds, percent, probability, terms
from .load import Run, load
from .paper import save


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m analysis.pareto", description="Draw the Pareto front of runs.")
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="folder of a run; several are compared")
    parser.add_argument(
        "--color", metavar="FIELD", help="setting of the recipe that colours the points: lwta.gate, ..."
    )
    parser.add_argument("--third", metavar="COLUMN", help=f"a third objective: {', '.join(THIRD)}")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for the figures (default: RUN/figures)")
    arguments = parser.parse_args(argv)
    try:
        runs = [load(folder) for folder in arguments.runs]
        third = arguments.third
        if third is not None and third not in THIRD:
            raise UserError(f"`--third` must be one of {', '.join(THIRD)}, but got {third!r}")
        tables = [front_table(run.table, third) for run in runs]
        folder = arguments.out or runs[0].folder / "figures"
        if len(runs) > 1:
            if arguments.color is not None or third is not None:
                raise UserError(f"`--color` and `--third` are for the points of one run, but got {len(runs)} runs")
            paths = write_attainment(runs, tables, folder)
        else:
            field = arguments.color if arguments.color is not None else third
            colours = style.colours(tables[0], field) if field is not None else None
            paths = write(runs[0], tables[0], colours, folder, third)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if len(runs) > 1:
        console().print(attainment.caption(runs, tables), markup=False, highlight=False)
    else:
        show(runs[0], tables[0], console(), third)
    for path in paths:
        print(path)
    return 0


def console() -> Console:
    """Standard output; wide enough for the table where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 160)


def write(
    run: Run, points: pa.Table, colours: style.Colours | None, folder: Path, third: str | None = None
) -> list[Path]:
    """Draw every figure of a `front_table` into a folder.

    Raises:
        UserError: the folder cannot be written.
    """
    below = caption(run, points, third)
    stem = f"pareto-{third}" if third else "pareto"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = save(draw(points, below, colours), folder, stem, f"Pareto front of {run.name}", below)
        html = folder / f"{stem}.html"
        html.write_text(page(run, points, below, colours), encoding="utf-8")
    except OSError as error:
        raise unwritable(folder, error) from error
    return [*paths, html]


def write_attainment(runs: Sequence[Run], tables: Sequence[pa.Table], folder: Path) -> list[Path]:
    """Draw what several runs attain, given the `front_table` of each, into a folder.

    Raises:
        UserError: the runs cannot be compared, or the folder cannot be written.
    """
    attainment.check(runs, tables)
    below = attainment.caption(runs, tables)
    names = [run.name for run in runs]
    figure = attainment.draw(dict(zip(names, tables, strict=True)), below)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return save(figure, folder, "attainment", f"Attainment of {', '.join(names)}", below)
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> UserError:
    """What to raise for a folder that cannot be written."""
    return UserError(f"`--out` must be a folder that can be written, but got {folder}: {error.strerror}")


def show(run: Run, points: pa.Table, console: Console, third: str | None = None) -> None:
    """Print the front as a table, fastest first, the baseline below it, and its terms."""
    table = Table(title=f"Pareto front of {run.name}", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for heading in (
        "trial",
        "epoch",
        "p50 ms",
        "p95 ms",
        "robust % [95%]",
        "seeds",
        "P(front)",
        "natural",
        "PGD",
        "FGSM",
        "CW",
        "masking",
        *([third] if third else []),
    ):
        table.add_column(heading, justify="left" if heading == "trial" else "right", no_wrap=True)
    table.add_column(" defence", no_wrap=True)
    baseline = points.filter(pa.compute.and_(pa.compute.not_equal(points["role"], "search"), points["final"]))
    for rows in (front_rows(points), baseline.to_pylist()):
        for row in rows:
            table.add_row(
                row["trial"],
                str(row["epoch"]),
                milliseconds(row["latency_p50"]),
                milliseconds(row["latency_p95"]),
                interval(row),
                str(row["seeds"]),
                probability(row),
                *(percent(row[name]) for name in ("natural", "pgd", "fgsm", "cw")),
                masking(row),
                *([_third(row[third])] if third else []),
                f" {Recipe.from_json(row['recipe']).describe()}" if row["recipe"] else "",
            )
        table.add_section()
    console.print(table)
    if not front_rows(points):
        console.print("No point of the search was measured; only the baseline is shown.")
    console.print(terms(run, points, third), markup=False, highlight=False)


def _third(value: float | None) -> str:
    """The value of a third objective."""
    return count(value) if value is None or isinstance(value, int) else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
