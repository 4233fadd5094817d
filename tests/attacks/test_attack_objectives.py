"""Objectives against loops over classes in NumPy, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustsearch.attacks.objectives import Objective, cross_entropy, dlr, margin, targeted_dlr

TARGETS = torch.tensor([3, 0, 4, 1, 1, 2, 0])
OBJECTIVES = [
    pytest.param(cross_entropy, id="cross_entropy"),
    pytest.param(margin, id="margin"),
    pytest.param(dlr, id="dlr"),
    pytest.param(targeted_dlr(TARGETS), id="targeted_dlr"),
]


def a_batch(classes: int, n: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(classes)
    logits = 3 * torch.randn((n, classes), generator=generator, dtype=torch.float64)
    return logits, torch.randint(classes, (n,), generator=generator)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_values_are_those_of_a_loop_over_classes(classes: int) -> None:
    logits, labels = a_batch(classes)
    for row, label, entropy, gap in zip(
        logits.numpy(), labels.tolist(), cross_entropy(logits, labels), margin(logits, labels), strict=True
    ):
        others = [value for j, value in enumerate(row) if j != label]
        assert float(gap) == pytest.approx(max(others) - row[label], abs=1e-12)
        assert float(entropy) == pytest.approx(-np.log(np.exp(row[label]) / np.exp(row).sum()), abs=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradient_is_that_of_central_differences(objective: Objective) -> None:
    logits, labels = a_batch(5)
    assert torch.autograd.gradcheck(lambda z: objective(z, labels), logits.requires_grad_())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_log_probabilities_serve_as_logits(objective: Objective) -> None:
    logits, labels = a_batch(5)
    torch.testing.assert_close(objective(logits.log_softmax(1), labels), objective(logits, labels))
    torch.testing.assert_close(objective(logits + 1000, labels), objective(logits, labels))


def test_margin_is_positive_exactly_where_the_prediction_is_wrong() -> None:
    logits, labels = a_batch(3, n=200)
    wrong = logits.argmax(1) != labels
    assert 0 < wrong.sum() < 200
    assert torch.equal(margin(logits, labels) > 0, wrong)


def test_tied_runners_up_share_the_gradient_of_the_margin() -> None:
    logits = torch.tensor([[1.0, 2.0, 2.0]], requires_grad=True)
    margin(logits, torch.tensor([0])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[-1.0, 0.5, 0.5]]


@pytest.mark.parametrize("objective", [cross_entropy, margin, dlr, targeted_dlr(TARGETS[:0])])
def test_no_images_have_no_values(objective: Objective) -> None:
    assert objective(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)).shape == (0,)


# The difference of logits ratio


@pytest.mark.parametrize("classes", [4, 5, 10])
def test_logit_ratios_are_those_of_the_sorted_logits(classes: int) -> None:
    logits, labels = a_batch(classes, n=50)
    targets = (labels + 1 + torch.arange(50) % (classes - 1)) % classes
    values, targeted = dlr(logits, labels), targeted_dlr(targets)(logits, labels)
    for n, row in enumerate(logits.tolist()):
        y, t = int(labels[n]), int(targets[n])
        first, _, third, fourth, *_ = sorted(row, reverse=True)
        runner_up = max(row[:y] + row[y + 1 :])
        assert float(values[n]) == pytest.approx(-(row[y] - runner_up) / (first - third), rel=1e-12)
        ratio = -(row[y] - row[t]) / (first - (third + fourth) / 2)
        assert float(targeted[n]) == pytest.approx(ratio, rel=1e-12)


@pytest.mark.parametrize("objective", [dlr, targeted_dlr(TARGETS)])
def test_logit_ratios_do_not_see_the_scale_of_the_logits(objective: Objective) -> None:
    logits, labels = a_batch(5)
    for factor in (1e-6, 1e6):
        torch.testing.assert_close(objective(factor * logits, labels), objective(logits, labels))


def test_dlr_is_positive_exactly_where_the_prediction_is_wrong_and_never_below_minus_one() -> None:
    logits, labels = a_batch(3, n=200)
    values = dlr(logits, labels)
    assert torch.equal(values > 0, logits.argmax(1) != labels)
    assert (values >= -1).all()


@pytest.mark.parametrize("objective", [dlr, targeted_dlr(torch.tensor([1, 0]))])
def test_equal_logits_have_finite_values_and_gradients(objective: Objective) -> None:
    logits = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, -1.0]], requires_grad=True)
    values = objective(logits, torch.tensor([0, 3]))
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    assert values.isfinite().all()
    assert gradient.isfinite().all()


def test_targets_repeat_with_the_copies_of_the_batch() -> None:
    logits, labels = a_batch(5)
    copies = torch.cat([logits, 2 * logits.flip(1), logits])
    values = targeted_dlr(TARGETS)(copies, labels.repeat(3))
    for part, own in zip(values.split(7), copies.split(7), strict=True):
        torch.testing.assert_close(part, targeted_dlr(TARGETS)(own, labels))


def test_logit_ratios_need_their_classes() -> None:
    label = torch.tensor([0])
    with pytest.raises(ValueError, match=r"^dlr needs at least 3 classes, but got 2$"):
        dlr(torch.zeros(1, 2), label)
    with pytest.raises(ValueError, match=r"^targeted_dlr needs at least 4 classes, but got 3$"):
        targeted_dlr(label)(torch.zeros(1, 3), label)
