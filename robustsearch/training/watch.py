"""What ends a training before its last epoch: robust accuracy that collapses, or no longer improves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

FALL = 0.2
"""Robust accuracy lost in one epoch that is called catastrophic overfitting (published code of Wong et al. 2020)."""


class Watch:
    """Looks at the robust accuracy after each epoch, keeps the best state, and says when to go back to it.

    - Alarm: training on single steps can overfit to them from one epoch to the next, and its robust accuracy falls
      to near 0 (catastrophic overfitting, Wong et al. 2020, 2001.03994, section 5). As there, a fall of more than
      0.2 in one epoch ends it.
    - Patience: robust accuracy on images that are not trained on falls slowly after its best epoch (robust
      overfitting, Rice et al. 2020, 2002.11569). So many epochs in a row that are no better than the best end it.

    Attributes:
        best: State after the best epoch, the first of equals; None before the first.
    """

    def __init__(self, *, alarm: bool, patience: int | None) -> None:
        self._alarm, self._patience = alarm, patience
        self._accuracy = self._best_accuracy = -1.0
        self._best_epoch = 0
        self.best: dict[str, Any] | None = None

    def see(self, epoch: int, accuracy: float, state: Callable[[], dict[str, Any]]) -> str | None:
        """The reason why training ends here, or None.

        Args:
            epoch: epochs trained, one more each time.
            accuracy: robust accuracy after it, in [0, 1].
            state: gives a copy of the training's state, asked for after a better epoch alone.
        """
        before, self._accuracy = self._accuracy, accuracy
        if accuracy > self._best_accuracy:
            self._best_epoch, self._best_accuracy, self.best = epoch, accuracy, state()
        if self._alarm and before - accuracy > FALL:
            what = f"catastrophic overfitting: PGD accuracy fell from {before:.1%} to {accuracy:.1%} in epoch {epoch}"
        elif self._patience is not None and epoch - self._best_epoch >= self._patience:
            what = f"no better PGD accuracy than {self._best_accuracy:.1%} for {self._patience} epochs"
        else:
            return None
        return f"{what}; back to epoch {self._best_epoch}"

    def state(self) -> dict[str, Any]:
        """All that `load_state` needs to go on."""
        return {
            "accuracy": self._accuracy,
            "best_epoch": self._best_epoch,
            "best_accuracy": self._best_accuracy,
            "best": self.best,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._accuracy, self._best_accuracy = state["accuracy"], state["best_accuracy"]
        self._best_epoch, self.best = state["best_epoch"], state["best"]
