"""Distances to the boundary against the closed form of a linear network; slices against what they cut."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from robustsearch.evaluation.boundary import boundary, length, plane
from robustsearch.models.build import Network, Normalise
from robustsearch.models.smoothing import GaussianNoise
from robustsearch.models.stochastic import Noise

SHAPE = (1, 3, 3)


class Linear(nn.Module):
    """A body with the classifier's name."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(9, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        return logits


@pytest.fixture(scope="module")
def linear() -> tuple[Network, Tensor, Tensor]:
    """Two classes, told apart by w.x + b; ten grey images, of which the clip to [0, 1] keeps nothing away."""
    generator = torch.Generator().manual_seed(0)
    body = Linear()
    body.linear.weight.data = torch.randn(2, 9, generator=generator)
    body.linear.bias.data.zero_()
    w = body.linear.weight.data[0] - body.linear.weight.data[1]
    body.linear.bias.data[1] = 0.5 * float(w.sum())  # the boundary goes through mid-grey
    network = Network(nn.Identity(), Normalise([0.0], [1.0]), body, Noise(0)).eval()
    images = 0.5 + 0.1 * torch.randn(10, *SHAPE, generator=generator).clamp(-2, 2)
    return network, images, network(images).argmax(1).detach()


def margins(network: Network, images: Tensor) -> tuple[Tensor, Tensor]:
    """|w.x + b| of each image, and w."""
    w = network.body.linear.weight[0] - network.body.linear.weight[1]  # type: ignore[union-attr]
    logits = network(images)
    return (logits[:, 0] - logits[:, 1]).abs().detach().double(), w.detach().double()


def found(linear: tuple[Network, Tensor, Tensor], norm: str, labels: Tensor | None = None):  # type: ignore[no-untyped-def]
    network, images, own = linear
    return boundary(
        network,
        images,
        own if labels is None else labels,
        norm=norm,  # type: ignore[arg-type]
        radii=(0.05, 0.1, 0.2, 0.5),
        draws=1,
        predictions=1,
        gradient_draws=1,
        generator=torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_distances_of_a_linear_network_are_margins_over_the_dual_norm(
    linear: tuple[Network, Tensor, Tensor], norm: str, dual: int
) -> None:
    margin, w = margins(*linear[:2])
    expected = margin / w.norm(p=dual)
    result = found(linear, norm)
    reached = expected < 0.2
    assert reached.sum() >= 5
    # Bisection ends beyond the boundary, by at most 1/256 of the radius at which the attack got there.
    assert (result.distances[reached] >= expected[reached] - 1e-6).all()
    assert (result.distances[reached] <= 1.02 * expected[reached] + 0.2 / 256).all()
    for place, radius in enumerate(result.radii):
        if (expected - radius).abs().min() > 0.002:
            assert result.accuracy["fgsm"][place] == pytest.approx(float((expected > radius).double().mean()))


def test_wrong_images_have_no_distance_and_unreached_ones_an_infinite_one(
    linear: tuple[Network, Tensor, Tensor],
) -> None:
    network, images, labels = linear
    assert (found(linear, "l2", 1 - labels).distances == 0).all()
    with torch.no_grad():
        far = (images - 0.5) * 0 + 0.5 + 0.4 * torch.sign(margins(network, images)[1]).float().view(1, *SHAPE)
    tiny = boundary(
        network,
        far,
        network(far).argmax(1),
        norm="linf",
        radii=(0.01,),
        draws=1,
        predictions=1,
        gradient_draws=1,
        generator=torch.Generator().manual_seed(0),
    )
    assert tiny.distances.isinf().all()


def test_a_slice_cuts_where_the_boundary_is(linear: tuple[Network, Tensor, Tensor]) -> None:
    network, images, labels = linear
    margin, w = margins(network, images)
    place = int(margin.argmin())
    away = (1 if labels[place] == 1 else -1) * (w / w.norm()).float().view(SHAPE)
    cut = plane(
        network,
        images[place],
        int(labels[place]),
        images[place] + 0.05 * away,
        reach=0.1,
        points=21,
        draws=1,
        predictions=1,
        generator=torch.Generator().manual_seed(1),
    )
    middle = 10
    with torch.no_grad():
        assert cut.probability[middle, middle] == pytest.approx(
            float(network(images[place : place + 1]).softmax(1)[0, labels[place]])
        )
    turned = cut.along[(cut.right[middle] < 0.5).nonzero()[0]]
    assert abs(float(turned) - float(margin[place] / w.norm())) <= 0.01 + 1e-6
    # The random direction is orthogonal to w here, so each row is the same but for clipped pixels, of which are none.
    assert torch.equal(cut.right, cut.right[:1].expand_as(cut.right))


def test_a_slice_of_a_random_network_shows_how_often_it_is_right(linear: tuple[Network, Tensor, Tensor]) -> None:
    """With input noise of sigma, w.x + b is normal: it keeps its sign with probability Phi(margin / (sigma |w|))."""
    deterministic, images, labels = linear
    noise, sigma = Noise(0), 0.1
    network = Network(GaussianNoise(sigma, True, noise), Normalise([0.0], [1.0]), deterministic.body, noise).eval()
    margin, w = margins(deterministic, images)
    place = int(margin.argmin())
    cut = plane(
        network,
        images[place],
        int(labels[place]),
        images[place] + 0.1,
        reach=1e-6,
        points=5,
        draws=1,
        predictions=80,
        generator=torch.Generator().manual_seed(0),
    )
    expected = stats.norm.cdf(float(margin[place] / w.norm()) / sigma)
    assert 0.5 < expected < 0.95
    assert abs(float(cut.right.mean()) - expected) < 4 * (expected * (1 - expected) / 2000) ** 0.5


def test_lengths() -> None:
    difference = torch.tensor([[[[3.0, -4.0]]]])
    assert length(difference, "l2").tolist() == [5.0]
    assert length(difference, "linf").tolist() == [4.0]
