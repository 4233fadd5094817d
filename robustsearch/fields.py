"""What a recipe is made of: frozen sections of plain values, whose fields have dotted names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError


class Section(BaseModel):
    """A frozen part of a recipe; unknown names and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def leaves(cls: type[Section], prefix: str = "") -> list[tuple[str, Any]]:
    """All dotted field names below a section with their pydantic field infos, in order of definition."""
    found: list[tuple[str, Any]] = []
    for name, info in cls.model_fields.items():
        section = _section(info.annotation)
        found += leaves(section, f"{prefix}{name}.") if section else [(prefix + name, info)]
    return found


def flat(cls: type[Section], values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted field names to the nested values of a section; `None` below a part that is off."""
    found: dict[str, Any] = {}
    for name, _ in leaves(cls):
        part: Any = values
        for key in name.split("."):
            part = None if part is None else part[key]
        found[name] = part
    return found


def explained(error: ValidationError, names: Iterable[str]) -> str:
    """A validation error as lines that name the field, the rule and the value; `names` are those that may be meant."""
    lines = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            known = sorted({name for dotted in names for name in dotted.split(".")})
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            meant = f" (did you mean `{near[0]}`?)" if near else ""
            lines.append(f"`{where}` is no field of a recipe{meant}, but got {item['input']!r}")
        elif item["type"] == "value_error":
            lines.append(f"{where}: {message}" if where else message)
        else:
            lines.append(f"`{where}`: {message[0].lower()}{message[1:]}, but got {item['input']!r}")
    return "; ".join(lines)


def _section(annotation: Any) -> type[Section] | None:
    """The section class in `Section` or `Section | None`, else None."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None
