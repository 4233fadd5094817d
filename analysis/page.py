"""What the pages of a run share: one HTML file each, which works offline and tells nobody that it was read.

Its content security policy forbids every request. A click on a point of its plot, or on a button of a table, copies a
command or the recipe; which of them, the page asks (`explore`).
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from html import escape

from . import explore
from .explore import Explorable
from .load import Run

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def document(run: Run, title: str, body: str, *, recipes: Mapping[str, str], plot: Explorable | None) -> str:
    """A whole page.

    Args:
        run: whose trials its commands name.
        title: plain text.
        body: HTML of `<main>` and what follows it; what it shows of a run must be escaped.
        recipes: JSON of the recipe of each trial that can be clicked.
        plot: the front that the body holds; None where it holds none.
    """
    data: dict[str, object] = {
        "folder": shlex.quote(run.place),
        "plain": run.place,
        "recipes": dict(recipes),
    }
    if plot is not None:
        data["plot"] = dict(plot.data)
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            f"<title>{escape(title)}</title>\n<style>{_STYLE}{explore.STYLE}</style>\n</head>\n<body>",
            body,
            '<div id="toast" role="status" aria-live="polite"></div>',
            f'<script type="application/json" id="data">{_inert(json.dumps(data, separators=(",", ":")))}</script>',
            f"<script>{_SCRIPT}{explore.SCRIPT}</script>\n</body>\n</html>\n",
        ]
    )


def table(caption: str, heads: Iterable[str], rows: Iterable[Iterable[str]], *, name: str, kind: str = "") -> str:
    """A table in a region of its own that scrolls, by keyboard too.

    Args:
        caption: plain text.
        heads: plain text of the column heads; the first column names its rows.
        rows: HTML of the cells.
        name: id of the table.
        kind: `sortable`, where each head is a button that sorts by its column; `prose`, where cells are sentences.
    """
    cells = [
        f'<th scope="col"><button type="button">{escape(head)}</button></th>'
        if kind == "sortable" and head
        else f'<th scope="col">{escape(head)}</th>'
        for head in heads
    ]
    lines = []
    for row in rows:
        first, *rest = row
        lines.append(f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>\n')
    return f"""<div class="scroll" role="region" aria-labelledby="{name}-caption" tabindex="0">
<table id="{name}" class="{kind}">
<caption id="{name}-caption">{escape(caption)}</caption>
<thead><tr>{"".join(cells)}</tr></thead>
<tbody>
{"".join(lines)}</tbody>
</table>
</div>
"""


def figure(content: str, caption: str, *, wide: str = "") -> str:
    """A figure of this HTML, with a caption in plain text; a `wide` one, of that name, scrolls on a narrow page."""
    if wide:
        content = f'<div class="scroll" role="region" aria-label="{escape(wide)}" tabindex="0">{content}</div>'
    return f"<figure>\n{content}\n<figcaption>{escape(caption)}</figcaption>\n</figure>\n"


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of names and what they are, plain text both; what is empty is left out."""
    items = [f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs if value]
    return "<dl>\n" + "\n".join(items) + "\n</dl>\n"


def copy_button(trial: str, epoch: int) -> str:
    """A button that does what a click on the point does."""
    name = escape(trial)
    return (
        f'<button type="button" class="copy" data-trial="{name}" data-epoch="{epoch}" '
        f'aria-label="copy for trial {name}, epoch {epoch}">copy</button>'
    )


def _inert(text: str) -> str:
    """JSON that ends no script element, whatever its strings hold."""
    return text.replace("<", "\\u003c")


