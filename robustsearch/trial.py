"""One trial: a recipe and a seed in, a row of the results at each rung out. It knows nothing of Ray or Optuna."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import checkpoint
from .attacks.gradient import crafting
from .data import Dataset, Split, to_tensor
from .engines.prepare import prepare
from .errors import RunError, TrialError
from .evaluation.methods import craft
from .evaluation.protocols import Adversary, Protocol
from .evaluation.robust import evaluate
from .latency import device_name, measure
from .models.build import network_for
from .models.deploy import deploy
from .models.inspect import Arrays, describe
from .patience import TROUBLES
from .quiet import Quiet
from .recipe import Recipe
from .runfolder import network_file
from .seeds import derive
from .training.loop import Trainer
from .training.watch import Watch

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What every trial of a run shares: when and how it is measured."""

    rungs: tuple[int, ...]
    """Epochs after which a trial is evaluated, ascending; the last epoch of a recipe is always one."""
    protocol: Protocol
    epsilon: float
    """l_inf radius of the evaluation, pixel units of [0, 1]."""
    epsilon_l2: float
    """l_2 budget of the evaluation, pixel units of [0, 1]."""
    engine: str = "auto"
    """What runs the deployed network while it is timed, one of `engines.ENGINES`."""


PORTRAYED, EXAMPLES = 32, 4
"""Images whose winners are counted, and of these, images that are attacked, for a portrait."""
PORTRAIT_STEPS = 3
"""Of the PGD that attacks them."""


@dataclass(frozen=True)
class Portrait:
    """What a network does after some epochs, as plain arrays."""

    layers: Arrays
    """See `models.inspect.describe`."""
    clean: NDArray[np.float32]
    """Validation images that the rungs measure too, `[EXAMPLES, C, H, W]` in [0, 1]."""
    perturbed: NDArray[np.float32]
    """The same after `attack` with radius `epsilon`, the evaluation's, through the surrogate."""
    attack: str
    epsilon: float
    labels: NDArray[np.int64]
    """Their true classes, `[EXAMPLES]`."""
    predicted: NDArray[np.int64]
    """The classes that one deployed prediction gives the clean ones, and the perturbed, `[2, EXAMPLES]`."""


