"""Documented parameters: one way to declare, list and check the fields of a method, a partition or a model.

A parameter is declared where it is used, as ``alpha: Annotated[float, hyper("concentration", gt=0)] = 0.3``, on a
frozen dataclass (methods) or as a keyword-only argument of a function (partitions, models).
"""

import dataclasses
import inspect
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import ValidationInfo

from pflbench.core.errors import BadInput

NO_NUMBER = "must be a number or text; true and false are neither"


class Declared(BaseModel):
    """What a file may hold, field by field. A truth value is no number."""

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        wanted = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and wanted is not Any and bool not in (wanted, *get_args(wanted)):
            raise ValueError(NO_NUMBER)
        return value


Target = Any  # a dataclass, or a function with keyword-only arguments


def hyper(
    meaning: str,
    *,
    source: str = "",
    gt: float | None = None,
    ge: float | None = None,
    lt: float | None = None,
    le: float | None = None,
    multiple_of: int | None = None,
) -> FieldInfo:
    """Metadata of one parameter, for use inside ``Annotated``: what it means, where its default comes from, its range."""
    info = Field(description=meaning, title=source, gt=gt, ge=ge, lt=lt, le=le, multiple_of=multiple_of)
    assert isinstance(info, FieldInfo)
    return info


@dataclass(frozen=True)
class FieldDoc:
    """One row of a parameter table."""

    name: str
    type: str
    default: Any
    allowed: str
    meaning: str
    source: str


def describe(target: Target) -> list[FieldDoc]:
    """The documented parameters of a dataclass or of a function's keyword-only arguments, in order."""
    rows = []
    for name, (annotation, default) in _parameters(target).items():
        base, info = _unpack(annotation)
        shown = "one of " + ", ".join(map(repr, get_args(base))) if get_origin(base) is Literal else _range(info)
        kind = "choice" if get_origin(base) is Literal else getattr(base, "__name__", str(base))
        rows.append(FieldDoc(name, kind, default, shown, info.description or "", info.title or ""))
    return rows


def resolve(target: Target, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All parameters of ``target``: ``given`` values checked and converted, defaults for the rest.

    Raises BadInput, naming ``where`` and the field, for an unknown field or a value outside its range.
    """
    known = _parameters(target)
    for name, value in given.items():
        if name not in known:
            raise BadInput(f"{where}.{name}", value, f"unknown field; {_choose(name, known, 'it has no fields')}")
    values = {}
    for name, (annotation, default) in known.items():
        if name in given:
            values[name] = check(annotation, given[name], f"{where}.{name}")
        elif default is inspect.Parameter.empty:
            raise BadInput(f"{where}.{name}", "missing", f"needs a value: {_range(_unpack(annotation)[1])}")
        else:
            values[name] = default
    return values


def check(annotation: Any, value: Any, field: str) -> Any:
    """``value`` converted to ``annotation``; raises BadInput naming ``field``. Infinite and NaN numbers are refused."""
    if isinstance(value, bool) and _unpack(annotation)[0] not in (bool, Any):
        raise BadInput(field, value, NO_NUMBER)
    try:
        result = TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        raise BadInput(field, value, error.errors()[0]["msg"]) from None
    if isinstance(result, float) and not abs(result) < float("inf"):
        raise BadInput(field, value, "must be a finite number")
    return result


def pick(name: str, known: Iterable[str], field: str) -> str:
    """``name`` if it is one of ``known``; else BadInput with the nearest spelling and the whole list."""
    names = sorted(known)
    if name not in names:
        raise BadInput(field, name, _choose(name, names, "nothing is registered"))
    return name


def parse(text: str, field: str) -> tuple[str, dict[str, str]]:
    """``"dirichlet:alpha=0.3,minimum=5"`` -> ``("dirichlet", {"alpha": "0.3", "minimum": "5"})``."""
    name, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",") if part]
    for key, sign, value in pairs:
        if not (key and sign and value):
            raise BadInput(field, text, "write NAME or NAME:field=value,field=value")
    return name.strip(), {key.strip(): value.strip() for key, _, value in pairs}


def canonical(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _choose(name: str, known: Iterable[str], none: str) -> str:
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"choose from {', '.join(names)}{hint}" if names else none


@cache
def _parameters(target: Target) -> dict[str, tuple[Any, Any]]:
    hints = get_type_hints(target, include_extras=True)
    if dataclasses.is_dataclass(target):
        missing = inspect.Parameter.empty
        return {
            field.name: (hints[field.name], missing if field.default is dataclasses.MISSING else field.default)
            for field in dataclasses.fields(target)
        }
    keyword = inspect.Parameter.KEYWORD_ONLY
    arguments = inspect.signature(target).parameters.values()
    return {a.name: (hints[a.name], a.default) for a in arguments if a.kind is keyword}


def _unpack(annotation: Any) -> tuple[Any, FieldInfo]:
    base, *extra = get_args(annotation) if hasattr(annotation, "__metadata__") else (annotation,)
    return base, next((item for item in extra if isinstance(item, FieldInfo)), FieldInfo())


def _range(info: FieldInfo) -> str:
    signs = {"Gt": ">", "Ge": ">=", "Lt": "<", "Le": "<="}
    named = [(signs[kind], getattr(m, kind.lower())) for m in info.metadata if (kind := type(m).__name__) in signs]
    return " and ".join(f"{sign} {value:g}" for sign, value in named) or "any"
