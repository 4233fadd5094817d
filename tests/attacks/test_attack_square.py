"""Square: its proposals one by one, its budget, random models, and closed forms on a linear model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attack_cases import seeded
from pyautoattack.square import SquareAttack
from scipy.stats import binomtest, chisquare
from torch import Tensor

from robustsearch.attacks.objectives import margin
from robustsearch.attacks.square import square
from robustsearch.recipe import Norm

NORMS: tuple[Norm, ...] = ("linf", "l2")


class EnoughError(Exception):
    """No further batch is wanted."""


class Recorder:
    """The model, with every batch that it was asked for; at most so many."""

    def __init__(self, model: Callable[[Tensor], Tensor], most: int | None = None) -> None:
        self._model, self._most = model, most
        self.batches: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        if len(self.batches) == self._most:
            raise EnoughError
        self.batches.append(images.clone())
        return self._model(images)


def constant(images: Tensor) -> Tensor:
    """No proposal is better than the first."""
    return torch.zeros(len(images), 3, dtype=images.dtype)


def grey(n: int, channels: int = 1, size: int = 16) -> Tensor:
    return torch.full((n, channels, size, size), 0.5, dtype=torch.float64)


def proposals(images: Tensor, queries: int, most: int | None = None, **options: Any) -> Tensor:
    """Candidates `[queries, N, C, H, W]` on a constant model, the first `most`: each is a change of the first."""
    model = Recorder(constant, most)
    labels = torch.zeros(len(images), dtype=torch.int64)
    with suppress(EnoughError):
        square(model, images, labels, queries=queries, generator=seeded(), **options)
    return torch.stack(model.batches)


# l_inf


def test_the_first_l_inf_proposal_has_vertical_stripes() -> None:
    """Each stripe of each channel with its own fair sign: binomial test, level 0.001."""
    stripes = (proposals(grey(50, 3), 1, epsilon=0.1)[0] - 0.5) / 0.1
    torch.testing.assert_close(stripes, stripes[:, :, :1].expand_as(stripes))
    signs = stripes[:, :, 0].round()
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs), rtol=0, atol=0)
    assert binomtest(int((signs > 0).sum()), signs.numel()).pvalue > 1e-3
    assert (signs[:, 0] != signs[:, 1]).any()


def test_each_l_inf_proposal_repaints_one_square_at_epsilon() -> None:
    """Sides by the schedule of the published code; in a grey image every pixel is at +epsilon or -epsilon."""
    queries, size = 400, 16
    peer = SquareAttack(constant, eps=0.1, n_queries=queries, p_init=0.8)
    seen = proposals(grey(3, 3, size), queries, epsilon=0.1)
    torch.testing.assert_close((seen - 0.5).abs(), torch.full_like(seen, 0.1))
    sides = set()
    for query in range(1, queries):
        side = max(round((peer.p_selection(query) * size**2) ** 0.5), 1)
        sides.add(side)
        changed = seen[query] != seen[0]
        assert changed.flatten(1).any(1).all(), "no query is spent on an image without a change"
        for image, before, mask in zip(seen[query], seen[0], changed, strict=True):
            rows, columns = mask.any(0).any(1).nonzero().flatten(), mask.any(0).any(0).nonzero().flatten()
            # Columns on the sides may have had the new colour before, but a changed column is changed from top to end.
            assert rows[-1] - rows[0] + 1 == side
            assert columns[-1] - columns[0] + 1 <= side
            inside = image[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            for channel in range(3):
                if mask[channel].any():
                    assert len(inside[channel].unique()) == 1
            assert (image != before).any()
    assert len(sides) > 5


def test_squares_are_uniform_over_all_places_within_the_image() -> None:
    """The last row and column included. Chi-square of 64 places of single pixels, level 0.001."""
    seen = proposals(grey(40, size=8), 300, epsilon=0.1)
    single = (seen[250:] != seen[0]).flatten(2)
    assert (single.sum(2) == 1).all()
    counts = single.sum((0, 1))
    assert chisquare(counts.numpy()).pvalue > 1e-3


def test_pixels_at_the_ends_of_the_range_only_move_inwards() -> None:
    images = torch.tensor([0.0, 1.0], dtype=torch.float64).repeat(32).view(1, 1, 8, 8)
    seen = proposals(images, 50, epsilon=0.2)
    assert set(seen.flatten().mul(10).round().int().tolist()) == {0, 2, 8, 10}


# l_2


def test_all_l2_proposals_have_length_epsilon_where_nothing_is_clipped() -> None:
    seen = proposals(grey(6, 3), 200, epsilon=0.4, norm="l2")
    lengths = (seen - 0.5).flatten(2).norm(dim=2)
    torch.testing.assert_close(lengths, torch.full_like(lengths, 0.4))


def test_the_first_l2_proposal_has_five_by_five_bumps_of_the_published_shape() -> None:
    """On 15x15 pixels: 25 tiles of 3x3, all of one length and one shape, with fair signs (binomial, level 0.001)."""
    offset = proposals(grey(40, 3, 15), 1, epsilon=0.4, norm="l2")[0] - 0.5
    tiles = offset.unfold(2, 3, 3).unfold(3, 3, 3).reshape(-1, 3, 3)
    bump = published_bump(3)
    signs = (tiles * bump).sum((1, 2)).sign()
    torch.testing.assert_close(tiles, signs[:, None, None] * bump * 0.4 / 75**0.5)
    assert binomtest(int((signs > 0).sum()), len(signs)).pvalue > 1e-3


def published_bump(side: int) -> Tensor:
    """As the published code makes it, upright: it turns one half of them by the global generator."""
    peer = SquareAttack(constant, eps=0.4, norm="L2")
    peer.device = torch.device("cpu")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        bump = peer.eta(side).double()
    return bump if (bump[0] > 0).all() else bump.T


def test_each_l2_proposal_is_that_of_the_published_formula() -> None:
    """Algorithm 3 in loops: for some two squares, signs and turn, it must give the proposal that was made.

    Pixels at zero are clipped, which leaves some of epsilon unused: the channels share it.
    """
    dark = torch.rand((2, 3, 5, 5), generator=seeded(1)) < 0.3
    images = torch.where(dark, 0.0, 0.5).double()
    seen = proposals(images, 60, epsilon=0.4, norm="l2").numpy()
    for n in range(2):
        image, best = images[n].numpy(), seen[0, n]
        assert ((best - image) ** 2).sum() < 0.9 * 0.4**2
        candidates = [(image + move).clip(0, 1) for move in moves(best - image, epsilon=0.4)]
        for proposal in seen[40:, n]:  # squares are at their smallest, 3
            # Each channel has a sign of its own.
            errors = np.abs(np.stack(candidates) - proposal).max((-2, -1)).reshape(-1, 2, 3).min(1).max(1)
            assert errors.min() < 1e-6


def moves(offset: np.ndarray, epsilon: float, side: int = 3) -> Iterator[np.ndarray]:
    """All that algorithm 3 can make of an offset `[C, 5, 5]`; each pair has both signs."""
    places = [(r, s) for r in range(5 - side + 1) for s in range(5 - side + 1)]
    upright = published_bump(side).numpy()
    unused = epsilon**2 - (offset**2).sum()
    for (r1, s1), (r2, s2), bump in itertools.product(places, places, (upright, upright.T)):
        into, out_of = np.zeros((5, 5), bool), np.zeros((5, 5), bool)
        into[r1 : r1 + side, s1 : s1 + side] = True
        out_of[r2 : r2 + side, s2 : s2 + side] = True
        for sign in (1, -1):
            result = np.where(out_of, 0, offset)
            for channel, before in zip(result, offset, strict=True):
                available = np.sqrt((before[into | out_of] ** 2).sum() + unused / len(offset))
                new = sign * bump + before[into].reshape(side, side) / np.sqrt((before[into] ** 2).sum())
                channel[into] = (new / np.sqrt((new**2).sum()) * available).ravel()
            yield result


@pytest.mark.parametrize("side", [3, 4, 5, 8, 13])
def test_l2_squares_take_the_published_shape_at_every_size(side: int) -> None:
    """An image as large as the square has one place for it; the second square empties nothing more."""
    seen = proposals(grey(20, 1, side), 1000, 2, epsilon=0.4, norm="l2", share=1.0)  # early: the largest square
    offset = (seen - 0.5)[:, :, 0].numpy()
    upright = published_bump(side).numpy()
    turns = set()
    for before, after in zip(*offset, strict=True):
        errors = []
        for bump in (upright, -upright, upright.T, -upright.T):
            new = bump + before / np.sqrt((before**2).sum())
            errors.append(np.abs(0.4 * new / np.sqrt((new**2).sum()) - after).max())
        assert min(errors) < 1e-6
        turns.add(int(np.argmin(errors)))
    assert turns == {0, 1, 2, 3}, "signs and turns must all come"


# Budget and objective


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("expand", [True, False])
def test_queries_are_counted_and_each_has_so_many_draws(norm: Norm, expand: bool) -> None:
    model = Recorder(constant)
    options: dict[str, Any] = {"epsilon": 0.1, "norm": norm, "draws": 3, "expand": expand}
    square(model, grey(4), torch.zeros(4, dtype=torch.int64), queries=7, generator=seeded(), **options)
    assert [len(batch) for batch in model.batches] == ([12] * 7 if expand else [4] * 21)


@pytest.mark.parametrize("norm", NORMS)
def test_it_returns_the_candidate_with_the_highest_margin(norm: Norm, digits: Any) -> None:
    images, labels = digits.images[:30], digits.labels[:30]
    model = Recorder(digits.model)
    options: dict[str, Any] = {"epsilon": 0.1 if norm == "linf" else 0.8, "norm": norm}
    ours = square(model, images, labels, queries=40, generator=seeded(), **options)
    margins = torch.stack([margin(digits.model(batch), labels) for batch in model.batches])
    assert torch.equal(ours, torch.stack(model.batches)[margins.argmax(0), torch.arange(30)])
    assert (margins.argmax(0) > 20).any(), "some image must have improved late"


@pytest.mark.parametrize("norm", NORMS)
def test_a_random_model_is_attacked_through_the_mean_margin_of_its_draws(norm: Norm, digits: Any) -> None:
    """Noise of +-64 and +-32 on the label's logit, none in the mean of four draws; all sums are exact in binary."""
    images, labels = digits.images[:10].double(), digits.labels[:10]
    noise = torch.tensor([64.0, -64.0, 32.0, -32.0], dtype=torch.float64).repeat_interleave(10)

    def quiet(x: Tensor) -> Tensor:
        return (digits.model(x.float()).double() * 1024).round() / 1024

    def noisy(x: Tensor) -> Tensor:
        return quiet(x) + noise[:, None] * F.one_hot(labels.repeat(4), 10)

    options: dict[str, Any] = {"epsilon": 0.1, "norm": norm, "queries": 60}
    expected = square(quiet, images, labels, generator=seeded(), **options)
    assert torch.equal(square(noisy, images, labels, draws=4, generator=seeded(), **options), expected)


