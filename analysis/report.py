"""A run as one page: what was asked, what came out, how it was measured, and the commands that make it again.

    python -m analysis.report RUN [--out DIR]

Writes `report.html` to RUN/figures and names it: a single file that asks nothing of any network. A run that is empty,
still going, damaged or of an older version has a page too, which says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path

from robustsearch.errors import RunError, UserError

from . import report_sections as sections
from .condition import open_anyway
from .explore import explorable
from .front import front_rows, front_table
from .front_page import front, recipes
from .front_text import caption
from .load import Run
from .page import document
from .pareto import unwritable
from .report_examples import adversarial


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m analysis.report", description="Write the report page of a run.")
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for the page (default: RUN/figures)")
    arguments = parser.parse_args(argv)
    try:
        path = write(arguments.run, arguments.out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(path)
    return 0


def write(run: Path, out: Path | None = None) -> Path:
    """Write the page of a run folder into `out`, or into its `figures`; returns where.

    Raises:
        UserError: it is no run's folder, or the page cannot be written.
    """
    opened, notes = open_anyway(run)
    content = page(opened, notes)
    folder = out or opened.files.figures
    path = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise unwritable(folder, error) from error
    return path


def page(run: Run, notes: Sequence[str]) -> str:
    """The whole page of a run, with notes on the condition of its folder."""
    notes = list(notes)
    try:
        points = front_table(run.table)
    except RunError as error:
        points = None
        if run.table.num_rows:
            notes.append(f"There is no front: {error}.")
    members = front_rows(points) if points is not None else []
    if points is not None and not members:
        notes.append("There is no front: no point of the search was measured.")
    shown = explorable(points, None) if points is not None else None
    parts = [("front", "Front", front(points, caption(run, points), shown))] if points is not None and shown else []
    parts += [
        ("space", "Space", sections.space(run, points)),
        ("protocol", "Protocol and hardware", sections.protocol(run)),
        ("cost", "Cost, and what was attained for it", sections.cost(run)),
        ("importance", "Which settings move the objectives", sections.moved(run)),
        ("masking", "Masking checks", sections.masks(run)),
        ("curves", "Learning curves of the front", sections.curves(run, members)),
        ("examples", "Adversarial examples", adversarial(run, members)),
        ("failures", "Failures", sections.failures(run)),
    ]
    parts += [("points", "All points", sections.everything(points))] if points is not None else []
    parts.append(("commands", "Commands", sections.commands(run)))
    links = "\n".join(f'<li><a href="#{name}">{heading}</a></li>' for name, heading, _ in parts)
    items = "\n".join(f"<li>{escape(note)}</li>" for note in notes)
    remarks = f'<div class="notes" role="note"><ul>\n{items}\n</ul></div>\n' if notes else ""
    body = "\n".join(
        f'<section id="{name}" aria-labelledby="{name}-head">\n<h2 id="{name}-head">{heading}</h2>\n{content}</section>'
        for name, heading, content in parts
    )
    title = f"Report of {run.name}"
    started = escape(str(run.info.get("created") or "not recorded"))
    return document(
        run,
        title,
        f"<main>\n<h1>{escape(title)}</h1>\n{remarks}{sections.summary(run, points, members)}"
        f'<nav aria-label="Sections"><ul>\n{links}\n</ul></nav>\n{body}\n</main>\n'
        f"<footer><p>Run started {started}.</p></footer>",
        recipes=recipes(points) if points is not None else {},
        plot=shown,
    )


if __name__ == "__main__":
    sys.exit(main())
