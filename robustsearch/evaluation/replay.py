"""The generators that a classifier draws from, so that its draws can be repeated and left as they were."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from ..models.stochastic import Noise
from ..seeds import derive

State = list[Callable[[], Any]]
"""What puts each generator back to where it stood."""


class Generators:
    """The global generators, and those that a classifier's modules hold as attributes."""

    def __init__(self, classifier: object) -> None:
        owners = list(classifier.modules()) if isinstance(classifier, nn.Module) else [classifier]
        held = [value for owner in owners for value in getattr(owner, "__dict__", {}).values()]
        self._noises = _distinct(held, Noise)
        self._torch = [torch.default_generator, *_distinct(held, torch.Generator)]
        self._python = [random, *_distinct(held, random.Random)]
        self._numpy = _distinct(held, np.random.Generator)

    def state(self) -> State:
        """Where every generator stands; calling each entry puts one back there."""
        state: State = [_bind(noise.load_state, noise.state()) for noise in self._noises]
        state += [_bind(generator.set_state, generator.get_state()) for generator in self._torch]
        state += [_bind(generator.setstate, generator.getstate()) for generator in self._python]
        state += [_numpy_setter(generator) for generator in self._numpy]
        state.append(_bind(np.random.set_state, np.random.get_state()))  # noqa: NPY002  a model may still draw from it
        if torch.cuda.is_available():
            state.append(_bind(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all()))
        return state

    def reseed(self, seed: int) -> None:
        """Start every generator anew from `seed`, each with a stream of its own."""
        for index, noise in enumerate(self._noises):
            noise.seed(derive(seed, "noise", index))
        for index, generator in enumerate(self._torch):
            generator.manual_seed(derive(seed, "torch", index))
        for index, generator in enumerate(self._python):
            generator.seed(derive(seed, "python", index))
        for index, generator in enumerate(self._numpy):
            bits = generator.bit_generator
            bits.state = type(bits)(derive(seed, "numpy", index)).state
        np.random.seed(derive(seed, "numpy") % 2**32)  # noqa: NPY002
        if torch.cuda.is_available():
            torch.cuda.manual_seed_all(derive(seed, "cuda"))

    @contextmanager
    def kept(self, seed: int) -> Iterator[None]:
        """All generators start from `seed` inside the block; after it, they stand where they stood before."""
        before = self.state()
        try:
            self.reseed(seed)
            yield
        finally:
            restore(before)


def restore(state: State) -> None:
    """Put every generator back to where it stood."""
    for put_back in state:
        put_back()


def _distinct(values: list[Any], kind: type) -> list[Any]:
    return list({id(value): value for value in values if isinstance(value, kind)}.values())


def _bind(function: Callable[[Any], Any], argument: Any) -> Callable[[], Any]:
    return lambda: function(argument)


def _numpy_setter(generator: np.random.Generator) -> Callable[[], Any]:
    state = generator.bit_generator.state

    def put_back() -> None:
        generator.bit_generator.state = state

    return put_back
