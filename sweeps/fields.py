"""What a specification's types say about a field, looked up by its path."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel


def arms(annotation: Any) -> list[Any]:
    """The types that a field may have: unions are opened, Annotated is taken off."""
    if get_origin(annotation) is Annotated:
        return arms(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [arm for part in get_args(annotation) for arm in arms(part)]
    return [annotation]


def model_of(annotation: Any) -> type[BaseModel] | None:
    """The model among the field's types, if any."""
    for arm in arms(annotation):
        if isinstance(arm, type) and issubclass(arm, BaseModel):
            return arm
    return None


def is_mapping(annotation: Any) -> bool:
    """Whether the field is a dictionary with names of the user's."""
    return any(get_origin(arm) is dict for arm in arms(annotation))


def number_kind(annotation: Any) -> Literal["int", "float"] | None:
    """Which numbers a field takes, None if it takes none or only named ones."""
    kinds = arms(annotation)
    if float in kinds:
        return "float"
    return "int" if int in kinds else None


def child_type(annotation: Any, name: str) -> Any:
    """Type of the field `name` inside a field of this type; None if there is no such field."""
    model = model_of(annotation)
    if model is not None:
        field = model.model_fields.get(name)
        return None if field is None else field.annotation
    for arm in arms(annotation):
        if get_origin(arm) is dict:
            return get_args(arm)[1]
        if get_origin(arm) is tuple and name.isdigit():
            return get_args(arm)[0]
    return None


def type_at(model: type[BaseModel], path: Sequence[str | int]) -> Any:
    """Type of the field at `path`; None if there is no such field."""
    annotation: Any = model
    for part in path:
        annotation = child_type(annotation, str(part))
        if annotation is None:
            return None
    return annotation


def known_fields(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    """Names of the fields at `path`, for 'did you mean'; empty where names are the user's."""
    found = model_of(type_at(model, path))
    return [] if found is None else list(found.model_fields)
