"""Every space: 50 recipes that build and run one step; finding spaces by name and file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from robustsearch import search_spaces
from robustsearch.data import Dataset, Split
from robustsearch.errors import SpaceError
from robustsearch.models.build import network_for
from robustsearch.models.deploy import deploy
from robustsearch.recipe import MIX_NAMES, Mix, Recipe
from robustsearch.search import spaces
from robustsearch.training.loop import Trainer


@pytest.mark.slow
@pytest.mark.parametrize("name", search_spaces.names())
def test_fifty_recipes_build_and_run_one_step(name: str, digits: Dataset) -> None:
    """Each attack of the mix gets its turn at the front, where the method leaves it the choice."""
    few = Split(digits.train.images[:6], digits.train.labels[:6])
    tiny = dataclasses.replace(digits, train=few)
    space = spaces.find(name)
    samples = space.sample(digits.epsilon, seed=1, count=50)
    least = len(space.rows(digits.epsilon)) if space.design else 50
    assert len(samples) >= least
    assert len({sample.recipe.digest for sample in samples}) >= least
    for index, sample in enumerate(samples):
        chosen = MIX_NAMES[index % len(MIX_NAMES)]
        mix = Mix(**{name: float(name == chosen) for name in MIX_NAMES})
        recipe = sample.recipe.replace(**{"training.batch_size": 6})
        if recipe.training.trades is None and recipe.training.awp is None:
            recipe = recipe.replace(mix=mix.model_dump())
        network = network_for(recipe, tiny, seed=index)
        losses = Trainer(network, recipe, tiny, index, torch.device("cpu")).run_epoch()
        assert losses["loss"] > 0
        with torch.inference_mode():
            probabilities = deploy(network, recipe.draws)(torch.rand(2, *tiny.shape))
        assert probabilities.shape == (2, 10)
        assert torch.allclose(probabilities.sum(1), torch.ones(2), atol=1e-5)


@pytest.mark.parametrize("name", [name for name in search_spaces.names() if not spaces.find(name).design])
def test_a_space_says_what_it_is_and_its_settings_depend_on_each_other_rightly(name: str) -> None:
    space = spaces.find(name)
    assert space.summary.endswith(".")
    assert len(space.summary) < 100
    for sample in space.sample(0.1, seed=2, count=60):
        recipe, settings = sample.recipe, sample.settings
        assert ("gate_noise" in settings) == (recipe.lwta is not None and recipe.lwta.gate == "noisy")
        assert ("units" in settings) == (recipe.lwta is not None)
        assert ("ibp_alpha" in settings) == (recipe.lwta is not None and recipe.lwta.ibp is not None)
        assert ("pni_alpha" in settings) == (recipe.pni is not None)
        assert ("draws" in settings) == recipe.is_stochastic
        assert 0.1 <= recipe.attack.epsilon <= 0.2
        training, mix = recipe.training, recipe.mix
        assert ("trades" in settings) == (training.trades is not None)
        assert ("awp_gamma" in settings) == (training.awp is not None)
        assert ("steps" in settings) == (mix.pgd + mix.cw > 0)
        assert training.trades is None or "clean_weight" not in settings


def test_joint_holds_every_way_of_adversarial_training() -> None:
    recipes = [sample.recipe for sample in spaces.find("joint").sample(0.1, seed=3, count=60)]
    assert any(recipe.training.trades for recipe in recipes)
    assert any(recipe.training.awp and recipe.training.trades for recipe in recipes)
    assert any(recipe.mix.fgsm_rs == 1 for recipe in recipes)
    assert any(recipe.mix.pgd == 1 and not recipe.training.trades for recipe in recipes)
    assert any(recipe.mix.cw > 0 for recipe in recipes)
    assert any(recipe.training.patience for recipe in recipes)


def test_epsilon_sets_the_scale_of_the_training_attack() -> None:
    for sample in spaces.find("mix").sample(8 / 255, seed=0):
        assert 8 / 255 <= sample.recipe.attack.epsilon <= 16 / 255


def test_starts_come_first() -> None:
    space = spaces.find("mix")
    first = space.sample(0.1, seed=0)[0].recipe.mix
    assert first.clean == pytest.approx(0.5, abs=0.01)
    assert first.pgd == pytest.approx(0.125, abs=0.01)


@pytest.mark.parametrize(("name", "least", "most"), [("pni", 1, 1), ("lwta", 0.8, 0.99), ("joint", 0.5, 0.6)])
def test_how_much_every_recipe_has(name: str, least: float, most: float) -> None:
    assert least <= spaces.common_share(spaces.find(name).sample(0.1, seed=0)) <= most


OWN = '''
"""Learning rate and epsilon of a small network."""
from robustsearch.recipe import Attack, Model, Recipe, Training


def suggest(trial, epsilon):
    return Recipe(
        model=Model(depth=10),
        attack=Attack(epsilon=epsilon, step=epsilon, steps=1),
        training=Training(lr=trial.suggest_float("lr", 0.01, 0.1)),
    )
'''


def test_a_file_is_a_space(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    space = spaces.find(str(path))
    assert (space.name, space.summary) == ("own", "Learning rate and epsilon of a small network.")
    samples = space.sample(0.1, seed=0)
    assert all(isinstance(sample.recipe, Recipe) for sample in samples)
    assert spaces.common_share(samples) == 1


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("x = 1", "must define `suggest"),
        ("x = ", "must be Python that runs, but .* raised SyntaxError"),
        ("def suggest(trial, epsilon): return 3", "must yield a Recipe, but yielded 3"),
        ("def suggest(trial, epsilon): return 1 / 0", "raised ZeroDivisionError: division by zero"),
        (
            "from robustsearch.recipe import *\ndef suggest(trial, epsilon): return Recipe(mix=Mix(clean=1))",
            r"must sum to 1, but sum to 1\.5",
        ),
        (
            "from robustsearch.recipe import *\ndef suggest(trial, epsilon): return Recipe(lwta=LWTA(units=3))",
            r"`units` must divide the channels.*but got 3",
        ),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, rule: str) -> None:
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(SpaceError, match=rule):
        spaces.find(str(path)).sample(0.1, seed=0)


def test_an_unknown_space_lists_the_known_ones() -> None:
    with pytest.raises(SpaceError, match=r"one of joint, lwta, mix, pni, table1 or a \.py file, but got 'lwtb'"):
        spaces.find("lwtb")
    with pytest.raises(SpaceError, match="must be a file that is there"):
        spaces.find("nowhere.py")
