"""The watch over robust accuracy: its rule against a plain restatement, and real collapses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robustsearch.training.watch import Watch

ACCURACIES = st.lists(st.integers(0, 20).map(lambda i: i / 20), min_size=1, max_size=12)


def plain_end(accuracies: list[float], *, alarm: bool, patience: int | None) -> tuple[int, int] | None:
    """Epoch of the end and epoch to go back to, from the whole history at once; None where it goes on."""
    for epoch in range(1, len(accuracies) + 1):
        seen = accuracies[:epoch]
        best = seen.index(max(seen)) + 1
        fell = alarm and epoch > 1 and seen[-2] - seen[-1] > 0.2
        if fell or (
            patience is not None
            and all(value <= seen[best - 1] for value in seen[best:epoch])
            and epoch - best >= patience
        ):
            return epoch, best
    return None


@given(ACCURACIES, st.booleans(), st.none() | st.integers(1, 4), st.integers(0, 12))
def test_it_ends_where_a_look_at_the_whole_history_does(
    accuracies: list[float], alarm: bool, patience: int | None, cut: int
) -> None:
    """Saved and loaded after epoch `cut` too."""
    watch = Watch(alarm=alarm, patience=patience)
    found = None
    for epoch, accuracy in enumerate(accuracies, 1):
        if epoch == cut:
            state = watch.state()
            watch = Watch(alarm=alarm, patience=patience)
            watch.load_state(state)
        reason = watch.see(epoch, accuracy, lambda: {"epoch": epoch})  # noqa: B023
        if reason is not None:
            assert watch.best is not None
            found = epoch, watch.best["epoch"]
            assert reason.endswith(f"back to epoch {found[1]}")
            break
    assert found == plain_end(accuracies, alarm=alarm, patience=patience)


def test_reasons_name_what_was_seen() -> None:
    watch = Watch(alarm=True, patience=2)
    assert watch.see(1, 0.5, dict) is None
    assert watch.see(2, 0.8, dict) is None
    reason = watch.see(3, 0.1, dict)
    assert reason == "catastrophic overfitting: PGD accuracy fell from 80.0% to 10.0% in epoch 3; back to epoch 2"
    watch = Watch(alarm=False, patience=2)
    assert [watch.see(1, 0.8, dict), watch.see(2, 0.1, dict)] == [None, None]
    assert watch.see(3, 0.8, dict) == "no better PGD accuracy than 80.0% for 2 epochs; back to epoch 1"


@pytest.mark.parametrize("fall", [0.19, 0.21])
def test_a_fall_of_more_than_a_fifth_is_the_alarm(fall: float) -> None:
    watch = Watch(alarm=True, patience=None)
    watch.see(1, 0.6, dict)
    assert (watch.see(2, 0.6 - fall, dict) is not None) == (fall > 0.2)
