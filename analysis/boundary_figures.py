"""Figures of several trained networks together: distances to the decision boundary, accuracy against the radius."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from . import style
from .paper import draw_caption
from .portraits import NORMS, Portrait

MARKERS = ("o", "s", "^", "v", "D", "P", "X", "*")
"""Eight, against seven colours: fifty-six lines that look different."""


def distances(portraits: Sequence[Portrait]) -> tuple[Figure, str]:
    """The distribution of distances per row, one panel a norm, with the evaluation's radius."""
    first = portraits[0]
    terms = (
        f"Distance to the nearest wrong image that any attack found, so at most that ({_images(first)} each). Boxes: "
        "quartiles and median; whiskers: 5 to 95%; wrong images count as 0, unbroken ones lie beyond the axis. Dashed: "
        "the evaluation's radius."
    )
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=(style.SIZE[0], 0.36 * len(portraits) + 1.8))
        for axis, norm in zip(figure.subplots(1, 2, sharey=True), NORMS, strict=True):
            end = 1.05 * float(first.arrays[f"radii_{norm}"][-1])
            for place, portrait in enumerate(portraits):
                values = np.minimum(portrait.arrays[f"distances_{norm}"], end)
                low, lower, middle, upper, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
                axis.plot([low, high], [place, place], color=style.BARS, linewidth=0.8)
                axis.barh(place, upper - lower, left=lower, height=0.55, color=style.OKABE_ITO[1], alpha=0.8)
                axis.plot([middle, middle], [place - 0.28, place + 0.28], color=style.INK, linewidth=1.6)
            radius = first.about["unit_linf" if norm == "linf" else "epsilon_l2"]
            axis.axvline(radius, color=style.OKABE_ITO[5], linestyle="--", linewidth=0.9)
            axis.set(xlabel=f"{NORMS[norm]} distance (pixel units)", xlim=(0, end))
        axes = figure.axes[0]
        axes.set_yticks(range(len(portraits)), [portrait.name for portrait in portraits])
        axes.invert_yaxis()
        draw_caption(figure, terms)
    return figure, terms


def accuracy(portraits: Sequence[Portrait]) -> tuple[Figure, str]:
    """Accuracy against the radius, one panel a norm and attack, one line a row."""
    first = portraits[0]
    names = {
        norm: [name for name in ("fgsm", "pgd", "straight", "cw") if _any(portraits, norm, name)] for norm in NORMS
    }
    columns = max(len(attacks) for attacks in names.values())
    terms = (
        f"Accuracy against the radius ({_images(first)}), above in l∞, below in l2. Attacks go through the surrogate; "
        "`straight` is Auto-PGD straight-through, only where gates are hard; CW: what no perturbation within the "
        "radius breaks."
    )
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=(style.SIZE[0], 5.6))
        axes = figure.subplots(2, columns, squeeze=False, sharey=True)
        for row, norm in enumerate(NORMS):
            for column, axis in enumerate(axes[row]):
                if column >= len(names[norm]):
                    axis.axis("off")
                    continue
                attack = names[norm][column]
                for place, portrait in enumerate(portraits):
                    values = portrait.curves(norm).get(attack)
                    if values is not None:
                        axis.plot(
                            portrait.arrays[f"radii_{norm}"],
                            100 * values,
                            color=style.LINES[place % len(style.LINES)],
                            marker=MARKERS[place % len(MARKERS)],
                            markersize=3.5,
                            linewidth=1,
                            label=portrait.name,
                        )
                title = {"fgsm": "FGSM", "pgd": "PGD", "cw": "CW"}.get(attack, attack)
                axis.set(title=title, xlabel=f"{NORMS[norm]} radius (pixel units)", ylim=(-2, 102), xlim=(0, None))
                axis.title.set_fontsize(9)
            axes[row][0].set_ylabel("accuracy %")
        handles = {str(line.get_label()): line for axis in figure.axes for line in axis.lines}
        figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=2, fontsize=7)
        draw_caption(figure, terms)
    return figure, terms


def _images(portrait: Portrait) -> str:
    """How many there are, and of what."""
    return f"n = {len(portrait.arrays['distances_linf'])} test images of {portrait.about['dataset']}"


def _any(portraits: Sequence[Portrait], norm: str, attack: str) -> bool:
    return any(attack in portrait.curves(norm) for portrait in portraits)
