"""Objectives against loops over classes in NumPy, and their invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from robustsearch.attacks.objectives import Objective, cross_entropy, margin


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


@pytest.mark.parametrize("objective", [cross_entropy, margin])
def test_gradient_is_that_of_central_differences(objective: Objective) -> None:
    logits, labels = a_batch(5)
    assert torch.autograd.gradcheck(lambda z: objective(z, labels), logits.requires_grad_())


@pytest.mark.parametrize("objective", [cross_entropy, margin])
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


@pytest.mark.parametrize("objective", [cross_entropy, margin])
def test_no_images_have_no_values(objective: Objective) -> None:
    assert objective(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).shape == (0,)
