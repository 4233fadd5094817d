"""A classifier under examination: how it is scored, how it is attacked, and the worst that was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..attacks.gradient import Classifier, crafting
from ..seeds import derive
from .replay import Generators, restore

BATCH = 100
"""Images a pass; bounds the memory."""

Surrogate = Callable[[], AbstractContextManager[object]]
"""Opens a context in which the classifier is a smooth stand-in for itself."""

Attack = Callable[[Tensor, Tensor], Tensor]
"""`(images [N, C, H, W], labels [N]) -> adversarial images [N, C, H, W]`."""


class Subject:
    """A classifier, what is scored of it, and the gradient through which it is attacked.

    Attributes:
        model: Images `[N, C, H, W]` in [0, 1] to logits; what is differentiated.
        predict: What is scored.
        random: Whether two predictions for one image can differ.
        random_plain: The same of two passes of the model.
        random_attacked: The same of what is attacked, the model in its surrogate.
    """

    def __init__(
        self,
        model: Classifier,
        images: Tensor,
        *,
        surrogate: Surrogate | None,
        predict: Classifier | None,
        scoring: int,
        seed: int,
    ) -> None:
        self.model = model
        self.has_surrogate = surrogate is not None
        self.generators = Generators(model)
        self._surrogate: Surrogate = surrogate or nullcontext
        self.predict = predict or model
        self._scoring = scoring
        self._seed = derive(seed, "scoring")
        with self.plain():
            self.random = self._varies(self.predict, images)
            self.random_plain = self._varies(model, images)
        with self.attacked():
            self.random_attacked = self._varies(model, images)

    @contextmanager
    def plain(self) -> Iterator[None]:
        """The classifier itself, in eval mode."""
        with crafting(self.model) if isinstance(self.model, nn.Module) else nullcontext():
            yield

    @contextmanager
    def attacked(self) -> Iterator[None]:
        """The classifier in eval mode and in its surrogate."""
        with self.plain(), self._surrogate():
            yield

    @contextmanager
    def through(self, surrogate: Surrogate) -> Iterator[None]:
        """The classifier in eval mode and in another surrogate."""
        with self.plain(), surrogate():
            yield

    @torch.no_grad()
    def correctness(self, images: Tensor, labels: Tensor) -> Tensor:
        """Share of predictions that are right, `[N]` in [0, 1]; one prediction where nothing is random."""
        hits = torch.zeros(len(images), dtype=torch.float64, device=images.device)
        predictions = self._scoring if self.random else 1
        with self.plain():
            for start in range(0, len(images), BATCH):
                part = slice(start, start + BATCH)
                for _ in range(predictions):
                    hits[part] += (self.predict(images[part]).argmax(1) == labels[part]).double() / predictions
        return hits

    def score(self, images: Tensor, labels: Tensor) -> Tensor:
        """Correctness on draws that no attack has seen, the same ones for every batch of this many images.

        Scores are compared, so what a draw does to all images alike must not differ between them.
        """
        with self.generators.kept(self._seed):
            return self.correctness(images, labels)

    def repeatable(self, images: Tensor) -> bool:
        """Whether a pass can be repeated draw for draw. Call it inside the context that is meant."""
        state = self.generators.state()
        with torch.no_grad():
            first = self.model(images)
            restore(state)
            return torch.allclose(first, self.model(images), rtol=1e-4, atol=1e-6)

    @torch.no_grad()
    def _varies(self, predict: Classifier, images: Tensor) -> bool:
        """Whether passes differ by more than the rounding of unordered sums on a GPU."""
        first = predict(images[:BATCH])
        scale = float(first.abs().amax()) * 1e-5
        return any(not torch.allclose(first, predict(images[:BATCH]), rtol=1e-4, atol=scale) for _ in range(2))


@dataclass(frozen=True)
class Found:
    """Per image the worst that some attacks found.

    It is chosen by one set of draws and scored by another: a minimum over noisy scores would be too low.
    """

    images: Tensor
    """`[N, C, H, W]`."""
    chosen_by: Tensor
    """Correctness `[N]` on the draws it was chosen by."""
    right: Tensor
    """Correctness `[N]` on fresh draws."""

    @property
    def accuracy(self) -> float:
        """Mean correctness."""
        return float(self.right.mean())


def unattacked(subject: Subject, images: Tensor, labels: Tensor) -> Found:
    """The images themselves."""
    right = subject.correctness(images, labels)
    return Found(images, right, subject.score(images, labels) if subject.random else right)


def add(
    subject: Subject, found: Found, attack: Attack, images: Tensor, labels: Tensor, *, where: Tensor | None = None
) -> Found:
    """`found`, with the attack's result wherever that is right less often.

    Images that are always wrong already are not attacked again, nor those outside the mask `where` `[N]`.
    """
    alive = found.chosen_by > 0
    if where is not None:
        alive = alive & where
    if not alive.any():
        return found
    originals, truth = torch.split(images[alive], BATCH), torch.split(labels[alive], BATCH)
    candidates = found.images.clone()
    candidates[alive] = torch.cat([attack(*batch) for batch in zip(originals, truth, strict=True)]).detach()
    chosen_by = found.chosen_by.clone()
    chosen_by[alive] = subject.correctness(candidates[alive], labels[alive])
    right = subject.score(candidates, labels) if subject.random else chosen_by
    return worst(found, Found(candidates, chosen_by, right))


def worst(first: Found, second: Found) -> Found:
    """Per image the one that was right less often on the draws it was chosen by."""
    lower = second.chosen_by < first.chosen_by
    return Found(
        torch.where(lower[:, None, None, None], second.images, first.images),
        torch.where(lower, second.chosen_by, first.chosen_by),
        torch.where(lower, second.right, first.right),
    )
