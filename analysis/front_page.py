"""The Pareto front of a run as one interactive page: a single HTML file that asks nothing of any network.

Over a point it shows its numbers and settings (`explore`); a click on it, or on its button in the table, copies the
command that evaluates or ablates its trial, or its recipe.
"""

from __future__ import annotations

from html import escape

import pyarrow as pa

from . import style
from .explore import Explorable, explorable, shared_settings
from .front import front_rows
from .front_text import Row, count, interval, masking, milliseconds, percent, probability
from .load import Run
from .page import copy_button, definitions, document, table


def page(run: Run, points: pa.Table, caption: str, colours: style.Colours | None) -> str:
    """The whole page, of a `front_table`."""
    versions = [f"{name} {version}" for name, version in dict(run.info.get("versions") or {}).items()]
    title = f"Pareto front of {run.name}"
    shown = explorable(points, colours)
    origin = (
        f"Made from <code>{escape(str(run.info.get('command') or 'not recorded'))}</code>, started "
        f"{escape(str(run.info.get('created') or 'not recorded'))}, with "
        f"{escape(', '.join(versions) or 'not recorded')}."
    )
    body = f"""<main>
<h1>{escape(title)}</h1>
{front(points, caption, shown)}
<details><summary>Settings that all points of the search share</summary>
{definitions(shared_settings(points).items())}</details>
</main>
<footer><p>{origin}</p></footer>"""
    return document(run, title, body, recipes=recipes(points), plot=shown)


def front(points: pa.Table, caption: str, shown: Explorable) -> str:
    """The HTML of a front: its picture, its caption, and its table."""
    rows = [table_row(row) for row in front_rows(points)]
    return f"""<p>Up and to the left is better. <span class="controls">Over a point its numbers and settings are
shown; the arrow keys go from point to point.</span></p>
<figure aria-label="Robust accuracy against latency; the front is also in the table below">
{shown.html}<figcaption>{escape(caption)}</figcaption>
</figure>
{table("The front, fastest first", HEADS, rows, name="front-table") if rows else EMPTY}"""


def recipes(points: pa.Table) -> dict[str, str]:
    """The recipe of each trial of a `front_table`, as JSON."""
    return {row["trial"]: row["recipe"] or "" for row in points.select(["trial", "recipe"]).to_pylist()}


EMPTY = "<p><strong>No point of the search was measured.</strong></p>"


HEADS = (
    *("trial", "epoch", "p50 (ms)", "p95 (ms)", "robust [95%] (%)", "seeds", "P(front)"),
    *("natural (%)", "PGD (%)", "FGSM (%)", "CW (%)", "parameters", "masking checks", ""),
)


def table_row(row: Row) -> list[str]:
    """A point as the cells of a table with `HEADS`."""
    cells = [
        row["trial"],
        str(row["epoch"]),
        milliseconds(row["latency_p50"]),
        milliseconds(row["latency_p95"]),
        interval(row),
        str(row["seeds"]),
        probability(row),
        *(percent(row[name]) for name in ("natural", "pgd", "fgsm", "cw")),
        count(row["parameters"]),
        masking(row),
    ]
    return [*map(escape, cells), copy_button(row["trial"], row["epoch"])]
