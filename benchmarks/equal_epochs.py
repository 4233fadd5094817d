"""Robust accuracy of our training and of the plain way at equal epochs, for `benchmarks.training_step --accuracy`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from robustsearch.data import Dataset
from robustsearch.evaluation.protocols import protocol
from robustsearch.membership import Z95, pool
from robustsearch.recipe import LWTA, Attack, Mix, Model, Recipe, Training
from robustsearch.seeds import derive
from robustsearch.training.loop import Trainer, lr_factor
from robustsearch.trial import Plan, Trial

from .plain import PlainTrainer

EPOCHS, SEEDS = 12, 3


def accuracy(dataset: Dataset, depth: int, pgd: Callable[..., Any]) -> None:
    """Print a row for each way: mean over seeds, with the interval over images and seeds, of protocol `standard`."""
    epsilon = dataset.epsilon
    recipe = Recipe(
        model=Model(depth=depth),
        lwta=LWTA(gate="mean", kl_weight=0.1),
        mix=Mix(clean=0, noise=0, fgsm=0, pgd=1, cw=0),
        attack=Attack(epsilon=epsilon, step=epsilon / 2, steps=3, warmup=0.25),
        training=Training(epochs=EPOCHS, augment=False),
    )
    plan = Plan((), protocol("standard"), epsilon, dataset.epsilon_l2)
    print("| way | natural % | robust % [95%] | seeds | CPU s of training |\n|---|---|---|---|---|")
    for way in ("ours", "plain"):
        rows = []
        for seed in range(SEEDS):
            trial = Trial(recipe, seed, dataset, plan, torch.device("cpu"))
            start = time.process_time()
            if way == "ours":
                trainer = Trainer(trial.network, recipe, dataset, seed, trial.device)
                for _ in range(EPOCHS):
                    trainer.run_epoch()
            else:
                trial.network.load_state_dict(plainly_trained(recipe, dataset, seed, pgd))
            seconds = time.process_time() - start
            rows.append(
                trial.measure()
                | {"trial": way, "role": "repeat" if seed else "search", "epoch": EPOCHS, "seconds": seconds}
                | {"digest": recipe.digest, "recipe": recipe.to_json()}
            )
            trial.close()
        (point,) = pool(rows)
        error = Z95 * point.error
        print(
            f"| {way} | {100 * np.mean([row['natural'] for row in rows]):.1f} | {100 * point.robust:.1f} "
            f"[{100 * max(0, point.robust - error):.1f}, {100 * min(1, point.robust + error):.1f}] "
            f"| {' / '.join(format(100 * row['robust'], '.1f') for row in rows)} "
            f"| {np.mean([row['seconds'] for row in rows]):.0f} |",
            flush=True,
        )


def plainly_trained(recipe: Recipe, dataset: Dataset, seed: int, pgd: Callable[..., Any]) -> dict[str, torch.Tensor]:
    """State of the network after the plain way's training, from the weights and with the schedule of the recipe's."""
    training = recipe.training
    trainer = PlainTrainer(recipe, dataset, derive(seed, "network"), pgd, lr=training.lr)
    generator = torch.Generator().manual_seed(seed)
    batches = -(-len(dataset.train) // training.batch_size)
    steps = EPOCHS * batches
    for epoch in range(EPOCHS):
        permutation = torch.randperm(len(dataset.train), generator=generator)
        for index, chosen in enumerate(permutation.tensor_split(batches)):
            done = epoch * batches + index
            for group in trainer.optimizer.param_groups:
                group["lr"] = training.lr * lr_factor(training.schedule, done / steps)
            trainer.step(chosen, strength=min(1.0, (done + 1) / steps / recipe.attack.warmup))
    return trainer.network.state_dict()