@pytest.mark.parametrize("norm", NORMS)
def test_it_needs_no_gradient(norm: Norm, digits: Any) -> None:
    """A model of NumPy arrays and of quantised pixels, of which no gradient attack could change a pixel."""
    images, labels = digits.images[:30], digits.labels[:30]

    def model(x: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        levels = torch.from_numpy(np.round(x.numpy() * 32) / 32)
        return digits.model(levels)

    adversarial = square(
        model, images, labels, epsilon=0.15 if norm == "linf" else 1.0, norm=norm, queries=150, generator=seeded()
    )
    with torch.no_grad():
        assert (model(images).argmax(1) == labels).double().mean() > 0.9
        assert (model(adversarial).argmax(1) == labels).double().mean() < 0.6


# Closed forms


def linear(images: Tensor) -> Tensor:
    """Two logits, 0 and w.x + b."""
    pixels = images.flatten(1).double()
    logit = pixels @ torch.linspace(-1, 1.2, pixels.shape[1], dtype=torch.float64) - 0.3
    return torch.stack([torch.zeros_like(logit), logit], 1)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 9, 11)])
def test_on_a_linear_model_it_finds_the_farthest_corner(shape: tuple[int, int, int]) -> None:
    """With the whole image in reach, its edges too, each pixel of each channel finds its sign."""
    images = 0.3 + 0.4 * torch.rand((2, *shape), generator=seeded(), dtype=torch.float64)
    ours = square(linear, images, torch.tensor([0, 1]), epsilon=0.2, queries=4000, generator=seeded())
    w = torch.linspace(-1, 1.2, images[0].numel(), dtype=torch.float64).view(shape)
    torch.testing.assert_close(ours, images + 0.2 * torch.stack([w.sign(), -w.sign()]))


