"""The report's table 1 as an ablation: its eight rows, by name, with its settings.

"Robustness of Neural Networks" (2024), WRN-34-1, 30 epochs. Its training mix draws from {0..7} for each batch: four are
clean, and one each is noise, PGD, FGSM and CW. Here a row without one of these has a clean batch in its place, and
"smoothing" is the noise of that mix; the report does not say more. Two numbers differ. Its PGD at epsilon 0.3 makes 3
steps of 0.01, which cannot reach their ball; a recipe's must, so they are of 0.1. Its stochastic LWTA is trained on
PGD-20 alone, at 8/255. None of it depends on the dataset, as the report has one.
"""

from __future__ import annotations

from robustsearch.recipe import LWTA, PNI, Attack, Mix, Recipe, Training

PROTOCOL = "report"
"""How a run of this space measures, where it is not told otherwise."""

EIGHTH = 1 / 8


def design(epsilon: float = 0.1) -> dict[str, Recipe]:
    """The rows, in the report's order; the first is what the others are compared with."""

    def trained_on(*attacks: str, pni: PNI | None = None) -> Recipe:
        shares = dict.fromkeys(("noise", "fgsm", "pgd", "cw"), 0.0) | dict.fromkeys(attacks, EIGHTH)
        return Recipe(
            pni=pni,
            mix=Mix(clean=1 - EIGHTH * len(attacks), **shares),
            attack=Attack(epsilon=0.3, step=0.1, steps=3, cw_c=1e-4, cw_kappa=0.01),
            training=Training(epochs=30, lr=0.1),
        )

    return {
        "regular-training": trained_on(),
        "noise-injection": trained_on(pni=PNI()),
        "smoothing": trained_on("noise"),
        "smoothing-pgd": trained_on("noise", "pgd"),
        "smoothing-pgd-fgsm": trained_on("noise", "pgd", "fgsm"),
        "smoothing-pgd-fgsm-cw": trained_on("noise", "pgd", "fgsm", "cw"),
        "smoothing-pgd-fgsm-cw-noise-injection": trained_on("noise", "pgd", "fgsm", "cw", pni=PNI()),
        "stochastic-lwta": Recipe(
            lwta=LWTA(units=2),
            mix=Mix(clean=0, noise=0, fgsm=0, pgd=1, cw=0),
            attack=Attack(epsilon=8 / 255, step=0.007, steps=20),
            training=Training(epochs=30, lr=0.1),
        ),
    }
