"""The path that takes at each place the change that gains most: greedy, by what its own rows measure.

Its rows are not all known before they are run. At each place every change that now leads to a recipe, and from there to
the end, is tried: a row of its own (`01-lwta`, `01-mix`, ...) on top of what was taken. The one that gains most is
taken, and the next place's come on top of it. With c changes that is at least a row a place beside the first, and at
most c (c + 1) / 2, which it is wherever every order passes through recipes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import RecipeError, SpaceError
from ..recipe import Recipe
from .designs import Design
from .paths import START, changes, row_name

RULE = "At each place of the path every change that leads on is tried, and the one that gains most is taken."

Gain = Callable[[str], float | None]
"""How good a row is, by its name; None while that is not known."""
Made = frozenset[str]
"""The changes that a recipe on the way has."""


def gain_of(accuracies: Sequence[float | None]) -> float:
    """How good a row is: the mean of its seeds' robust accuracies in [0, 1], less 2 for each seed that failed (None).

    So of two rows the one is better of which fewer trials failed, and of as many the one of higher accuracy.
    """
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    return (sum(known) / len(known) if known else 0.0) - 2 * (len(accuracies) - len(known))


@dataclass(frozen=True)
class Grown:
    """A path as far as it is known."""

    rows: Design
    """`start`, then what is tried at each place, in order."""
    taken: list[str]
    """The rows that were taken, one a place."""
    open: dict[str, int]
    """The rows between which it is not known which one is taken, and how many more may follow on each; empty where the
    path has reached its end."""


class GainingPath:
    """All that may be tried between two recipes, and what is, by what it gains.

    Finding out how many rows there may be takes a look at every set of changes, up to 2^c of them, 0.1 ms each.

    Attributes:
        start: the first row.
        end: the last row.
        fewest: rows that the path has at least, the first one included.
        most: and at most.
    """

    def __init__(self, start: Recipe, end: Recipe) -> None:
        """The path from `start` to `end`.

        Raises:
            SpaceError: the recipes are equal, or no order of the changes passes through recipes alone.
        """
        self.start, self.end = start, end
        self._changes = changes(start, end)
        self._known: dict[Made, tuple[int, int] | None] = {}
        if (ahead := self._ahead(frozenset())) is None:
            raise SpaceError(
                f"a path must pass through recipes, but no order of these changes does: {', '.join(self._changes)}"
            )
        self.fewest, self.most = (1 + count for count in ahead)

    def grow(self, gain: Gain) -> Grown:
        """The path as far as its rows are known to be needed: up to the first place where a gain is not known.

        Where there is one way, that is taken whatever it gains; of equal gains the first in the order of the fields.
        """
        rows, made = {START: self.start}, Made()
        taken: list[str] = []
        while ways := self._ways(made):
            tried = {row_name(len(made) + 1, name): then for name, then in ways.items()}
            rows |= {row: self._recipe(then) for row, then in tried.items()}
            gains = {row: gain(row) if len(tried) > 1 else 0.0 for row in tried}
            known = {row: value for row, value in gains.items() if value is not None}
            if len(known) < len(tried):
                return Grown(rows, taken, {row: self._most(then) for row, then in tried.items()})
            taken.append(max(known, key=known.__getitem__))
            made = tried[taken[-1]]
        return Grown(rows, taken, {})

    def rounds(self) -> list[Design]:
        """The longest of the paths, in rounds: what can be run together, once the round before has been measured."""
        gains: dict[str, float] = {}
        found: list[Design] = []
        seen = 0
        while True:
            grown = self.grow(gains.get)
            found.append(dict(list(grown.rows.items())[seen:]))
            if not grown.open:
                return found
            seen, gains = len(grown.rows), gains | grown.open

    def longest(self) -> Design:
        """The same as one design: as many rows as there may be."""
        return {name: recipe for rows in self.rounds() for name, recipe in rows.items()}

    def _recipe(self, made: Made) -> Recipe:
        fields = {
            name: value for change in self._changes if change in made for name, value in self._changes[change].items()
        }
        return self.start.replace(**fields)

    def _ways(self, made: Made) -> dict[str, Made]:
        """The changes to be tried next, in the order of the fields, and what is made with each."""
        further = {name: made | {name} for name in self._changes if name not in made}
        return {name: then for name, then in further.items() if self._ahead(then) is not None}

    def _ahead(self, made: Made) -> tuple[int, int] | None:
        """Fewest and most rows that follow; None where no order leads on to the end, or it is no recipe."""
        if made not in self._known:
            self._known[made] = self._count(made)
        return self._known[made]

    def _count(self, made: Made) -> tuple[int, int] | None:
        try:
            self._recipe(made)
        except RecipeError:
            return None
        if len(made) == len(self._changes):
            return 0, 0
        ahead = [count for then in self._ways(made).values() if (count := self._ahead(then))]
        if not ahead:
            return None
        return len(ahead) + min(few for few, _ in ahead), len(ahead) + max(many for _, many in ahead)

    def _most(self, made: Made) -> int:
        ahead = self._ahead(made)
        assert ahead is not None
        return ahead[1]