_STYLE = """
:root { color-scheme: light; }
body {
  margin: 0 auto; max-width: 1440px; padding: 1rem;
  font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
}
h1 { font-size: 1.4rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; border-top: 1px solid #e6e6e6; padding-top: 1rem; }
p, li, dd, code { overflow-wrap: anywhere; }
main > p, section > p { max-width: 75ch; }
nav ul { list-style: none; margin: .5rem 0; padding: 0; display: flex; flex-wrap: wrap; gap: .25rem 1rem; }
a { color: #0060a0; }
:focus-visible { outline: 3px solid #0072B2; outline-offset: 2px; }
figure { margin: 1rem 0; }
figcaption { margin-top: .5rem; }
figcaption, footer { color: #4d4d4d; font-size: .875rem; overflow-wrap: anywhere; max-width: 100ch; }
section { content-visibility: auto; contain-intrinsic-size: auto 40rem; margin-inline: -5px; padding-inline: 5px; }
.scroll { overflow-x: auto; margin-bottom: 1rem; }
.tall { max-height: 80vh; overflow-y: auto; }
.tall thead th { position: sticky; top: 0; background: #fff; }
img { max-width: 100%; height: auto; }
.scroll > img { max-width: none; width: clamp(36rem, 100%, 54rem); }
img.pixels { width: min(100%, 28rem); image-rendering: pixelated; }
.examples { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem 2rem; }
.examples { grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); }
.examples p { margin: 0 0 .25rem; }
.examples div { display: grid; grid-template-columns: repeat(3, 1fr); gap: .25rem; }
.examples figure { margin: 0; min-width: 0; }
.examples figure img { width: 100%; }
.examples figcaption { margin: 0; line-height: 1.3; }
.wrong { color: #b34700; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { padding: .25rem .75rem .25rem 0; text-align: right; border-bottom: 1px solid #e6e6e6; }
#points-table :is(th, td) { padding-right: .5rem; }
th:first-child { text-align: left; }
table.prose :is(th, td) { text-align: left; vertical-align: top; }
table.prose td { white-space: normal; min-width: 5rem; max-width: 60ch; }
table.prose td:nth-child(2) { min-width: 12rem; }
button, select, input { font: inherit; }
button { cursor: pointer; }
select { max-width: 100%; }
th button {
  border: 0; background: none; padding: 0; font-weight: 600; color: inherit; text-decoration: underline dotted;
}
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: 0 1rem; font-size: .875rem; }
dd { margin: 0; }
pre { background: #f5f5f5; padding: .5rem .75rem; overflow-x: auto; font-size: .875rem; }
.notes { border-left: 4px solid #D55E00; background: #fdf3ec; padding: .5rem 1rem; margin: 1rem 0; }
.notes ul { margin: 0; padding-left: 1rem; }
#toast {
  position: fixed; left: 50%; bottom: 1.5rem; transform: translateX(-50%); padding: .5rem 1rem; max-width: 90vw;
  border-radius: .375rem; background: #1a1a1a; color: #fff; overflow-wrap: anywhere;
  opacity: 0; transition: opacity .2s; pointer-events: none;
}
#toast.shown { opacity: 1; }
@media (max-width: 480px) { dl { grid-template-columns: 1fr; } dt { font-weight: 600; } }
@media print {
  body { max-width: none; font-size: 10pt; }
  nav, .controls, .copy, #toast { display: none !important; }
  figure, pre, tr, img, thead { break-inside: avoid; }
  h2 { break-after: avoid; }
  .scroll, .tall, pre { overflow: visible; max-height: none; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  .scroll > img { width: 100%; }
  section { content-visibility: visible; }
  table { font-size: 6.5pt; white-space: normal; }
  .tall thead th { position: static; }
  :is(#front-table, #points-table) td:nth-child(5) { white-space: nowrap; }
  th, td { padding-right: .4rem; }
}
"""

_SCRIPT = r"""
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const toast = document.getElementById("toast");
let hiding;

function say(text) {
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(() => toast.classList.remove("shown"), 4000);
}

function quote(text) {
  return /^[\w@%+=:,.\/-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\"'\"'") + "'";
}

function wanted(trial, epoch) {
  const choice = document.getElementById("copies").value;
  if (choice === "recipe") return data.recipes[trial];
  if (choice === "ablate") return "python -m robustsearch.run --ablate " + quote(data.plain + ":" + trial);
  return "python -m robustsearch.evaluate " + data.folder + " --trial " + quote(trial) + " --epoch " + epoch;
}

function copyBySelection(text) {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

async function copy(trial, epoch) {
  const text = wanted(trial, epoch);
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // no clipboard on this page, or no leave to use it
    if (!copyBySelection(text)) {
      window.prompt("Of trial " + trial + ":", text);
      return;
    }
  }
  say("copied: " + (text.length > 200 ? text.slice(0, 200) + " …" : text));
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button.copy");
  if (button) copy(button.dataset.trial, button.dataset.epoch);
});

function number(cell) {
  const found = /-?[\d.]+/.exec(cell.textContent);
  return found && /^\s*[-\d.]/.test(cell.textContent) ? parseFloat(found[0]) : NaN;
}

function sort(table, column, up) {
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => [number(row.cells[column]), row.cells[column].textContent, row]);
  keyed.sort((a, b) => {
    if (isNaN(a[0]) || isNaN(b[0])) return isNaN(a[0]) - isNaN(b[0]) || (up ? 1 : -1) * a[1].localeCompare(b[1]);
    return (up ? 1 : -1) * (a[0] - b[0]);
  });
  body.append(...keyed.map((entry) => entry[2]));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => head.firstElementChild?.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") === "descending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    sort(table, column, up);
  }));
}

for (const field of document.querySelectorAll("input[data-filters]")) {
  const body = document.getElementById(field.dataset.filters).tBodies[0];
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/);
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}

let unfolded = [];
window.addEventListener("beforeprint", () => {  // paper cannot be clicked
  unfolded = document.querySelectorAll("details:not([open])");
  for (const one of unfolded) one.open = true;
});
window.addEventListener("afterprint", () => { for (const one of unfolded) one.open = false; });
"""
