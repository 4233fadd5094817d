"""Search spaces: one module each, with `suggest(trial, epsilon) -> Recipe` and a first line that says what it searches.

`trial` is an Optuna trial (define-by-run, so a setting may depend on another), `epsilon` the l_inf radius at which the
dataset is evaluated, in pixel units of [0, 1]. `STARTS`, if given, lists settings that are tried first; what a start
leaves open is sampled. A file of your own, `--space my_space.py`, is a space of the same kind.
"""

from __future__ import annotations

import pkgutil


def names() -> list[str]:
    """The spaces of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")
