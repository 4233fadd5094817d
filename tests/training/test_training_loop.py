"""The loop over epochs: schedule, learning, divergence, state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robustsearch import checkpoint
from robustsearch.data import Dataset
from robustsearch.errors import DivergedError
from robustsearch.models.build import network_for
from robustsearch.recipe import IBP, LWTA, PNI, Attack, Mix, Model, Recipe, Smoothing, Training
from robustsearch.training.loop import Trainer, lr_factor

ALL_ATTACKS = Mix(clean=0.2, noise=0.2, fgsm=0.2, pgd=0.2, cw=0.2)
EVERYTHING = Recipe(
    model=Model(depth=10),
    lwta=LWTA(ibp=IBP()),
    pni=PNI(),
    smoothing=Smoothing(),
    mix=ALL_ATTACKS,
    attack=Attack(steps=2, step=0.05, warmup=0.5),
    training=Training(epochs=4, batch_size=40, clean_weight=0.5),
)


def trainer(recipe: Recipe, digits: Dataset, seed: int = 0) -> Trainer:
    network = network_for(recipe, digits, seed=seed)
    return Trainer(network, recipe, digits, seed, torch.device("cpu"))


@pytest.mark.parametrize("steps", [7, 100])
def test_one_cycle_is_torch_s(steps: int) -> None:
    """Against `torch.optim.lr_scheduler.OneCycleLR`, which counts its last step as progress 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=steps + 1, cycle_momentum=False)
    # Theirs puts the peak at step 0.3 * total - 1; the two agree on each phase as a function of its own share.
    peak = 0.3 * (steps + 1) - 1
    for step in range(steps):
        share = 0.3 * step / peak if step <= peak else 0.3 + 0.7 * (step - peak) / (steps - peak)
        assert lr_factor("one-cycle", share) == pytest.approx(theirs.get_last_lr()[0], rel=1e-6, abs=1e-9)
        optimizer.step()
        theirs.step()


def test_cosine_and_constant() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for step in range(10):
        assert lr_factor("cosine", step / 10) == pytest.approx(theirs.get_last_lr()[0], abs=1e-9)
        assert lr_factor("constant", step / 10) == 1.0
        optimizer.step()
        theirs.step()


def test_plain_training_learns(digits: Dataset) -> None:
    recipe = Recipe(
        model=Model(depth=10),
        mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0),
        training=Training(epochs=6, batch_size=40),
    )
    loop = trainer(recipe, digits)
    losses = [loop.run_epoch()["ce"] for _ in range(6)]
    assert losses[-1] < losses[0] / 2


def test_terms_sum_to_the_loss_and_lr_is_reported(digits: Dataset) -> None:
    losses = trainer(EVERYTHING, digits).run_epoch()
    assert set(losses) == {"ce", "clean_ce", "kl_gate", "kl_sticks", "kl_z", "loss", "lr"}
    assert sum(value for name, value in losses.items() if name not in ("loss", "lr")) == pytest.approx(losses["loss"])
    assert 0 < losses["lr"] <= EVERYTHING.training.lr


def test_no_epoch_changes_the_global_generator_and_the_global_seed_changes_nothing(digits: Dataset) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = trainer(EVERYTHING, digits).run_epoch()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert trainer(EVERYTHING, digits).run_epoch() == first
    assert trainer(EVERYTHING, digits, seed=1).run_epoch() != first


def test_state_continues_bit_for_bit(digits: Dataset) -> None:
    whole = trainer(EVERYTHING, digits)
    whole_losses = [whole.run_epoch() for _ in range(3)]
    cut = trainer(EVERYTHING, digits)
    cut.run_epoch()
    resumed = trainer(EVERYTHING, digits)
    resumed.load_state(cut.state())
    assert [resumed.run_epoch() for _ in range(2)] == whole_losses[1:]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_gradients_and_their_moments_lie_in_memory_as_their_parameters(
    optimizer: str, digits: Dataset, tmp_path: Path
) -> None:
    """Optimisers of one pass pair what lies side by side, and ask no questions; so too from a file."""
    recipe = Recipe(
        model=Model(depth=10), lwta=LWTA(ibp=IBP()), training=Training(epochs=2, optimizer=optimizer, batch_size=512)
    )
    one, other = trainer(recipe, digits), trainer(recipe, digits)
    one.run_epoch()
    checkpoint.write(tmp_path / "state.pt", one.state())
    other.load_state(checkpoint.read(tmp_path / "state.pt"))
    other.run_epoch()

    def places(tensor: torch.Tensor) -> list[int]:
        """Strides of axes that have any."""
        return [step for size, step in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]

    seen = 0
    for each in (one, other):
        optimizers = getattr(each._optimizer, "_parts", [each._optimizer])
        for parameter in each.network.parameters():
            assert parameter.grad is not None
            assert places(parameter.grad) == places(parameter)
            for part in optimizers:
                for moment in part.state.get(parameter, {}).values():
                    if moment.shape == parameter.shape:
                        assert places(moment) == places(parameter)
                        seen += moment.dim() == 4
    assert seen > 10


