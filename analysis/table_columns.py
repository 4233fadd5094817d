"""The tables of an ablation as data: which columns they have, and what was published in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FINAL, FINAL_SPLIT = "standard", "validation"
"""Protocol and split of the evaluations in the adaptive columns: what every trial of a design meets at its end."""


@dataclass(frozen=True)
class Column:
    """A column: the sum of one or two columns of the results; `final.NAME` is NAME in the last evaluation."""

    heading: str
    parts: tuple[str, ...]
    timed: bool = False
    """Latency, in ms: its differences are ratios, and no image has a part in its variance."""


COLUMNS = {
    "natural": Column("natural %", ("natural",)),
    "pgd": Column("PGD %", ("pgd",)),
    "fgsm": Column("FGSM %", ("fgsm",)),
    "cw": Column("CW %", ("cw",)),
    "robust": Column("robust %", ("robust",)),
    "adaptive": Column("adaptive %", ("final.robust",)),
    "latency_p50": Column("p50 ms", ("latency_p50",), timed=True),
    "pgd_l2": Column("PGD l_2 %", ("pgd_l2",)),
    "pgd_both": Column("PGD l_inf + l_2", ("pgd", "pgd_l2")),
    "adaptive_l2": Column("adaptive l_2 %", ("final.robust_l2",)),
    "adaptive_both": Column("adaptive l_inf + l_2", ("final.robust", "final.robust_l2")),
}
"""Accuracies are shares in [0, 1], their sums in [0, 2]."""


@dataclass(frozen=True)
class Layout:
    """One table: its columns, in order, and published values in % by row and column."""

    title: str
    columns: tuple[str, ...]
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


_FIRST = ("natural", "pgd", "fgsm", "cw")
REPORT = {
    # Table 1 of "Robustness of Neural Networks" (2024), local test on CIFAR-10.
    row: dict(zip(_FIRST, values, strict=True))
    for row, values in {
        "regular-training": (63.67, 1.37, 0.98, 34.08),
        "noise-injection": (57.42, 1.07, 1.37, 26.46),
        "smoothing": (57.81, 1.07, 2.34, 29.59),
        "smoothing-pgd": (62.89, 0.39, 5.27, 26.86),
        "smoothing-pgd-fgsm": (56.64, 0.39, 6.54, 23.67),
        "smoothing-pgd-fgsm-cw": (58.98, 0.59, 6.35, 34.08),
        "smoothing-pgd-fgsm-cw-noise-injection": (59.12, 14.26, 53.28, 56.9),
        "stochastic-lwta": (67.9, 36.23, 11.33, 68.75),
    }.items()
}
REPORT_2 = {
    # Its table 2, another evaluation, without settings; PGD is "aggregated" over l_2 and l_inf: a sum of two.
    "stochastic-lwta": {"natural": 68.8, "pgd_both": 114.6, "fgsm": 11.5, "cw": 66.0},
}

PLAIN = Layout("Rows", (*_FIRST, "robust", "adaptive", "latency_p50"))
TABLE_1 = Layout("Table 1", PLAIN.columns, REPORT)
TABLE_2 = Layout(
    "Table 2",
    ("natural", "pgd", "pgd_l2", "pgd_both", "fgsm", "cw", "adaptive", "adaptive_l2", "adaptive_both"),
    REPORT_2,
)
