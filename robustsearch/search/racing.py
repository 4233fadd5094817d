"""Which recipe is trained again with another seed: the one whose place on the front is least certain.

A front drawn from one seed each holds whoever was lucky. After the search, candidates are repeated with further seeds,
only while their membership is uncertain, and until every one of them is settled or the budget is spent.
"""

from __future__ import annotations

from collections import Counter

from ..membership import pool, probabilities
from .ledger import Entry, Ledger

CERTAIN = 0.05
"""A point is settled where its probability of being on the front is within this of 0 or 1."""
MOST_SEEDS = 3
"""Seeds of a recipe, the first one included."""


def next_repeat(ledger: Ledger) -> tuple[Entry, int] | None:
    """The trial to be repeated next and how many seeds it has had; None where all are settled or have had enough."""
    seeds = Counter(entry.recipe.digest for entry in ledger.entries.values() if entry.role == "repeat")
    points = pool(
        row | entry.columns for entry in ledger.entries.values() for row in entry.rows if ledger.feasible(row)
    )
    doubts = []
    for point, probability in zip(points, probabilities(points), strict=True):
        leader = ledger.entries[point.trial]
        had = 1 + seeds[leader.recipe.digest]
        if CERTAIN < probability < 1 - CERTAIN and had < MOST_SEEDS:
            doubts.append((probability * (1 - probability), leader.name, had))
    if not doubts:
        return None
    _, name, had = max(doubts)
    return ledger.entries[name], had
