"""`--set FIELD=VALUE`: changes to a recipe from the command line, checked like the file itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mir.errors import ConfigError

if TYPE_CHECKING:
    from sweeps.spec import SweepSpec

_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


def changed(spec: SweepSpec, changes: Sequence[str]) -> SweepSpec:
    """The recipe with each 'field=value' put in.

    Raises ConfigError that names the field, for unknown fields and refused values alike.
    """
    from pydantic import ValidationError

    from sweeps.document import Document
    from sweeps.mistakes import from_pydantic, refusal
    from sweeps.recipe import sweep_mistakes
    from sweeps.spec import SweepSpec

    if not changes:
        return spec
    tree = spec.model_dump(mode="json")
    for change in changes:
        _put(tree, change)
    document = Document(name="--set", folder=Path.cwd(), data=tree, lines={})
    try:
        made = SweepSpec.model_validate(tree)
    except ValidationError as error:
        raise refusal(document, from_pydantic(error, SweepSpec, tree)) from error
    if mistakes := sweep_mistakes(made):
        raise refusal(document, mistakes)
    return made


def _put(tree: dict[str, Any], change: str) -> None:
    """Put one change into the tree, making the mappings on the way; unknown names fail later."""
    field, sign, text = change.partition("=")
    path = field.strip().split(".")
    if not sign or not all(path):
        raise ConfigError(f"--set: {change!r} is no FIELD=VALUE. Write e.g. --set stop.rule=none")
    inner = tree
    for part in path[:-1]:
        below = inner.get(part)
        if below is None:
            below = inner[part] = {}
        if not isinstance(below, dict):
            raise ConfigError(f"--set: {field}: {part!r} has no fields below it. Set it as a whole")
        inner = below
    inner[path[-1]] = read_value(field, text)


def read_value(field: str, text: str) -> Any:
    """Numbers, true, false and null as such, lists and mappings as YAML, all else as text."""
    import yaml

    if text in _WORDS:
        return _WORDS[text]
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    if not text.startswith(("[", "{")):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set: {field}: {text!r} is not readable as YAML. Mend it") from error
