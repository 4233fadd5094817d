"""Ablations of one recipe, such as a point of a search's front, against the plain network: designs by name.

Its components are what it adds to the plain network. A component that cannot stand alone goes with what it stands on:
without LWTA there is no gate, no prior over blocks and, if nothing else is random, no second draw. The name of a row
says all that it is without.

    leave-one-out    the recipe, and the recipe without each component
    one-in           the plain network, and the plain network with each component that can stand alone
    path             from the plain network to the recipe, change by change, as `paths` has them
    random-path      the same in a random order
    gaining-path     the same, at each place the change that gains most, as `gaining` finds it
"""

from __future__ import annotations

from typing import Any

from ..errors import RecipeError, SpaceError
from ..recipe import Recipe
from .designs import ALL, BASE, Change, Design, listed
from .gaining import GainingPath
from .paths import path, random_order

DESIGNS = ("leave-one-out", "one-in", "path", "random-path", "gaining-path")

GROUPS = {
    "mix": "attacks",
    "attack": "attacks",
    "trades": "attacks",
    "clean_weight": "attacks",
    "depth": "depth",
    "widen_factor": "width",
}
"""Fields that make one component together: what a batch is attacked with; the others are their own."""


def design(kind: str, plain: Recipe, recipe: Recipe, seed: int = 0) -> Design | GainingPath:
    """The rows of a design of this name, or the path that finds its own; `seed` is that of a random order.

    Raises:
        SpaceError: there is no such design, or the recipe adds nothing to the plain one.
    """
    if kind not in DESIGNS:
        raise SpaceError(f"the design of an ablation must be one of {', '.join(DESIGNS)}, but got {kind!r}")
    parts = components(plain, recipe)
    if not parts:
        raise SpaceError("an ablation needs a recipe that differs from the plain one, but they are the same")
    if kind == "leave-one-out":
        return _leave_one_out(plain, parts)
    if kind == "one-in":
        alone = {name: found for name in parts if (found := _with(plain, {name: parts[name]})[0]) != plain}
        return listed({BASE: plain} | _distinct(alone))
    if kind == "gaining-path":
        return GainingPath(plain, recipe)
    return path(plain, recipe, random_order(plain, recipe, seed) if kind == "random-path" else None)


def components(plain: Recipe, recipe: Recipe) -> dict[str, Change]:
    """What leads from one recipe to the other, by name, each after what it stands on."""
    found: dict[str, dict[str, Any]] = {}
    before, after = plain.model_dump(), recipe.model_dump()
    for part, value in after.items():
        old = before[part]
        if part == "lwta" and value is not None:
            found |= _lwta(old, value)
        elif part in ("model", "training") and value != old:
            for name in value:
                if value[name] != old[name]:
                    found.setdefault(GROUPS.get(name, name), {})[f"{part}.{name}"] = value[name]
        elif value != old:
            found.setdefault(GROUPS.get(part, part), {})[part] = value
    return {name: dict(change) for name, change in found.items()}


def _lwta(old: dict[str, Any] | None, value: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """LWTA as it is by default but for its units and weights, then its gate and its prior."""
    sampled = {"gate": "sample", "gate_noise": None, "ibp": None}
    found: dict[str, dict[str, Any]] = {}
    if old is None or {**old, **sampled} != {**value, **sampled}:
        found["lwta"] = {"lwta": {**value, **sampled}}
    old = old if old is not None and not found else sampled
    if (value["gate"], value["gate_noise"]) != (old["gate"], old["gate_noise"]):
        found["gate"] = {"lwta.gate": value["gate"], "lwta.gate_noise": value["gate_noise"]}
    if value["ibp"] != old["ibp"]:
        found["ibp"] = {"lwta.ibp": value["ibp"]}
    return found


def _with(plain: Recipe, parts: dict[str, Change]) -> tuple[Recipe, list[str]]:
    """The plain recipe with these components, and those that could not be had."""
    recipe, left = plain, list(parts)
    while left:
        for name in left:
            try:
                recipe = recipe.replace(**parts[name])
            except RecipeError:
                continue
            left.remove(name)
            break
        else:
            break
    return recipe, left


def _leave_one_out(plain: Recipe, parts: dict[str, Change]) -> Design:
    rows = {ALL: _with(plain, parts)[0]}
    without = {}
    for name in parts:
        recipe, missing = _with(plain, {other: change for other, change in parts.items() if other != name})
        without["-".join(["without", name, *missing])] = recipe
    return listed(rows | _distinct(without))


def _distinct(rows: Design) -> Design:
    """The rows but for those whose recipe an earlier one has."""
    found: Design = {}
    for name, recipe in rows.items():
        if recipe not in found.values():
            found[name] = recipe
    return found