class Trial:
    """A network in training, which can be measured, saved after any epoch and resumed bit for bit on the CPU."""

    def __init__(
        self, recipe: Recipe, seed: int, dataset: Dataset, plan: Plan, device: torch.device | None = None
    ) -> None:
        self.recipe, self.seed, self.dataset, self.plan = recipe, seed, dataset, plan
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = network_for(recipe, dataset, seed=derive(seed, "network")).to(self.device)
        self._trainer = Trainer(self.network, recipe, dataset, seed, self.device)
        patience = recipe.training.patience
        self._watch = Watch(alarm=recipe.mix.fgsm_rs > 0, patience=patience) if recipe.mix.fgsm_rs or patience else None
        self.rows: list[Row] = []
        """What was measured, one row a rung; part of the checkpoint, so that no report is lost with its reader."""
        self.losses: dict[str, float] = {}
        """Mean terms of the last epoch's objective, by name; with them `pgd_accuracy` where a watch is kept."""
        self.ended: str | None = None
        """Why training ended before its last epoch; the network is then that of the best epoch."""
        self._seconds = {"train_s": 0.0, "eval_s": 0.0, "latency_s": 0.0}
        self._quiet = Quiet(str(self.device).replace(":", "-"))
        self._damaged = False

    @property
    def epoch(self) -> int:
        """Epochs behind the network."""
        return self._trainer.epoch

    @property
    def done(self) -> bool:
        """Whether every epoch of the recipe is trained, or the watch has ended it."""
        return self.ended is not None or self.epoch >= self.recipe.training.epochs

    @property
    def _measured(self) -> bool:
        """Whether the network as it is now has its row."""
        return any(row["epoch"] == self.epoch for row in self.rows)

    def advance(self) -> None:
        """Train one epoch and, at a rung, measure: `losses` is then the epoch's, and `rows` has one row more.

        Where the watch ends training, the trial goes back to its best epoch, and measures that if it has not yet.

        Raises:
            DivergedError: the objective is no longer finite.
        """
        with self._clock("train_s"):
            self.losses = self._trainer.run_epoch(self._quiet.working)
        train_loss = self.losses["loss"]
        if self._watch:
            self.losses["pgd_accuracy"] = accuracy = self._pgd_accuracy()
            self.ended = self._watch.see(
                self.epoch,
                accuracy,
                lambda: {"trainer": copy.deepcopy(self._trainer.state()), "train_loss": train_loss},
            )
            if self.ended:
                assert self._watch.best is not None
                self._trainer.load_state(self._watch.best["trainer"])
                train_loss = self._watch.best["train_loss"]
        if (self.done or self.epoch in self.plan.rungs) and not self._measured:
            self.rows.append(self.measure() | {"train_loss": train_loss})

    def _pgd_accuracy(self) -> float:
        """Accuracy under PGD-5 of the training's epsilon, one draw, on the validation images of the rungs."""
        attack = self.recipe.attack
        adversary = Adversary("pgd", "pgd", attack.norm, steps=5)
        protocol = Protocol("watch", self.plan.protocol.images, 1, 1, 1, (adversary,))
        return float(self._evaluate(protocol, attack.epsilon, attack.epsilon, "watch")["pgd"])

    def _evaluate(self, protocol: Protocol, epsilon: float, epsilon_l2: float, purpose: str) -> Row:
        """Accuracies on the validation split, as columns of a row.

        Leaves the training state as it was: draws come from generators of their own.
        """
        images, labels = sample(self.dataset.validation, protocol.images, self.device)
        with self._own_draws(purpose), self._clock("eval_s"):
            row: Row = evaluate(
                self.network,
                images,
                labels,
                protocol=protocol,
                epsilon=epsilon,
                epsilon_l2=epsilon_l2,
                draws=self.recipe.draws,
                seed=self.seed,
                turn=self._quiet.working,
            )
        return row

    def portrait(self) -> Portrait:
        """What the network does now, to look at. Leaves the training state as it was, and costs a few passes."""
        images, labels = sample(self.dataset.validation, PORTRAYED, self.device)
        epsilon = self.plan.protocol.epsilon or self.plan.epsilon
        generator = torch.Generator(self.device).manual_seed(derive(self.seed, "portrait"))
        with self._own_draws("portrait"), self._quiet.working():
            with crafting(self.network):
                layers = describe(self.network, images)
            perturbed = craft(
                Adversary("pgd", "pgd", steps=PORTRAIT_STEPS),
                self.network,
                images[:EXAMPLES],
                labels[:EXAMPLES],
                epsilon=epsilon,
                gradient_draws=1,
                generator=generator,
            )
            with crafting(self.network), torch.no_grad():
                shown = torch.stack([images[:EXAMPLES], perturbed])
                predicted = torch.stack([self.network.predict(each, self.recipe.draws) for each in shown]).argmax(dim=2)
        return Portrait(
            layers,
            clean=images[:EXAMPLES].cpu().numpy(),
            perturbed=perturbed.cpu().numpy(),
            attack=f"PGD-{PORTRAIT_STEPS}",
            epsilon=epsilon,
            labels=labels[:EXAMPLES].cpu().numpy(),
            predicted=predicted.cpu().numpy(),
        )

    @contextmanager
    def _own_draws(self, purpose: str) -> Iterator[None]:
        """Draws from a stream of this purpose and epoch, and goes on with the training's after it."""
        noise, before = self.network.noise, self.network.noise.state()
        noise.seed(derive(self.seed, purpose, self.epoch))
        yield
        noise.load_state(before)

    def measure(self) -> Row:
        """Accuracies on the validation split, and the latency of the deployed prediction, as columns of a row.

        Leaves the training state as it was.
        """
        plan = self.plan
        row = self._evaluate(plan.protocol, plan.epsilon, plan.epsilon_l2, "scoring")
        with self._clock("latency_s"):
            with self._quiet.working():
                prepared = prepare(
                    deploy(self.network, self.recipe.draws),
                    self.dataset.shape,
                    self.device,
                    plan.engine,
                    seed=derive(self.seed, "engine", self.epoch),
                )
            with self._quiet.alone():
                row |= measure(prepared, self.dataset.shape, self.device).row()
        return (
            row
            | self._seconds
            | {
                "epoch": self.epoch,
                "blocks_kept": self.network.blocks_kept(),
                "seed": self.seed,
                "dataset": self.dataset.name,
                "split": "validation",
                "protocol": plan.protocol.name,
                "device": device_name(self.device),
            }
        )

    def save(self, path: Path) -> None:
        """Write a checkpoint in one atomic step, keep the one before it as `PATH.previous`, and at a rung the network.

        A damaged one is not kept: `PATH.previous` is then the good one that `load` found.

        The network of each rung stays, as `network-EPOCH.pt` beside the checkpoint: any of them may be on the front.
        """
        state = {
            "recipe": self.recipe.to_json(),
            "seed": self.seed,
            "rows": self.rows,
            "seconds": self._seconds,
            "trainer": self._trainer.state(),
            "watch": self._watch.state() if self._watch else None,
            "ended": self.ended,
        }
        if self._measured:  # the network first: a checkpoint after a rung tells of it
            network = network_file(path, self.epoch)
            checkpoint.write(network, {"recipe": self.recipe.to_json(), "state": self.network.state_dict()})
        checkpoint.write(path, state, keep=None if self._damaged else _previous(path))
        self._damaged = False

    def load(self, path: Path) -> bool:
        """Continue from the newest readable checkpoint at `path`; False where there is none.

        Raises:
            TrialError: the checkpoint is another trial's.
            OSError: it cannot be read now, which may pass.
        """
        for candidate in (path, _previous(path)):
            try:
                state = checkpoint.read(candidate)
            except RunError as error:
                if isinstance(cause := error.__cause__, OSError) and cause.errno in TROUBLES:
                    raise cause from None
                self._damaged = candidate.exists()
                continue  # absent or damaged: the one before it is whole
            if (state["recipe"], state["seed"]) != (self.recipe.to_json(), self.seed):
                raise TrialError(f"a checkpoint must be of the trial's own recipe and seed, but {candidate} is not")
            self._trainer.load_state(state["trainer"])
            self.rows, self._seconds, self.ended = list(state["rows"]), dict(state["seconds"]), state["ended"]
            if self._watch:
                self._watch.load_state(state["watch"])
            return True
        return False

    @contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - start

    def close(self) -> None:
        """Give back what the trial holds outside memory."""
        self._quiet.close()


def run_trial(
    recipe: Recipe,
    seed: int,
    report: Callable[[Mapping[str, Any]], object],
    *,
    dataset: Dataset,
    plan: Plan,
    checkpoint: Path | None = None,
    device: torch.device | None = None,
) -> None:
    """Train a recipe to its last epoch or the early end that it asks for, calling `report(row)` at each rung.

    With a `checkpoint` path it saves there after each epoch, resumes from there, and reports the earlier rungs again.

    Raises:
        DivergedError: the objective is no longer finite.
    """
    trial = Trial(recipe, seed, dataset, plan, device)
    if checkpoint:
        trial.load(checkpoint)
    for row in trial.rows:
        report(row)
    while not trial.done:
        reported = len(trial.rows)
        trial.advance()
        if checkpoint:
            trial.save(checkpoint)
        for row in trial.rows[reported:]:
            report(row)
    trial.close()


def sample(split: Split, wanted: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The same images `[N, C, H, W]` and labels `[N]` for every trial: `wanted` of a split, drawn once and for all."""
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    chosen = sorted(order[:wanted].tolist())
    return to_tensor(split.images[chosen], device), torch.from_numpy(split.labels[chosen]).to(device)


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.previous")
