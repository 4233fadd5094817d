"""A run that is only planned: how many trials and seeds, how long, and what it costs. Nothing is started or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import optuna
import torch

from .. import data, results
from ..ablation.gaining import RULE
from ..ablation.power import detectable, seeds_needed
from ..errors import UserError
from ..evaluation.protocols import protocol
from ..recipe import Recipe
from ..runfolder import RunFolder
from ..trial import Plan
from . import spaces
from .assemble import plan_of
from .forecast import Cost, calibrate, expected_shares, key, makespan, mean_cost, measured_costs, seed_spread
from .placement import foreseen
from .settings import FINAL_OF_DESIGN, Settings
from .spaces import Size

SAMPLED = 4
"""Recipes of a search space that are calibrated, where no earlier run has times."""


@dataclass(frozen=True)
class Question:
    """What is asked about a run that is not started."""

    like: str | None = None
    """Folder of an earlier run, whose trials give times and the spread between seeds."""
    resolution: float | None = None
    """Difference in robust accuracy that is to be found, in points."""
    price: float | None = None
    """Of the whole cluster, an hour."""

    def check(self) -> None:
        """Find what breaks a rule.

        Raises:
            UserError: it does.
        """
        for name in ("resolution", "price"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"`--{name}` must be above 0, but got {value:g}")
        if self.resolution is not None and self.like is None:
            raise UserError("`--resolution` needs the variance of trials already run: add --like RUN")


def forecast(settings: Settings, question: Question, address: str | None) -> list[str]:
    """What a run with these settings comes to, in lines.

    Raises:
        UserError: the settings or the question break a rule, or the earlier run cannot be read.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings.check()
    question.check()
    space = spaces.of(settings)
    dataset = data.of_settings(asdict(settings))
    recipes = [sample.recipe for sample in space.sample(dataset.epsilon, settings.seed)]
    earlier = _earlier(question.like)
    place = foreseen(settings, address=address)
    plan = plan_of(settings, dataset)
    lines = [f"{space.name}: {space.summary}"]
    rounds = [len(recipes)]
    if settings.seeds:
        size, path = space.size(dataset.epsilon, settings.seeds), space.path(dataset.epsilon)
        lines.append(f"{size.trials} of {settings.epochs} epochs: {size.rows}.")
        if path:
            lines.append(RULE)
            rounds = [len(rows) for rows in path.rounds()]
        lines += _seeds(settings, question, earlier, size)
    else:
        lines.append(
            f"{settings.trials} trials of {settings.epochs} epochs, the baseline, and at most {settings.most_repeats} "
            "repeats."
        )
    lines += _time(
        settings, question, _costs(settings, recipes, dataset, plan, earlier), plan, place.concurrency, rounds
    )
    return [
        *lines,
        f"{place.concurrency} at a time, {settings.cpus_per_trial} CPUs and {place.gpus:g} GPUs each.",
        "Nothing was run.",
    ]


@dataclass(frozen=True)
class _Earlier:
    """What an earlier run measured."""

    name: str
    rows: list[dict[str, Any]]
    finals: list[dict[str, Any]]


def _earlier(like: str | None) -> _Earlier | None:
    if like is None:
        return None
    folder = RunFolder(Path(like))
    folder.info()
    rows = results.read(folder.results).to_pylist()
    if not any(row["robust"] is not None for row in rows):
        raise UserError(f"`--like` must be a run with measured trials, but {folder.root} has none")
    known = results.read(folder.evaluations).to_pylist()
    finals = [row for row in known if row["protocol"] == FINAL_OF_DESIGN and row["split"] == "validation"]
    return _Earlier(folder.name, rows, finals)


def _costs(
    settings: Settings, recipes: Sequence[Recipe], dataset: data.Dataset, plan: Plan, earlier: _Earlier | None
) -> tuple[list[Cost], str]:
    """Costs of each row of a design, or of what a search may try; and where they come from, in words.

    Networks of an earlier run stand for themselves, and in a search for all others; what it does not know is timed.
    """
    known = measured_costs(earlier.rows, earlier.finals) if earlier else {}
    final = protocol(FINAL_OF_DESIGN) if _has_final(settings) else None
    if not settings.seeds:
        if known:
            return [mean_cost(list(known.values()))], f"from {len(known)} recipes of {earlier.name}"  # type: ignore[union-attr]
        recipes = recipes[:SAMPLED]
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.cpus_per_trial)
    unknown = [recipe for recipe in recipes if key(recipe) not in known]
    known |= {key(recipe): cost for recipe, cost in zip(unknown, calibrate(unknown, dataset, plan, final), strict=True)}
    torch.set_num_threads(threads)
    source = f"{len(unknown)} recipes timed here, by a few batches" if unknown else "no recipe timed here"
    source += f", {len(recipes) - len(unknown)} from {earlier.name}" if earlier else ""
    return [known[key(recipe)] for recipe in recipes], source


