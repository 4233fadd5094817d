"""Problems on which searchers are compared: the recorded table, and two with known fronts.

A problem is a space of recipes and the learning curve of each. `conditions` is the table again, its recipes made from
settings of which some depend on others. In `zdt1` and `dtlz2` (Zitzler, Deb & Thiele 2000; Deb
et al. 2005, with two objectives) five fields of a recipe that are shares of 1 carry the variables, the objectives are
mapped monotonically to a latency and to a robust accuracy, and that is approached over the epochs, fast or slowly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.recorded import grid
from robustsearch.recipe import LWTA, Attack, Mix, Recipe, Smoothing, Training
from robustsearch.search import halving
from robustsearch.search.recorded import Recorded
from robustsearch.search.simulate import Curve
from robustsearch.search.spaces import Space
from robustsearch.seeds import derive

TABLE = Path(__file__).parent / "recorded" / "digits.parquet"
EPSILON = grid.EPSILON
EPOCHS = grid.EPOCHS
"""Of a training, where a problem does not say otherwise."""
LONG = 32
"""Epochs of the long forms of the computed problems, with rungs at 4, 8, 16 and 32."""
GRACE = halving.GRACE
"""Epochs of the first rung, as in any search."""
CARRIERS = ("momentum", "clean_weight", "warmup", "sigma", "cutoff")
NOISE = 0.02
"""Standard deviation of the accuracy that a computed curve reports."""


@dataclass(frozen=True)
class Problem:
    """What a simulated search works on."""

    name: str
    space: Space
    curves: Callable[[Sequence[int]], Callable[[Recipe, int], Curve]]
    """From the rungs to the curves of recipes and seeds."""
    base: float
    """Latency in ms from which the normalised hypervolume counts."""
    unit: str = "epochs"
    """Of what a trial costs."""
    epochs: int = EPOCHS
    """Of a whole training."""


def table(name: str = "table", suggest: Callable[..., Recipe] = grid.suggest) -> Problem:
    """The recorded grid: small networks on digits, trained for real; latency counts from the fastest of them."""
    rows = pq.read_table(TABLE).to_pylist()
    base = min(row["latency_p50"] for row in rows if row["latency_p50"] is not None)
    space = Space("recorded", "the recorded grid", suggest, ())
    return Problem(name, space, cache(lambda rungs: Recorded(rows, rungs).curve), base, "s of training and evaluation")


def zdt1(epochs: int = EPOCHS) -> Problem:
    """A convex front; all but one of the variables have to become 0."""

    def objectives(x: Sequence[float]) -> tuple[float, float]:
        g = 1 + 9 * float(np.mean(x[1:]))
        return x[0], g * (1 - math.sqrt(x[0] / g))

    return _problem("zdt1", objectives, epochs)


def dtlz2(epochs: int = EPOCHS) -> Problem:
    """A concave front: a quarter of a circle; all but one of the variables have to become 1/2."""

    def objectives(x: Sequence[float]) -> tuple[float, float]:
        g = sum((value - 0.5) ** 2 for value in x[1:])
        angle = x[0] * math.pi / 2
        return (1 + g) * math.sin(angle), (1 + g) * math.cos(angle)

    return _problem("dtlz2", objectives, epochs)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "table": cache(table),
    "conditions": cache(partial(table, "conditions", grid.suggest_by_conditions)),
    "zdt1": zdt1,
    "dtlz2": dtlz2,
    "zdt1-long": partial(zdt1, LONG),
    "dtlz2-long": partial(dtlz2, LONG),
}


def _problem(name: str, objectives: Callable[[Sequence[float]], tuple[float, float]], epochs: int) -> Problem:
    name += "-long" * (epochs == LONG)
    return Problem(name, _carried(name, epochs), lambda rungs: _computed(objectives, rungs), 1.0, epochs=epochs)


def _carried(name: str, epochs: int) -> Space:
    """A space of recipes whose five carriers are free."""

    def suggest(trial: Any, epsilon: float = EPSILON) -> Recipe:
        x = {field: trial.suggest_float(field, 0.001, 0.999) for field in CARRIERS}
        return Recipe(
            lwta=LWTA(kl_weight=x["cutoff"]),
            smoothing=Smoothing(sigma=x["sigma"]),
            mix=Mix(clean=0, noise=0, fgsm=0, pgd=1, cw=0),
            attack=Attack(epsilon=epsilon, step=epsilon / 4, warmup=x["warmup"]),
            training=Training(epochs=epochs, momentum=x["momentum"], clean_weight=x["clean_weight"]),
        )

    return Space(name, f"{name} in five variables", suggest, ())


def _computed(
    objectives: Callable[[Sequence[float]], tuple[float, float]], rungs: Sequence[int]
) -> Callable[[Recipe, int], Curve]:
    def curve(recipe: Recipe, seed: int) -> Curve:
        assert recipe.lwta is not None
        assert recipe.smoothing is not None
        x = (
            recipe.training.momentum,
            recipe.training.clean_weight,
            recipe.attack.warmup,
            recipe.smoothing.sigma,
            recipe.lwta.kl_weight,
        )
        first, second = objectives(x)
        latency, final = 1 + 9 * first, 1 / (1 + second)
        generator = np.random.default_rng(derive(seed, recipe.digest) % 2**32)
        speed = 1 + 3 * generator.random()  # some recipes learn late
        rows = []
        for epoch in rungs:
            share = -math.expm1(-speed * epoch / rungs[-1]) / -math.expm1(-speed)
            robust = float(np.clip(final * share + NOISE * generator.standard_normal(), 0, 1))
            rows.append({"epoch": epoch, "robust": robust, "latency_p50": latency, "n": 200})
        return Curve(rows, [float(epoch) for epoch in rungs])

    return curve
