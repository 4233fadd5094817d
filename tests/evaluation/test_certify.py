"""The certified radius against closed forms, scipy, and an attack; each statistical test at level 1e-4, fixed seeds."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from robustsearch.attacks.named import pgd
from robustsearch.data import Dataset, to_tensor
from robustsearch.errors import UserError
from robustsearch.evaluation.certify import (
    Certificate,
    certified_columns,
    certified_radius,
    certify,
    count_votes,
    lower_bound,
)
from robustsearch.models.build import Network, Normalise, build_network
from robustsearch.models.lwta import LWTA
from robustsearch.models.pni import PNILinear
from robustsearch.models.smoothing import GaussianNoise
from robustsearch.models.stochastic import Noise, Stochastic
from robustsearch.recipe import Recipe

LEVEL = 1e-4
SIGMA = 0.3


class TwoClasses(Stochastic):
    """Class 0 where weight . z + spread * eta > 0, eta ~ N(0, 1) for each image: p_0(x) has a closed form."""

    def __init__(self, weight: Tensor, spread: float, noise: Noise) -> None:
        super().__init__()
        self.weight, self.spread, self.noise = weight, spread, noise

    @property
    def random(self) -> bool:
        return self.spread > 0

    def forward(self, z: Tensor) -> Tensor:
        score = z.flatten(1) @ self.weight
        return torch.stack((score + self.spread * self.noise.normal(score.shape, score), torch.zeros_like(score)), 1)


def smoothed(body: nn.Module, noise: Noise, sigma: float = SIGMA, at_inference: bool = True) -> Network:
    """A network of 1x2x2 images with this body, without normalisation."""
    return Network(GaussianNoise(sigma, at_inference, noise), Normalise([0.0], [1.0]), body, noise).eval()


def linear(spread: float) -> tuple[Network, Tensor]:
    """The two-class network and its weight."""
    noise, weight = Noise(0), torch.tensor([1.0, -2.0, 0.5, 1.0])
    return smoothed(TwoClasses(weight, spread, noise), noise), weight


def images(count: int) -> Tensor:
    return torch.rand(count, 1, 2, 2, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("n", [1, 7, 100, 10_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.4])
def test_the_bound_is_clopper_pearson(n: int, alpha: float) -> None:
    """Against scipy, which finds the root of a binomial tail; and alpha^(1/n) where all votes agree."""
    for votes in {0, 1, n // 2, n - 1, n}:
        interval = stats.binomtest(votes, n, alternative="greater").proportion_ci(1 - alpha, method="exact")
        assert lower_bound(votes, n, alpha) == pytest.approx(interval.low, abs=1e-9)
    assert lower_bound(n, n, alpha) == pytest.approx(alpha ** (1 / n))


def test_the_radius_is_sigma_times_the_quantile_of_the_bound() -> None:
    for votes in (700, 990, 1000):
        low = stats.binomtest(votes, 1000, alternative="greater").proportion_ci(0.999, method="exact").low
        expected = 0.25 * stats.norm.ppf(low)
        assert certified_radius(votes, 1000, sigma=0.25, alpha=0.001) == pytest.approx(expected, rel=1e-6)
    assert certified_radius(500, 1000, sigma=0.25, alpha=0.001) == 0
    assert certified_radius(1, 1, sigma=0.25, alpha=0.001) == 0


@pytest.mark.parametrize("spread", [0.0, 0.6])
def test_a_linear_classifier_is_certified_to_its_exact_radius_and_beyond_it_as_often_as_alpha_says(
    spread: float,
) -> None:
    """Its decision lies |w x| / ||w|| away; with noise of its own the theorem gives less, in closed form too."""
    network, weight = linear(spread)
    pictures, alpha = images(400), 0.05
    found = certify(network, pictures, n0=50, n=500, alpha=alpha)
    margin = (pictures.flatten(1) @ weight).double()
    exact = margin.abs() / weight.norm()
    limit = SIGMA * margin.abs() / math.hypot(SIGMA * float(weight.norm()), spread)
    assert (limit <= exact + 1e-6).all()
    wrong = found.radius > limit
    wrong |= (found.label >= 0) & (found.label != (margin < 0).long())
    assert stats.binomtest(int(wrong.sum()), 400, alpha, alternative="greater").pvalue > LEVEL
    assert wrong.any(), "a bound at 95% that is never wrong is no 95% bound"
    far = (limit > 0.3 * SIGMA) & (limit < 1.5 * SIGMA)
    assert far.sum() > 50
    assert (found.radius[far] / limit[far]).median() > 0.75


def test_a_coin_abstains_as_often_as_alpha_says() -> None:
    """Votes that chose the class may not count for it: then it would be certified twice as often."""
    noise = Noise(1)
    network = smoothed(TwoClasses(torch.zeros(4), 1.0, noise), noise)
    found = certify(network, images(1000), n0=200, n=200, alpha=0.05)
    assert ((found.label < 0) == (found.radius == 0)).all()
    assert stats.binomtest(int((found.label >= 0).sum()), 1000, 0.05, alternative="greater").pvalue > LEVEL


def noisy_bodies(noise: Noise) -> dict[str, nn.Module]:
    pni: dict[str, Any] = {"granularity": "layer", "alpha": 1.0, "noise": noise}
    gates = LWTA(4, 2, temperature=0.67, gate="sample", gate_noise=None, noise=noise, ibp=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {
            "weights": PNILinear(4, 3, where="weights", **pni),
            "inputs": PNILinear(4, 3, where="inputs", **pni),
            "activations": PNILinear(4, 3, where="activations", **pni),
            "gates": nn.Sequential(gates, nn.Linear(4, 3)),
        }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["weights", "inputs", "activations", "gates"])
def test_votes_of_an_image_are_independent(kind: str) -> None:
    """Counts of 40 votes are binomial: draws that votes share would spread them (test of dispersion)."""
    noise = Noise(3)
    network = smoothed(nn.Sequential(nn.Flatten(), noisy_bodies(noise)[kind]), noise)
    picture = images(1)
    counts = torch.stack([count_votes(network, picture, 40)[0] for _ in range(300)]).double()
    assert (counts.sum(1) == 40).all()
    top = counts[:, counts.sum(0).argmax()].numpy()
    share = top.mean() / 40
    assert 0.3 < share < 0.97
    dispersion = ((top - top.mean()) ** 2).sum() / (40 * share * (1 - share))
    assert LEVEL / 2 < stats.chi2(299).cdf(dispersion) < 1 - LEVEL / 2


@pytest.mark.parametrize("kind", ["weights", "inputs", "gates"])
def test_images_share_a_pass_unless_their_noise_depends_on_each_other(kind: str) -> None:
    noise, sizes = Noise(3), []
    body = noisy_bodies(noise)[kind]
    body.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    certify(smoothed(nn.Sequential(nn.Flatten(), body), noise), images(5), n0=3, n=20)
    if kind == "gates":
        assert sizes == [15, 100]
    else:
        assert sizes == ([5] * 23 if kind == "weights" else [1] * 115)


@pytest.mark.slow
def test_no_attack_flips_an_image_within_its_radius(digits: Dataset) -> None:
    """PGD with 64 draws, l_2, at 0.99 of each radius; at 3 times the radius it flips most."""
    x, y = to_tensor(digits.train.images, torch.device("cpu")), torch.from_numpy(digits.train.labels)
    noise = Noise(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    network = smoothed(body, noise)
    optimiser = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(150):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimiser.step()
    found = certify(network, x[:40], n=1000)
    assert (found.label >= 0).sum() > 30
    kept = beyond = 0
    for picture, label, radius in zip(x, found.label, found.radius.tolist(), strict=False):
        if label < 0:
            continue
        for factor in (0.99, 3.0):
            epsilon = factor * radius
            attacked = pgd(
                network,
                picture[None],
                label[None],
                epsilon=epsilon,
                norm="l2",
                step=epsilon / 4,
                steps=20,
                draws=64,
                generator=torch.Generator().manual_seed(0),
            )
            assert (attacked - picture).norm() <= epsilon * (1 + 1e-4)
            votes = int(count_votes(network, attacked, 2000)[0, label])
            if factor < 1:  # p_A > 1/2: at least half of the votes, but for chance
                assert votes > 1000 - stats.norm.isf(LEVEL / 40) * math.sqrt(2000) / 2
                kept += 1
            else:
                beyond += votes < 1000
    assert kept == (found.label >= 0).sum()
    assert beyond > kept / 2, "an attack that flips nothing shows nothing"


def test_the_columns_count_right_and_certified_images_alone() -> None:
    """Four images: certified right at 0.5 and 0.1, certified wrong at 0.9, abstained."""
    certificate = Certificate(torch.tensor([3, 1, 2, -1]), torch.tensor([0.5, 0.1, 0.9, 0.0], dtype=torch.float64))
    columns = certified_columns(certificate, torch.tensor([3, 1, 0, 0]), epsilon_l2=0.2)
    assert columns["certified"] == 0.25
    assert columns["certified_low"] < 0.25 < columns["certified_high"]
    assert columns["certified_radius"] == pytest.approx(0.15)
    assert columns["certified_abstained"] == 0.25
    assert json.loads(str(columns["certified_radii"])) == [0.5, 0.1, 0, 0]


def test_progress_ends_at_1_and_the_seed_decides() -> None:
    network, _ = linear(0.6)
    shares: list[float] = []
    first = certify(network, images(700), n0=5, n=10, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(shares) > 10
    network.noise.seed(0)
    again = certify(network.train(), images(700), n0=5, n=10)
    assert torch.equal(first.radius, again.radius)
    assert torch.equal(first.label, again.label)
    assert network.training


def test_a_network_of_a_recipe(digits: Dataset) -> None:
    recipe = Recipe.of({"model": {"depth": 10}, "lwta": {}, "smoothing": {"sigma": 0.2}})
    settings: dict[str, Any] = {"shape": (1, 8, 8), "classes": 10, "mean": [0.3], "std": [0.4], "seed": 0}
    found = certify(build_network(recipe, **settings), torch.zeros(2, 1, 8, 8), n0=5, n=20)
    assert found.radius.shape == found.label.shape == (2,)
    for smoothing in (None, {"at_inference": False}):
        plain = build_network(recipe.replace(smoothing=smoothing), **settings)
        with pytest.raises(UserError, match="needs Gaussian input noise at inference"):
            certify(plain, torch.zeros(2, 1, 8, 8), n=20)


@pytest.mark.parametrize(
    ("wrong", "words"), [({"n0": 0}, "at least 1, but got 0"), ({"n": 0}, "and 0"), ({"alpha": 1.0}, "but got 1")]
)
def test_numbers_out_of_range(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        certify(linear(0.0)[0], images(1), **{"n": 10, **wrong})
