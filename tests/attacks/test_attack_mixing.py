"""The training mix: frequencies, the recipe's numbers, and a resume that changes nothing."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from robustsearch.attacks.carlini_wagner import cw
from robustsearch.attacks.mixing import Mixer
from robustsearch.attacks.named import pgd
from robustsearch.recipe import MIX_NAMES, Attack, Mix, MixName, Norm

ATTACK = Attack(epsilon=0.2, step=0.05, steps=4, cw_c=3.0, cw_kappa=0.5)
IMAGES = 0.3 + 0.4 * torch.rand((5, 1, 2, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABELS = torch.tensor([0, 1, 0, 1, 0])
W = torch.tensor([0.5, -1.0, 2.0, 1.0, -0.2, 0.7], dtype=torch.float64)


def linear(images: Tensor) -> Tensor:
    logit = images.flatten(1) @ W - 1
    return torch.stack([torch.zeros_like(logit), logit], 1)


def test_names_come_with_the_probabilities_of_the_mix() -> None:
    """Chi-square on 4000 draws of the report's mix, level 0.001."""
    mixer = Mixer(Mix(), ATTACK, seed=0)
    counts = Counter(mixer.draw() for _ in range(4000))
    expected = {"clean": 0.5, "noise": 0.125, "fgsm": 0.125, "pgd": 0.125, "cw": 0.125}
    assert counts.keys() <= expected.keys() <= set(MIX_NAMES)
    assert chisquare([counts[name] for name in expected], [4000 * p for p in expected.values()]).pvalue > 1e-3


def test_a_name_that_never_comes_moves_no_sequence() -> None:
    """The report's five names alone, drawn as torch draws from their five probabilities."""
    mixer = Mixer(Mix(), ATTACK, seed=0)
    generator = torch.Generator()
    generator.set_state(mixer.state()["names"])
    names = ("clean", "noise", "fgsm", "pgd", "cw")
    five = torch.tensor([0.5, 0.125, 0.125, 0.125, 0.125], dtype=torch.float64)
    expected = [names[int(torch.multinomial(five, 1, generator=generator))] for _ in range(50)]
    assert [mixer.draw() for _ in range(50)] == expected


def test_an_attack_without_probability_never_comes() -> None:
    mixer = Mixer(Mix(clean=0, noise=0, fgsm=0.999, pgd=0.001, cw=0), ATTACK, seed=0)
    assert {mixer.draw() for _ in range(8000)} == {"fgsm", "pgd"}


def test_seeds_give_different_sequences_and_one_seed_gives_one() -> None:
    sequences = []
    for seed in (1, 1, 2):
        mixer = Mixer(Mix(), ATTACK, seed)
        sequences.append([mixer.draw() for _ in range(50)])
    assert sequences[0] == sequences[1] != sequences[2]


def test_what_is_perturbed_does_not_change_which_attacks_come() -> None:
    plain, busy = Mixer(Mix(), ATTACK, seed=0), Mixer(Mix(), ATTACK, seed=0)
    for n in range(30):
        busy.perturb("noise", linear, IMAGES[: n % 5], LABELS[: n % 5])
        assert plain.draw() == busy.draw()


def test_clean_images_are_unchanged() -> None:
    assert Mixer(Mix(), ATTACK, seed=0).perturb("clean", linear, IMAGES, LABELS) is IMAGES


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_attacks_have_the_norm_and_the_strength_asked_for(norm: Norm, strength: float) -> None:
    attack = ATTACK.model_copy(update={"norm": norm})
    epsilon = strength * 0.2
    away = (1 - 2 * LABELS).view(5, 1, 1, 1)
    along = {"linf": W.sign(), "l2": W / W.norm()}[norm].view(1, 1, 2, 3)

    def offsets(name: MixName) -> Tensor:
        mixer = Mixer(Mix(), attack, seed=0)
        return mixer.perturb(name, linear, IMAGES, LABELS, strength=strength) - IMAGES

    def lengths(name: MixName) -> Tensor:
        return torch.linalg.vector_norm(offsets(name).flatten(1), ord=torch.inf if norm == "linf" else 2, dim=1)

    torch.testing.assert_close(offsets("fgsm"), epsilon * away * along)
    assert (lengths("noise") <= epsilon + 1e-12).all()
    assert (lengths("noise") > 0.3 * epsilon).any()
    assert (lengths("pgd") <= epsilon + 1e-12).all()
    assert (lengths("pgd") > 0.8 * epsilon).all()
    # CW has no ball: it is the same at any strength.
    full = cw(linear, IMAGES, LABELS, c=3.0, kappa=0.5, steps=4, lr=attack.cw_lr, keep="last")
    torch.testing.assert_close(offsets("cw"), full - IMAGES)
    assert full.ne(IMAGES).any()


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_pgd_starts_at_random_and_takes_the_steps_of_the_recipe(strength: float) -> None:
    mixer = Mixer(Mix(), ATTACK, seed=3)
    generator = torch.Generator()
    generator.set_state(mixer.state()["starts"])
    numbers = {"epsilon": 0.2 * strength, "step": 0.05 * strength}
    expected = pgd(linear, IMAGES, LABELS, steps=4, generator=generator, **numbers)
    first = mixer.perturb("pgd", linear, IMAGES, LABELS, strength=strength)
    second = mixer.perturb("pgd", linear, IMAGES, LABELS, strength=strength)
    assert torch.equal(first, expected)
    assert not torch.equal(second, expected), "each batch has its own start"


