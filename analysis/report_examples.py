"""The adversarial examples of a report: images clean, attacked, and the difference, with what they are taken for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.image import imread, imsave
from numpy.typing import NDArray

from . import traces
from .front_text import Row, interval, length
from .load import Run
from .page import figure
from .report_figure import embedded
from .report_sections import described


def adversarial(run: Run, front: Sequence[Row]) -> str:
    """Adversarial examples of the most robust member of the front; one that fails no masking check goes before."""
    if not front:
        return "<p>There is no front whose examples could be shown.</p>\n"
    best = max(front, key=lambda row: (not row["masked"], float(row["robust"])))
    log = traces.read(run.files.fetched_trial(best["trial"]))
    known = [epoch for epoch in log.examples if epoch <= best["epoch"]]
    if not known:
        return f"<p>The log of trial {escape(best['trial'])}, the best, holds no pictures.</p>\n"
    epoch = max(known)
    about = log.about.get(epoch) or {"attack": "PGD", "epsilon": best["epsilon"], "classes": []}
    radius = length(about["epsilon"])
    attack = f"{about['attack']}, l∞ radius {radius}" if radius else about["attack"]
    doubt = " It fails a masking check, as all of the front does." if best["masked"] else ""
    words = (
        f"Validation images and the same under {attack}, against trial {best['trial']} after epoch {epoch} "
        f"({described(best)}; {interval(best)}% robust). In the difference grey is none; the largest is black or "
        f"white.{doubt}"
    )
    if not about["classes"]:
        picture = 'class="pixels" alt="Images in columns; clean, attacked, and the difference in rows"'
        unnamed = "Above: clean; middle: attacked; below: difference. The log, of an earlier version, names no classes."
        return figure(embedded(log.examples[epoch], "png", picture), f"{words} {unnamed}")
    columns = cut(log.examples[epoch], len(about["classes"]))
    items = "".join(_example(*each, about["attack"], attack) for each in zip(columns, about["classes"], strict=True))
    return figure(f'<ul class="examples">\n{items}</ul>', f"{words} Arrows: what one prediction takes them for.")


def cut(picture: bytes, count: int) -> list[list[bytes]]:
    """The picture of `search.board.examples_picture`, a PNG, as three PNGs for each of its images: `[count][3]`."""
    pixels: NDArray[np.uint8] = np.rint(255 * imread(io.BytesIO(picture), format="png")).astype(np.uint8)
    columns = [np.split(column, 3, axis=0) for column in np.split(pixels, count, axis=1)]
    return [[_png(part) for part in parts] for parts in columns]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    imsave(file, pixels, format="png")
    return file.getvalue()


def _example(pictures: Sequence[bytes], classes: Sequence[str], short: str, attack: str) -> str:
    """One image as a list item: its true class, then the three pictures, each with its words."""
    true, clean, perturbed = classes
    shown: list[tuple[str, str | None, str]] = [
        ("clean", clean, f"An image of class {true}, which is taken for {clean}"),
        (short, perturbed, f"The same under {attack}, which is taken for {perturbed}"),
        ("difference", None, "Their difference"),
    ]
    cells = []
    for content, (name, taken, words) in zip(pictures, shown, strict=True):
        label = escape(name) + (f"<br>{_verdict(taken, true)}" if taken is not None else "")
        attributes: Any = f'class="pixels" alt="{escape(words)}"'
        cells.append(f"<figure>{embedded(content, 'png', attributes)}<figcaption>{label}</figcaption></figure>")
    return f"<li><p>true class <b>{escape(true)}</b></p><div>{''.join(cells)}</div></li>\n"


def _verdict(taken: str, true: str) -> str:
    """A predicted class, marked by more than colour where it is wrong."""
    return f"→ {escape(taken)}" if taken == true else f'→ <strong class="wrong">{escape(taken)} ✗</strong>'
