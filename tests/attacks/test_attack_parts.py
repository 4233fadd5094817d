"""Starts, steps, projections and the loop: laws, duality, and what each is given."""

from __future__ import annotations

import warnings

import pytest
import torch
from attack_cases import NORMS, lengths, seeded
from scipy.stats import kstest
from torch import Tensor

from robustsearch.attacks.loop import Best, run
from robustsearch.attacks.projections import clip, onto_ball
from robustsearch.attacks.starts import at_image, uniform_in_ball
from robustsearch.attacks.steps import steepest_ascent, unit
from robustsearch.recipe import Norm

with warnings.catch_warnings():
    # foolbox 3.3.4 (dormant) imports scipy.ndimage.filters, which scipy deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)

# The parts


@pytest.mark.parametrize("norm", NORMS)
def test_starts_are_uniform_in_the_ball(norm: Norm) -> None:
    """The share of a d-ball within radius r is r^d. Kolmogorov-Smirnov tests, level 0.001 each."""
    images = torch.full((4000, 1, 1, 3), 0.5, dtype=torch.float64)
    offsets = uniform_in_ball(norm, epsilon=0.25, generator=seeded())(images) - images
    assert kstest((lengths(offsets, norm) / 0.25) ** 3, "uniform").pvalue > 1e-3
    if norm == "linf":
        for pixel in offsets.flatten(1).T:
            assert kstest(pixel, "uniform", args=(-0.25, 0.5)).pvalue > 1e-3
    else:  # Archimedes: each coordinate of a uniform direction in three dimensions is uniform
        for pixel in unit(offsets).flatten(1).T:
            assert kstest(pixel, "uniform", args=(-1, 2)).pvalue > 1e-3


def test_the_start_at_the_image_is_the_image() -> None:
    images = torch.rand((2, 1, 3, 3), generator=seeded())
    assert torch.equal(at_image(images), images)


@pytest.mark.parametrize("norm", NORMS)
def test_no_step_of_its_length_climbs_further_than_the_steepest(norm: Norm) -> None:
    """By duality the climb is the step times the gradient's dual norm: l_1 for l_inf, l_2 for l_2."""
    gradient = torch.randn((6, 2, 3, 3), generator=seeded(), dtype=torch.float64)
    origin = torch.zeros_like(gradient)
    move = steepest_ascent(norm, step=0.3)(origin, gradient, origin.new_zeros(6))
    dual = gradient.flatten(1).norm(p=1 if norm == "linf" else 2, dim=1)
    torch.testing.assert_close((move * gradient).sum((1, 2, 3)), 0.3 * dual)
    torch.testing.assert_close(lengths(move, norm), torch.full((6,), 0.3, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1.0, 1e30])
def test_unit_vectors_have_length_one_whatever_the_scale(scale: float) -> None:
    vectors = torch.randn((5, 1, 4, 4), generator=seeded())
    torch.testing.assert_close(unit(vectors * scale), unit(vectors), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(lengths(unit(vectors * scale), "l2"), torch.ones(5, dtype=torch.float64))


def test_zero_has_no_direction() -> None:
    assert not unit(torch.zeros(2, 1, 3, 3)).any()


@pytest.mark.parametrize("norm", NORMS)
def test_no_point_of_the_ball_is_nearer_than_the_projection(norm: Norm) -> None:
    images = torch.full((50, 1, 1, 4), 0.5, dtype=torch.float64)
    outside = images + 0.4 * torch.randn(images.shape, generator=seeded(1), dtype=torch.float64)
    projected = onto_ball(norm, epsilon=0.2)(outside, images)
    assert (lengths(projected - images, norm) <= 0.2 + 1e-12).all()
    distance = lengths(projected - outside, "l2")
    for seed in range(200):
        other = uniform_in_ball(norm, epsilon=0.2, generator=seeded(seed))(images)
        assert (lengths(other - outside, "l2") >= distance - 1e-12).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_projection_leaves_what_is_inside(norm: Norm) -> None:
    images = torch.full((20, 1, 2, 2), 0.5, dtype=torch.float64)
    inside = uniform_in_ball(norm, epsilon=0.2, generator=seeded())(images)
    assert torch.equal(onto_ball(norm, epsilon=0.2)(inside, images), inside)
    assert torch.equal(onto_ball(norm, epsilon=0.0)(images, images), images)


def test_clip_is_the_nearest_image() -> None:
    pixels = torch.tensor([-0.5, 0.0, 0.3, 1.0, 1.5]).view(1, 1, 1, 5)
    assert clip(pixels, pixels).flatten().tolist() == pytest.approx([0, 0, 0.3, 1, 1])


# The loop


def test_the_observer_sees_every_iterate_with_its_own_value() -> None:
    """Objective x itself, steps of +0.1 from 0.2: iterates 0.2, 0.3, 0.4, 0.5."""
    seen: list[tuple[float, float]] = []
    last = run(
        lambda x: x.flatten(1),
        torch.full((1, 1, 1, 1), 0.2, dtype=torch.float64),
        torch.tensor([0]),
        start=at_image,
        step=steepest_ascent("linf", step=0.1),
        project=clip,
        objective=lambda logits, labels: logits[:, 0],
        steps=3,
        observe=lambda iterate, values: seen.append((float(iterate), float(values))),
    )
    assert [x for x, _ in seen] == pytest.approx([0.2, 0.3, 0.4, 0.5])
    assert [value for _, value in seen] == [x for x, _ in seen]
    assert float(last) == seen[-1][0]


def test_a_step_sees_a_finite_gradient() -> None:
    seen: list[Tensor] = []

    def step(iterate: Tensor, gradient: Tensor, values: Tensor) -> Tensor:
        seen.append(gradient)
        return iterate

    slopes = torch.tensor([torch.nan, torch.inf, -torch.inf, 2.0])
    images, labels = torch.full((1, 1, 1, 4), 0.5), torch.tensor([0])
    run(
        lambda x: x.flatten(1) * slopes,
        images,
        labels,
        start=at_image,
        step=step,
        project=clip,
        objective=lambda logits, labels: logits.sum(1),
        steps=1,
    )
    assert seen[0].flatten().tolist() == [0, 0, 0, 2]


def test_best_keeps_the_highest_score_of_each_image_and_never_nan() -> None:
    best = Best(torch.zeros(3, 1, 1, 1))
    for pixel, score in (
        (0.1, [1.0, 3.0, torch.nan]),
        (0.2, [2.0, 2.0, -torch.inf]),
        (0.3, [2.0, 1.0, torch.nan]),
    ):
        best.offer(torch.full((3, 1, 1, 1), pixel), torch.tensor(score))
    assert best.images.flatten().tolist() == pytest.approx([0.2, 0.1, 0.0])
    assert best.score.tolist() == [2.0, 3.0, -torch.inf]