def _has_final(settings: Settings) -> bool:
    """Whether every trial is examined at the end."""
    return bool(settings.seeds and settings.final_images and settings.protocol != FINAL_OF_DESIGN)


def _time(
    settings: Settings,
    question: Question,
    costs: tuple[list[Cost], str],
    plan: Plan,
    concurrency: int,
    rounds: Sequence[int],
) -> list[str]:
    """How long a run takes; `rounds` are the numbers of rows of a design of which each waits for those before."""
    found, source = costs
    stopped = settings.scheduler == "mo-asha"
    epochs, measured = expected_shares(plan.rungs, settings.eta if stopped else None)
    each = [cost.epoch * epochs + cost.rung * measured for cost in found]
    longest = max(each)
    if settings.seeds:
        starts = [0, *accumulate(rounds)]
        waiting = [each[start:end] * settings.seeds for start, end in pairwise(starts)]
        finals = [cost.final for cost in found] * settings.seeds
    else:
        waiting, finals = [[sum(each) / len(each)] * (settings.trials + 1 + settings.most_repeats)], []
    scale = settings.final_images / protocol(FINAL_OF_DESIGN).images
    last = makespan([scale * seconds for seconds in finals], concurrency)
    wall = sum(makespan(seconds, concurrency) for seconds in waiting) + last
    kept = f", of which {epochs:.1f} epochs are trained on average" if stopped else ""
    lines = [
        f"A trial takes {_clock(sum(each) / len(each))} on average{kept}, the longest {_clock(longest)} ({source}).",
        f"All take {_clock(wall)}" + (f", {_clock(last)} of it for the last evaluation" if last else "") + ".",
    ]
    if question.price is not None:
        lines.append(f"At {question.price:g} an hour that is {question.price * wall / 3600:.2f}.")
    return lines


def _seeds(settings: Settings, question: Question, earlier: _Earlier | None, size: Size) -> list[str]:
    """What the seeds can tell, and how many would tell the wanted difference."""
    if earlier is None:
        return ["What they can tell needs the variance of trials already run: add --like RUN."]
    measured = earlier.finals or earlier.rows
    spread = seed_spread(measured)
    if spread is None or settings.seeds is None:
        return [f"No recipe of {earlier.name} has two seeds, so its variance between seeds is unknown."]
    sd, degrees = spread
    accuracies = [row["robust"] for row in measured if row["robust"] is not None]
    given: dict[str, Any] = {
        "images": min(int(row["n"]) for row in measured if row["n"]),
        "accuracy": sum(accuracies) / len(accuracies),
        "comparisons": max(1, size.most - 1),
    }
    between = 2**0.5 * sd  # of the difference of two rows
    found = detectable(between, settings.seeds, **given) if settings.seeds > 1 else 1.0
    lines = [
        f"Robust accuracy differs by {100 * sd:.1f} points (s.d.) between seeds of one recipe ({earlier.name}, "
        f"{degrees} degrees of freedom; n = {given['images']} images).",
        f"{settings.seeds} seeds find a difference of {100 * found:.1f} points with 80% probability, at 5% after Holm."
        if found < 1
        else f"{settings.seeds} seeds find no difference with 80% probability.",
    ]
    if question.resolution is not None:
        needed = seeds_needed(question.resolution / 100, between, **given)
        trials = replace(size, seeds=needed or 0).trials.lower()
        lines.append(
            f"For {question.resolution:g} points it takes {needed} seeds, {trials}: --seeds {needed}."
            if needed
            else f"For {question.resolution:g} points no number of seeds is enough on {given['images']} images: their "
            "part in the variance alone is too large."
        )
    return lines


def _clock(seconds: float) -> str:
    """h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
