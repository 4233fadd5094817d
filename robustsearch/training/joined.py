"""Several optimisers as one, for parameters of different kinds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


class Joined(Optimizer):
    """Optimisers of disjoint parameters with one `step`, one list of groups for a schedule, and one state.

    The groups are those of the parts, not copies: a learning rate set here is theirs.
    """

    def __init__(self, *parts: Optimizer) -> None:
        """The groups come in the order of `parts`."""
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._parts = parts

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of each part; without `closure`, which would have to run once for all of them."""
        assert closure is None
        for part in self._parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of the parts, in their order."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a `state_dict` of parts of the same kinds and groups."""
        for part, state in zip(self._parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)  # puts new groups in the place of the old ones
        self.param_groups = [group for part in self._parts for group in part.param_groups]
