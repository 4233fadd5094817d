"""Which attack a training batch meets, and that attack with the recipe's strength."""

from __future__ import annotations

from typing import assert_never

import torch
from torch import Tensor

from ..recipe import MIX_NAMES, Attack, Mix, MixName
from ..seeds import derive
from .carlini_wagner import cw
from .gradient import Classifier
from .named import fgsm, fgsm_rs, noise, pgd, trades


class Mixer:
    """One attack or none per batch, by the probabilities of the mix (the report's section 3.1).

    Only names that can come are drawn from, so that a name more in the recipe's list moves no older sequence.

    Names and starts each have a CPU generator that derives from the seed. So the sequence of attacks is the
    same whatever the images' number, size and device.
    """

    def __init__(self, mix: Mix, attack: Attack, seed: int, *, trades: bool = False) -> None:
        """The attacks of a recipe; with `trades`, its own attack comes in the place of PGD."""
        self._possible = [name for name in MIX_NAMES if getattr(mix, name)]
        self._probabilities = torch.tensor([getattr(mix, name) for name in self._possible], dtype=torch.float64)
        self._attack, self._trades = attack, trades
        self._names = torch.Generator().manual_seed(derive(seed, "names"))
        self._starts = torch.Generator().manual_seed(derive(seed, "starts"))

    def draw(self) -> MixName:
        """The name of the next batch's attack."""
        return self._possible[int(torch.multinomial(self._probabilities, 1, generator=self._names))]

    def perturb(
        self,
        name: MixName,
        model: Classifier,
        images: Tensor,
        labels: Tensor,
        *,
        strength: float = 1.0,
        draws: int = 1,
        expand: bool = True,
    ) -> Tensor:
        """Images `[N, C, H, W]` under the named attack; `clean` gives back the very tensor.

        Args:
            name: which attack.
            model: from images to logits; in eval mode (`crafting`) while it trains.
            images: `[N, C, H, W]` in [0, 1].
            labels: `[N]`.
            strength: share of the recipe's epsilon and step, in [0, 1], for a warm-up. CW has neither.
            draws: predictions averaged in each gradient, see `input_gradient`.
            expand: whether these share one pass, see `input_gradient`.
        """
        attack = self._attack
        epsilon = strength * attack.epsilon
        match name:
            case "clean":
                return images
            case "noise":
                return noise(images, epsilon=epsilon, norm=attack.norm, generator=self._starts)
            case "fgsm":
                return fgsm(model, images, labels, epsilon=epsilon, norm=attack.norm, draws=draws, expand=expand)
            case "fgsm_rs":
                return fgsm_rs(
                    model,
                    images,
                    labels,
                    epsilon=epsilon,
                    norm=attack.norm,
                    draws=draws,
                    expand=expand,
                    generator=self._starts,
                )
            case "pgd":
                return (trades if self._trades else pgd)(
                    model,
                    images,
                    labels,
                    epsilon=epsilon,
                    step=strength * attack.step,
                    steps=attack.steps,
                    norm=attack.norm,
                    draws=draws,
                    expand=expand,
                    generator=self._starts,
                )
            case "cw":
                return cw(
                    model,
                    images,
                    labels,
                    c=attack.cw_c,
                    kappa=attack.cw_kappa,
                    steps=attack.steps,
                    lr=attack.cw_lr,
                    draws=draws,
                    expand=expand,
                    keep="last",
                )
            case _:
                assert_never(name)

    def state(self) -> dict[str, Tensor]:
        """The state of both generators, uint8; with it `load_state` goes on bit for bit."""
        return {"names": self._names.get_state(), "starts": self._starts.get_state()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""
        self._names.set_state(state["names"])
        self._starts.set_state(state["starts"])
