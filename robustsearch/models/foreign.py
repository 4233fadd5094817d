"""A classifier from outside: made by a function of the user's, with weights from a file."""

from __future__ import annotations

import importlib
import pickle
import re
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UserError


def load_model(name: str, weights: Path | None) -> nn.Module:
    """What FACTORY of `MODULE:FACTORY` returns, with its weights, if a file of them is given.

    Raises:
        UserError: one of them is absent, fails, or is of another kind.
    """
    module_name, colon, factory_name = name.partition(":")
    if not (module_name and colon and factory_name):
        raise UserError(f"`--model` must be MODULE:FACTORY, but got {name!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # the module is the user's, and may raise anything
        raise UserError(
            f"`--model` must name a module that imports, but {module_name!r} raised {_reason(error)}"
        ) from error
    factory = getattr(module, factory_name, None)
    if not callable(factory):
        raise UserError(f"`--model` must name a function of {module_name!r}, but it has no {factory_name!r} to call")
    try:
        model = factory()
    except Exception as error:  # so is the function
        raise UserError(f"{name} must return an nn.Module, but raised {_reason(error)}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{name} must return an nn.Module, but returned {type(model).__name__}")
    if weights is not None:
        load_weights(model, weights)
    return model.eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a state dict, which may be the entry `state_dict` of a file. Nothing in the file is run.

    Raises:
        UserError: the file is absent, needs code to be read, or fits another model.
    """
    if not path.is_file():
        raise UserError(f"`--weights` must be an existing file, but got {str(path)!r}")
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        raise UserError(
            f"`--weights` must hold tensors only (`torch.save(model.state_dict(), FILE)`), since anything else runs "
            f"code when it is read, but {path} holds {_what_it_asks_for(error)}"
        ) from error
    except Exception as error:  # damaged bytes raise anything
        raise UserError(
            f"`--weights` must be a file of torch.save, but {path} cannot be read: {_reason(error)}"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        misfits = " ".join(line.strip() for line in str(error).splitlines()[1:]) or _reason(error)
        raise UserError(f"`--weights` must fit the model, but {path} does not: {misfits}") from error


def check_logits(model: nn.Module, images: Tensor, classes: int) -> None:
    """Raise UserError unless the model turns images `[N, C, H, W]` into finite logits for each class."""
    expected = f"the model must turn images {list(images.shape)} into finite logits [{len(images)}, {classes}]"
    try:
        with torch.no_grad():
            logits = model(images)
    except Exception as error:  # the model is the user's
        raise UserError(f"{expected}, but raised {_reason(error)}") from error
    if not isinstance(logits, torch.Tensor) or logits.shape != (len(images), classes):
        shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UserError(f"{expected}, but returned {shape}")
    if not logits.isfinite().all():
        raise UserError(f"{expected}, but some are not finite")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


def _what_it_asks_for(error: Exception) -> str:
    """What a pickle would have to import, as torch's refusal names it."""
    found = re.search(r"GLOBAL ([\w.]+)", str(error))
    return found[1] if found else "what is no tensor"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no reason given")