def test_a_loss_that_is_not_finite_ends_the_training(digits: Dataset) -> None:
    loop = trainer(EVERYTHING.replace(pni=None, smoothing=None), digits)
    with torch.no_grad():
        next(iter(loop.network.parameters())).fill_(float("nan"))
    with pytest.raises(DivergedError, match="must stay finite, but is nan in epoch 1"):
        loop.run_epoch()


@pytest.mark.parametrize(
    ("mix", "fields", "passes"),
    [
        ({"pgd": 1}, {"trades": 6.0}, 2),
        ({"pgd": 1}, {"trades": 6.0, "awp": 0.005}, 2),
        ({"fgsm_rs": 1}, {"awp": 0.01, "clean_weight": 0.5}, 1),
    ],
    ids=["trades", "trades-awp", "fgsm-rs-awp"],
)
def test_every_recipe_trains_random_networks_and_continues_bit_for_bit(
    digits: Dataset, mix: dict[str, float], fields: dict[str, float], passes: int
) -> None:
    """And moves the running statistics `passes` times a step: the ascent of AWP leaves no trace in them."""
    alone = {"clean": 0.0, "noise": 0.0, "fgsm": 0.0, "pgd": 0.0, "cw": 0.0}
    recipe = EVERYTHING.replace(
        mix=alone | mix, training=EVERYTHING.training.model_dump() | {"batch_size": 8, "clean_weight": 0} | fields
    )
    digits = replace(digits, train=digits.train.take(np.arange(24)))  # three steps an epoch
    whole = trainer(recipe, digits)
    losses = [whole.run_epoch() for _ in range(2)]
    terms = {name: value for name, value in losses[0].items() if name not in ("loss", "lr")}
    assert sum(terms.values()) == pytest.approx(losses[0]["loss"])
    assert ("trades" in terms) == ("trades" in fields)
    assert {"clean_ce", "kl_gate", "kl_sticks", "kl_z"} < terms.keys()
    counts = {int(value) for name, value in whole.network.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {2 * 3 * passes}
    cut = trainer(recipe, digits)
    assert cut.run_epoch() == losses[0]
    resumed = trainer(recipe, digits)
    resumed.load_state(cut.state())
    assert resumed.run_epoch() == losses[1]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_crafting_leaves_the_batch_norm_statistics_alone(digits: Dataset) -> None:
    """An attacked batch moves the running statistics exactly as often as a clean one: once."""
    for mix in (Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0), Mix(clean=0, noise=0, fgsm=0, pgd=1, cw=0)):
        loop = trainer(EVERYTHING.replace(mix=mix), digits)
        loop.run_epoch()
        counts = {
            int(value) for name, value in loop.network.state_dict().items() if name.endswith("num_batches_tracked")
        }
        assert counts == {3}


def test_it_trains_from_the_dataset_s_own_memory(digits: Dataset) -> None:
    """Workers of a node read one copy: the arrays are read-only, are not copied, and nothing is written to them."""
    images = digits.train.images.view()
    images.flags.writeable = False
    shared = replace(digits, train=replace(digits.train, images=images))
    loop = trainer(EVERYTHING.replace(training=EVERYTHING.training.model_dump() | {"epochs": 1}), shared)
    before = images.copy()
    loop.run_epoch()
    assert any(
        np.shares_memory(images, value.numpy()) for value in vars(loop).values() if isinstance(value, torch.Tensor)
    )
    assert np.array_equal(images, before)
