"""Where the columns of a table mislead, as far as the run's own numbers show."""

from __future__ import annotations

import numpy as np

from .table_columns import FINAL
from .table_numbers import Measured, Numbers

CLEARLY = 0.02
"""Difference of two accuracies that a note is made of."""


def notes(table: Numbers, measured: Measured) -> list[str]:
    """One sentence or two on each."""
    found = []
    weaker = [name for name, cells in table.items() if cells["pgd"].mean > cells["fgsm"].mean + CLEARLY]
    if weaker:
        found.append(
            f"PGD leaves more than FGSM in {', '.join(weaker)}: an iterative attack that is weaker than one step of "
            "the same radius makes too few steps or follows a masked gradient, and measures no robustness."
        )
    harmless = [name for name, cells in table.items() if cells["cw"].mean > cells["natural"].mean - CLEARLY]
    if harmless:
        found.append(
            f"CW takes less than {100 * CLEARLY:g} points off the natural accuracy in {', '.join(harmless)}: it hardly "
            "attacks these networks, so its column says nothing about them."
        )
    found += _chosen(measured)
    found += _protocols(measured)
    found += _hidden(measured)
    if measured.masked:
        found.append(f"Masking checks failed in {', '.join(measured.masked)}.")
    return found


def _chosen(measured: Measured) -> list[str]:
    """What a path says that chose its steps by the numbers that it shows."""
    if not measured.places:
        return []
    found = [
        "Of the rows tried at a place the one with the highest mean of `robust` was taken (among those of which fewest "
        "trials failed), and the same trials are shown here: so the effects of the steps are optimistic (winner's "
        "curse). Asterisks are corrected for all that was tried."
    ]
    if undecided := [place.number for place in measured.places if place.taken is None]:
        found.append(f"The path has not reached its end: nothing is taken yet at place {undecided[0]}.")
    return found


def _protocols(measured: Measured) -> list[str]:
    """What the columns were measured under."""
    found = []
    if "report" in measured.protocols:
        found.append(
            "Protocol report: 3 PGD steps of 0.01 move a pixel by at most 0.03 of the allowed 0.3, CW has c = 1e-4, "
            "and each gradient is that of one draw. `robust` is the worst of its l_inf attacks, none of which adapts. "
            "The published second table names no settings: its l_2 PGD here makes 3 steps within the l_2 budget below."
        )
    if measured.finals:
        row = measured.finals[0]
        found.append(
            f"`adaptive` is the worst l_inf attack of protocol {FINAL} at epsilon {row['epsilon']:.4g}, "
            f"`adaptive l_2` the worst l_2 attack within {row['epsilon_l2']:.4g}; n = {row['n']} {row['split']} images."
        )
    return found


def _hidden(measured: Measured) -> list[str]:
    """Rows whose own gradient finds less than what adapts to their randomness."""
    gaps: dict[str, list[float]] = {}
    for row in measured.finals:
        if row["naive"] is not None:
            gaps.setdefault(row["trial"].rpartition("-s")[0], []).append(row["naive"] - row["robust"])
    hidden = {name: float(np.mean(gap)) for name, gap in gaps.items() if np.mean(gap) > CLEARLY}
    if not hidden:
        return []
    listed = ", ".join(f"{name} ({100 * gap:.1f} points)" for name, gap in hidden.items())
    return [
        f"Auto-PGD on the gradient of one draw leaves more than the worst attack of the same protocol in {listed}: "
        "randomness hides the gradient there, and an attack that does not average over it overstates robustness."
    ]
