"""A picture of the front that answers: over a point it shows numbers and settings, a click or Enter copies its command.

It is the figure for paper, drawn once for a wide page and once for a narrow one, and the page knows where each point
lies in both, as shares of their width and height. So it is as soon there as any picture: no library draws it again.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from matplotlib.figure import Figure

from robustsearch.results import RECIPE_COLUMNS

from . import style
from .front_figure import draw
from .front_text import Row, count, interval, is_drawn, masking, milliseconds, percent, probability
from .report_figure import image

SIZES = {"wide": (9.5, 4.9), "narrow": (4.4, 3.7)}
"""Inches of each picture; the page shows the one that its letters can be read in."""

DENSE = 200
"""More points than these make a smaller picture of pixels than of lines."""

_HTML = """\
<p class="controls"><label for="copies">A click on a point, or on <em>copy</em> in a table, copies</label>
<select id="copies">
<option value="evaluate">the command that evaluates the trial again, on the test set</option>
<option value="ablate">the command that ablates its recipe</option>
<option value="recipe">its recipe, as JSON</option>
</select>
<button type="button" id="closer" aria-label="enlarge the picture">+</button>
<button type="button" id="farther" aria-label="make the picture smaller" disabled>−</button></p>
<noscript><p>Without JavaScript the picture answers nothing; the tables are whole.</p></noscript>
<div id="plot" tabindex="0" role="application" aria-label="Robust accuracy against latency. Arrows left and right go \
from point to point, up and down along the front; Enter copies.">
{pictures}<div id="ring" hidden></div>
</div>
<div id="hover" role="status" hidden><strong></strong><span></span></div>
"""


@dataclass(frozen=True)
class Explorable:
    """The front of a run as a part of a page."""

    html: str
    data: Mapping[str, Any]
    """What the page's script reads. `points`: trial, epoch, whether it is on the front, and lines of numbers, of each,
    fastest first. `places`: name of a picture to a pair a point, its shares of width and height from above. `settings`:
    trial to lines of its own settings.
    """


def explorable(points: pa.Table, colours: style.Colours | None) -> Explorable:
    """The front of a `front_table`, with the colours of its points."""
    rows = [row for row in points.to_pylist() if is_drawn(row)]
    shared = shared_settings(points)
    pictures, places = [], {}
    for name, size in SIZES.items():
        figure = draw(points, "", colours, size)
        figure.set_layout_engine("none")  # what was laid out stays where it is, at any resolution
        places[name] = positions(figure, rows)
        picture = image(figure, "Robust accuracy against latency", dense=len(rows) > DENSE)
        pictures.append(f'<div class="picture" id="{name}">{picture}</div>\n')
    data = {
        "points": [[row["trial"], row["epoch"], row["on_front"], numbers(row)] for row in rows],
        "places": places,
        "settings": {row["trial"]: settings(row, shared) for row in rows},
    }
    return Explorable(_HTML.format(pictures="".join(pictures)), data)


def positions(figure: Figure, rows: Sequence[Row]) -> list[list[float]]:
    """Where a figure of the front, laid out, has each row: its share of the width, and of the height from above."""
    places = np.array([(row["latency_p50"], 100 * row["robust"]) for row in rows]).reshape(-1, 2)
    shares = figure.axes[0].transData.transform(places) / figure.bbox.size
    return [[round(float(x), 5), round(1 - float(y), 5)] for x, y in shares]


def numbers(row: Row) -> list[str]:
    """What a point is and what was measured of it, in lines."""
    return [
        f"{row['trial']}, epoch {row['epoch']}",
        f"robust {interval(row)} % over {row['seeds']} seed{'s' if row['seeds'] > 1 else ''}",
        *([] if row["front_probability"] is None else [f"on the front with probability {probability(row)}"]),
        f"natural {percent(row['natural'])}, PGD {percent(row['pgd'])}, "
        f"FGSM {percent(row['fgsm'])}, CW {percent(row['cw'])} %",
        f"latency p50 {milliseconds(row['latency_p50'])}, p95 {milliseconds(row['latency_p95'])} ms",
        f"{count(row['parameters'])} parameters, {count(row['macs'])} multiply-accumulates",
        f"masking checks: {masking(row)}",
    ]


def shared_settings(points: pa.Table) -> dict[str, str]:
    """Settings with one value in every point of the search; parts that are off everywhere are left out."""
    searched = points.filter(pa.compute.equal(points["role"], "search"))
    values = {name: set(searched[name].to_pylist()) for name in RECIPE_COLUMNS}
    return {name: _text(*found) for name, found in values.items() if len(found) == 1 and found != {None}}


def settings(row: Row, shared: Container[str]) -> list[str]:
    """The settings of a trial that are on and not shared, in lines."""
    own = [name for name in RECIPE_COLUMNS if row[name] is not None and name not in shared]
    return [f"{name} = {_text(row[name])}" for name in own]


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_RATIOS = {name: f"{width} / {height}" for name, (width, height) in SIZES.items()}

STYLE = """
#plot {
  aspect-ratio: WIDE; width: 100%; max-width: max(46rem, 72vh * WIDE); overflow: auto; cursor: crosshair;
}
.picture { position: relative; width: calc(100% * var(--zoom, 1)); }
.picture img { width: 100%; max-width: none; display: block; }
#narrow { display: none; }
#ring {
  position: absolute; width: 18px; height: 18px; margin: -9px; border: 2px solid #D55E00; border-radius: 50%;
  box-sizing: border-box; pointer-events: none;
}
#hover {
  position: fixed; z-index: 1; max-width: min(30rem, 100vw - 1rem); padding: .25rem .5rem; border: 1px solid #4d4d4d;
  border-radius: .25rem; background: #fff; font-size: .75rem; line-height: 1.35; white-space: pre-line;
  overflow-wrap: anywhere; pointer-events: none;
}
#hover strong { display: block; }
@media (max-width: 800px) {
  #plot { aspect-ratio: NARROW; max-width: 40rem; }
  #narrow { display: block; }
  #wide { display: none; }
}
@media print {
  #plot { aspect-ratio: auto; max-width: none; overflow: visible; }
  .picture { width: 100%; }
  #narrow, #ring, #hover { display: none; }
  #wide { display: block; }
}
""".replace("WIDE", _RATIOS["wide"]).replace("NARROW", _RATIOS["narrow"])

SCRIPT = r"""
function explore(plot, { points, places, settings }) {
  const [ring, hover, closer, farther] =
    ["ring", "hover", "closer", "farther"].map((id) => document.getElementById(id));
  const reach = 24;  // pixels
  const front = points.flatMap((point, at) => (point[2] ? [at] : []));
  let chosen = -1, last = front[front.length >> 1] ?? 0, zoom = 1;

  const shown = () => [...plot.querySelectorAll(".picture")].find((picture) => picture.clientWidth);

  function nearest(event) {
    const picture = shown(), box = picture.getBoundingClientRect();
    let best = -1, least = reach ** 2;
    places[picture.id].forEach(([x, y], at) => {
      const far = (event.clientX - box.x - x * box.width) ** 2 + (event.clientY - box.y - y * box.height) ** 2;
      if (far < least || (far === least && points[at][2])) [best, least] = [at, far];
    });
    return best;
  }

  function show(at) {
    chosen = at;
    ring.hidden = hover.hidden = at < 0;
    if (at < 0) return;
    last = at;
    const [trial, , , [name, ...numbers]] = points[at], picture = shown(), [x, y] = places[picture.id][at];
    picture.append(ring);
    ring.style.left = 100 * x + "%";
    ring.style.top = 100 * y + "%";
    hover.firstChild.textContent = name;
    hover.lastChild.textContent = [...numbers, "", ...settings[trial]].join("\n");
    const around = ring.getBoundingClientRect();
    const { clientWidth: width, clientHeight: height } = document.documentElement;
    const right = around.right + 4, left = around.left - 4 - hover.offsetWidth;
    const across = right + hover.offsetWidth <= width ? right : left;
    hover.style.left = Math.max(4, Math.min(across, width - hover.offsetWidth - 4)) + "px";
    hover.style.top = Math.max(4, Math.min(around.bottom + 4, height - hover.offsetHeight - 4)) + "px";
  }

  function step(way, along) {
    let at = chosen + way;
    if (chosen < 0) at = way > 0 ? 0 : points.length - 1;
    while (along && at >= 0 && at < points.length && !points[at][2]) at += way;
    if (at < 0 || at >= points.length) return;
    show(at);
    ring.scrollIntoView({ block: "nearest", inline: "nearest" });
    show(at);  // where it has been scrolled to
  }

  const keys = {
    ArrowRight: () => step(1, false),
    ArrowLeft: () => step(-1, false),
    ArrowUp: () => step(1, true),  // the next slower of the front
    ArrowDown: () => step(-1, true),
    Enter: () => { if (chosen >= 0) copy(points[chosen][0], points[chosen][1]); },
    Escape: () => show(-1),
  };

  function enlarge(by) {
    const picture = shown();
    let x = (plot.scrollLeft + plot.clientWidth / 2) / picture.clientWidth;
    let y = (plot.scrollTop + plot.clientHeight / 2) / picture.clientHeight;
    if (zoom === 1) [x, y] = places[picture.id][last];  // else what is in the middle stays there
    zoom *= by;
    plot.style.setProperty("--zoom", zoom);
    plot.scrollTo(x * picture.clientWidth - plot.clientWidth / 2, y * picture.clientHeight - plot.clientHeight / 2);
    farther.disabled = zoom <= 1;
    closer.disabled = zoom >= 8;
  }

  plot.addEventListener("pointermove", (event) => show(nearest(event)));
  plot.addEventListener("pointerleave", () => show(-1));
  plot.addEventListener("blur", () => show(-1));
  plot.addEventListener("scroll", () => { if (!plot.matches(":focus-visible")) show(-1); });
  plot.addEventListener("click", (event) => {
    show(nearest(event));
    keys.Enter();
  });
  plot.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  closer.addEventListener("click", () => enlarge(2));
  farther.addEventListener("click", () => enlarge(0.5));
  document.body.append(hover);  // within a section, which contains its layout, `fixed` would be to that
  plot.dataset.ready = "";
}

const plot = document.getElementById("plot");
if (plot) explore(plot, data.plot);
"""
