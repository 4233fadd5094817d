"""One trained network under other gates and numbers of draws: what needs no training can be compared without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import UserError
from .recipe import GATES, GateMode, Recipe

ALL = tuple(name if gate.noise is not None else f"{name}=0.5" for name, gate in GATES.items())
"""What `all` stands for; 0.5 is half way from `argmax` (scale 0) to `sample` (scale 1)."""


def variants(recipe: Recipe, gates: Sequence[str], draws: int | None) -> list[Recipe]:
    """The recipe under each of `gates` (`sample`, `mean`, `argmax`, `noisy=S` or `all`) with K = `draws`, each once.

    Without gates it keeps its own, without draws its own number of them. A network in which nothing is random then has
    one draw.

    Raises:
        UserError: an unknown gate, a gate for a network without LWTA, draws without randomness, a number out of range.
    """
    if gates and recipe.lwta is None:
        raise UserError(f"`--gate` needs a network with LWTA activations, but this one is {recipe.describe()}")
    asked = dict.fromkeys(name for gate in gates for name in (ALL if gate == "all" else (gate,)))
    parsed = [parse_gate(gate) for gate in asked]
    changes: list[dict[str, Any]] = [{"lwta.gate": gate, "lwta.gate_noise": scale} for gate, scale in parsed] or [{}]
    found: list[Recipe] = []
    for fields in changes:
        single = recipe.replace(**fields, draws=1)
        wanted = recipe.draws if draws is None else draws
        variant = single.replace(draws=wanted) if single.is_stochastic else single
        found += [] if variant in found else [variant]
    if draws is not None and draws > 1 and not any(variant.is_stochastic for variant in found):
        raise UserError(f"`--draws` needs a network that is random at inference, but this one is {found[0].describe()}")
    return found


def parse_gate(text: str) -> tuple[GateMode, float | None]:
    """Gate and noise scale of `sample`, `mean`, `argmax` or `noisy=S`.

    Raises:
        UserError: it is none of these.
    """
    name, _, scale = text.partition("=")
    if text in GATES and GATES[text].noise is not None:
        return text, None
    if name in GATES and GATES[name].noise is None:
        try:
            return name, float(scale)
        except ValueError:
            raise UserError(f"`--gate {name}` needs the scale of its noise, {name}=S, but got {text!r}") from None
    known = ", ".join(name if gate.noise is not None else f"{name}=S" for name, gate in GATES.items())
    raise UserError(f"`--gate` must be {known} or all, but got {text!r}")


def variant_name(recipe: Recipe, own: Recipe) -> str | None:
    """What `recipe` has in place of a trial's `own` inference: `mean-K1`, `noisy-0.5-K4`, `K8`; None if nothing."""
    if recipe == own:
        return None
    words = [f"K{recipe.draws}"]
    if recipe.lwta is not None:
        scale = [] if recipe.lwta.gate_noise is None else [str(recipe.lwta.gate_noise)]
        words = [recipe.lwta.gate, *scale, *words]
    return "-".join(words)