def quadratic(images: Tensor) -> Tensor:
    """Two logits that bend, so that a gradient depends on where it is taken."""
    logit = ((images.flatten(1) - 0.5) @ W) - 3 * ((images.flatten(1) - 0.5) ** 2 @ W)
    return torch.stack([torch.zeros_like(logit), logit], 1)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_fgsm_rs_is_the_published_step(strength: float) -> None:
    """Algorithm 3 of Wong et al. 2020, image by image and pixel by pixel, the gradient by central differences."""
    mixer = Mixer(Mix(), ATTACK, seed=3)
    generator = torch.Generator()
    generator.set_state(mixer.state()["starts"])
    epsilon = 0.2 * strength
    found = mixer.perturb("fgsm_rs", quadratic, IMAGES, LABELS, strength=strength)
    uniform = torch.rand(IMAGES.shape, generator=generator, dtype=torch.float64)

    def loss(image: Tensor, label: int) -> float:
        return -quadratic(image[None]).log_softmax(1)[0, label].item()

    for index, (image, label) in enumerate(zip(IMAGES, LABELS.tolist(), strict=True)):
        start = (image + epsilon * (2 * uniform[index] - 1)).clamp(0, 1)
        for place in range(6):
            shift = torch.zeros(6, dtype=torch.float64)
            shift[place] = 1e-5
            rise = loss(start + shift.view(1, 2, 3), label) - loss(start - shift.view(1, 2, 3), label)
            assert abs(rise) > 1e-12
            before = image.flatten()[place].item()
            moved = start.flatten()[place].item() + 1.25 * epsilon * (1 if rise > 0 else -1)
            expected = min(max(moved, before - epsilon, 0), before + epsilon, 1)
            assert found[index].flatten()[place].item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", ["fgsm", "fgsm_rs", "pgd", "cw"])
@pytest.mark.parametrize("expand", [True, False])
def test_draws_reach_the_model(name: MixName, expand: bool) -> None:
    sizes = []

    def model(images: Tensor) -> Tensor:
        sizes.append(len(images))
        return linear(images)

    Mixer(Mix(), ATTACK, seed=0).perturb(name, model, IMAGES, LABELS, draws=3, expand=expand)
    steps = 1 if name in ("fgsm", "fgsm_rs") else 4
    assert sizes == ([15] * steps if expand else [5] * 3 * steps)


def test_a_loaded_state_goes_on_bit_for_bit() -> None:
    mixer = Mixer(Mix(), ATTACK, seed=0)

    def go_on(mixer: Mixer) -> list[Any]:
        seen: list[Any] = []
        for _ in range(20):
            seen += [mixer.draw(), mixer.perturb("noise", linear, IMAGES, LABELS).tolist()]
        return seen

    go_on(mixer)
    state = mixer.state()
    expected = go_on(mixer)
    other = Mixer(Mix(), ATTACK, seed=99)
    assert go_on(other) != expected
    other.load_state(state)
    assert go_on(other) == expected


def test_strength_zero_leaves_the_images() -> None:
    mixer = Mixer(Mix(), ATTACK, seed=0)
    for name in ("noise", "fgsm", "fgsm_rs", "pgd"):
        torch.testing.assert_close(mixer.perturb(name, linear, IMAGES, LABELS, strength=0.0), IMAGES)