@pytest.mark.slow
def test_on_a_linear_model_it_climbs_the_l2_ball_as_far_as_the_published_code() -> None:
    """The highest possible margin is epsilon |w|. Mean share of it over 8 images and 2 seeds; the standard error of
    the difference is below 0.02.
    """
    images = 0.3 + 0.4 * torch.rand((8, 3, 16, 16), generator=seeded(), dtype=torch.float64)
    labels = torch.zeros(8, dtype=torch.int64)
    w = torch.linspace(-1, 1.2, images[0].numel(), dtype=torch.float64)

    def never_fooled(x: Tensor) -> Tensor:
        logit = x.flatten(1) @ w
        return torch.stack([torch.full_like(logit, 1000.0), logit], 1)

    def share(adversarial: Tensor) -> Tensor:
        return (adversarial - images).flatten(1) @ w / (0.3 * w.norm())

    ours, theirs = [], []
    for seed in range(2):
        options: dict[str, Any] = {"epsilon": 0.3, "norm": "l2", "queries": 300}
        ours.append(share(square(never_fooled, images, labels, generator=seeded(seed), **options)))
        peer = SquareAttack(never_fooled, norm="L2", eps=0.3, n_queries=299)
        peer.init_hyperparam(images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            theirs.append(share(peer.attack_single_run(images, labels)[1]))
    assert (torch.stack(ours) <= 1 + 1e-9).all()
    assert torch.stack(ours).mean() >= torch.stack(theirs).mean() - 0.02


def test_a_generator_decides_the_squares() -> None:
    labels = torch.zeros(2, dtype=torch.int64)
    results = [square(linear, grey(2), labels, epsilon=0.1, queries=20, generator=seeded(n)) for n in (0, 0, 1)]
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
