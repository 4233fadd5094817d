"""Figures of one trained network: examples, what each attack makes of them, confidences, accuracy by radius, slices."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from . import style
from .paper import draw_caption
from .portraits import NORMS, Portrait, calibration_error

RIGHT, WRONG = style.FRONT, style.OKABE_ITO[5]
"""Blue and vermilion; a wrong class is also bold, so that no colour is needed to tell."""
LINES = ("-", "--", ":", "-.")


def where(portrait: Portrait) -> str:
    """What a caption begins with."""
    about = portrait.about
    return (
        f"{portrait.trial}: {about['defence']}; {about['dataset']}, {about['split']} images. Attacks of protocol "
        f"{about['protocol']}: l∞ radius {about['epsilon']:.3g}, l2 budget {about['epsilon_l2']:.3g}."
    )


def examples(portrait: Portrait) -> tuple[Figure, str]:
    """Clean images beside what PGD makes of them, with the predicted class of each (the report's figure 1)."""
    arrays = portrait.arrays
    attack = list(arrays["attacks"]).index("pgd")
    places = [place for place, image in enumerate(arrays["shown"][attack]) if image >= 0]
    terms = (
        f"{where(portrait)} Pairs of a clean image and its PGD example, each with the class that one prediction gives "
        "it; blue where it is the true one, vermilion and bold where not, above the true one."
    )
    with matplotlib.rc_context(style.RC):
        rows = max(1, -(-len(places) // 4))
        figure = Figure(figsize=(style.SIZE[0], 1.25 * rows + 0.6))
        axes = figure.subplots(rows, 8, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for pair, place in enumerate(places[:8]):
            image = int(arrays["shown"][attack][place])
            row, column = divmod(2 * pair, 8)
            for offset, (kind, pixels) in enumerate(
                ((0, arrays["originals"][attack][place]), (attack, arrays["perturbed"][attack][place]))
            ):
                _picture(axes[row][column + offset], pixels)
                title = "clean" if kind == 0 else "PGD"
                _name(axes[row][column + offset], portrait, int(arrays["predicted"][kind][image]), image, title)
        draw_caption(figure, terms)
    return figure, terms


def attacks(portrait: Portrait) -> tuple[Figure, str]:
    """Right and wrong examples under each attack, with true and predicted class (the report's figure 2)."""
    arrays = portrait.arrays
    names = [str(name) for name in arrays["attacks"]]
    columns = arrays["shown"].shape[1]
    terms = (
        f"{where(portrait)} Left images that are still right, right images that the attack turned (of clean ones: that "
        "are wrong by themselves). Above each: true class → predicted class. CW is shown whatever its length."
    )
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=(style.SIZE[0], 0.95 * len(names) + 0.9))
        axes = figure.subplots(len(names), columns, squeeze=False)
        for attack, name in enumerate(names):
            for place in range(columns):
                axis, image = axes[attack][place], int(arrays["shown"][attack][place])
                axis.set_xticks([])
                axis.set_yticks([])
                axis.grid(visible=False)
                for spine in axis.spines.values():
                    spine.set_visible(False)
                if place == 0:
                    axis.set_ylabel(_attack(name))
                if image < 0:
                    continue
                _picture(axis, arrays["perturbed"][attack][place])
                _name(axis, portrait, int(arrays["predicted"][attack][image]), image, None)
        draw_caption(figure, terms)
    return figure, terms


def confidence(portrait: Portrait) -> tuple[Figure, str]:
    """Histograms of the predicted class's probability, all and right (the report's figure 3); calibration."""
    arrays = portrait.arrays
    values, correct = arrays["confidence"][0], arrays["predicted"][0] == arrays["labels"]
    error, table = calibration_error(values, correct)
    terms = (
        f"{where(portrait)} Probability of the predicted class on n = {len(values)} clean images: all, those "
        "classified right, and how often each bin is right (area of a point: images in it). Expected calibration error "
        f"over 10 bins: {error:.3f}."
    )
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=(style.SIZE[0], 2.9))
        left, middle, right = figure.subplots(1, 3)
        bins = np.linspace(0, 1, 21)
        for axis, chosen, title in ((left, values, "all"), (middle, values[correct], "classified right")):
            axis.hist(chosen, bins=bins, color=style.FRONT, edgecolor="white", linewidth=0.4)
            axis.set(xlabel="probability", ylabel="images", title=f"{title} ({len(chosen)})", xlim=(0, 1))
            axis.title.set_fontsize(9)
        middle.sharey(left)
        right.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.8, linestyle="--")
        known = table[:, 2] > 0
        right.plot(table[known, 0], table[known, 1], color=WRONG, linewidth=1)
        right.scatter(
            *table[known, :2].T, s=8 + 120 * table[known, 2] / len(values), color=WRONG, zorder=3, clip_on=False
        )
        right.set(xlabel="probability", ylabel="share right", xlim=(0, 1), ylim=(0, 1), title=f"ECE {error:.3f}")
        right.title.set_fontsize(9)
        draw_caption(figure, terms)
    return figure, terms


def radii(portrait: Portrait) -> tuple[Figure, str]:
    """Accuracy against the radius, per norm and attack."""
    terms = (
        f"{where(portrait)} Accuracy on n = {len(portrait.arrays['distances_linf'])} images against the radius; "
        "through the surrogate, `straight` through hard gates besides; of CW what no perturbation within it breaks."
    )
    with matplotlib.rc_context(style.RC):
        figure = Figure(figsize=(style.SIZE[0], 3.2))
        for axis, norm in zip(figure.subplots(1, 2, sharey=True), NORMS, strict=True):
            for place, (attack, values) in enumerate(sorted(portrait.curves(norm).items())):
                colour = style.OKABE_ITO[(4, 5, 2, 6)[place % 4]]
                line = LINES[place % len(LINES)]
                axis.plot(portrait.arrays[f"radii_{norm}"], 100 * values, line, marker="o", markersize=3, color=colour)
                axis.lines[-1].set_label(_attack(attack))
            axis.set(xlabel=f"{NORMS[norm]} radius (pixel units)", ylim=(-2, 102), xlim=(0, None))
            axis.legend()
        figure.axes[0].set_ylabel("accuracy %")
        draw_caption(figure, terms)
    return figure, terms


def slices(portrait: Portrait) -> tuple[Figure, str]:
    """Planes through images: the true class's probability, and where predictions turn."""
    arrays, about = portrait.arrays, portrait.about
    along = arrays["slice_along"]
    draws = f"averaged over {about['predictions']} predictions" if about["random"] else "of the network"
    terms = (
        f"{where(portrait)} Planes through a test image (cross), along its PGD example and a random direction "
        f"orthogonal to it, in l2 lengths. Colour: probability of the true class, {draws}. White line: half of the "
        "predictions are right. Dotted: the l2 budget."
    )
    with matplotlib.rc_context(style.RC | {"axes.grid": False}):
        count = len(arrays["slice_labels"])
        figure = Figure(figsize=(style.SIZE[0], 3.5))
        panels = figure.subplots(1, count, squeeze=False, sharey=True)[0]
        for axis, probability, right, label in zip(
            panels, arrays["slice_probability"], arrays["slice_right"], arrays["slice_labels"], strict=True
        ):
            mesh = axis.pcolormesh(along, along, probability, cmap=style.SEQUENTIAL, vmin=0, vmax=1, rasterized=True)
            if right.min() < 0.5 < right.max():
                axis.contour(along, along, right, levels=[0.5], colors="white", linewidths=1.2)
            turn = np.linspace(0, 2 * np.pi, 100)
            budget = about["epsilon_l2"]
            axis.plot(budget * np.cos(turn), budget * np.sin(turn), ":", color="white", linewidth=0.9)
            axis.plot(0, 0, "+", color="white", markersize=8)
            axis.set(
                xlabel="adversarial direction (l2, pixel units)",
                aspect="equal",
                title=f"class {about['classes'][label]}",
            )
            axis.title.set_fontsize(9)
        panels[0].set_ylabel("random direction (l2, pixel units)")
        figure.colorbar(mesh, ax=list(panels), shrink=0.8, label="probability")
        draw_caption(figure, terms)
    return figure, terms


def _picture(axis: Axes, pixels: NDArray[Any]) -> None:
    """An image `[C, H, W]` in [0, 1]."""
    image = np.moveaxis(pixels, 0, -1)
    axis.imshow(image if image.shape[-1] == 3 else image[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")


def _name(axis: Axes, portrait: Portrait, predicted: int, image: int, kind: str | None) -> None:
    """The classes above an image."""
    classes, label = portrait.about["classes"], int(portrait.arrays["labels"][image])
    right = predicted == label
    if kind:
        text = f"{kind}\n{classes[predicted]}" + ("" if right else f"\nis {classes[label]}")
    else:
        text = f"{classes[label]}→{classes[predicted]}"
    axis.set_title(text, fontsize=7, color=RIGHT if right else WRONG, fontweight="normal" if right else "bold", pad=2)


def _attack(name: str) -> str:
    """An attack as it is written."""
    return {"fgsm": "FGSM", "pgd": "PGD", "cw": "CW", "pgd_l2": "PGD l2"}.get(name, name)
