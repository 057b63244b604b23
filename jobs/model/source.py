"""Where a model comes from, and in one line why it could not be had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mir.errors import ConfigError, MirsweepError

# transformers explains itself over several lines; these words of it tell what is wrong.
_REASONS = (
    (
        ("trust_remote_code", "custom code"),
        "it brings code of its own, which is never run: choose a model that transformers knows",
    ),
    (
        ("does not recognize this architecture", "Unrecognized model"),
        "its model_type is unknown to the installed transformers: choose another model, or upgrade "
        "transformers",
    ),
    (
        ("Unrecognized configuration class",),
        "its architecture is of another kind: model.language takes causal language models, "
        "model.vision vision encoders",
    ),
    (
        ("ignore_mismatched_sizes",),
        "its weights have other shapes than its config.json says: fetch both together again",
    ),
    (
        ("couldn't connect", "Can't load", "not a valid model identifier", "is not a local folder"),
        "it is no folder here, not in the local cache, and the hub was not reached: fetch it with "
        "'hf download', or name a folder",
    ),
)
# Architectures read it where it is given, and some do not declare it.
_UNDECLARED = ("head_dim",)


@contextmanager
def loading(field: str, name: object) -> Iterator[None]:
    """Within: what goes wrong while a model is loaded is a ConfigError that names the field."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError

    try:
        yield
    except MirsweepError:
        raise
    except (OSError, ValueError, KeyError, SafetensorError, StrictDataclassError) as error:
        raise ConfigError(
            f"{field}: {str(name)!r} cannot be loaded: {_why(name, error)}"
        ) from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise  # out of memory, for one, has a remedy of its own
        raise ConfigError(
            f"{field}: {str(name)!r} cannot be loaded: {_why(name, error)}"
        ) from error


def read_config(field: str, given: str | dict[str, Any]) -> Any:
    """The configuration of an architecture, from a folder, hub name, JSON file or mapping.

    Raises ConfigError where there is none, its model_type is unknown or, in a mapping, a setting
    is, which transformers would keep without a word.
    """
    from transformers import AutoConfig

    if isinstance(given, str):
        with loading(field, given):
            return AutoConfig.from_pretrained(
                Path(given).expanduser() if given.startswith("~") else given,
                trust_remote_code=False,
            )
    kind = given.get("model_type")
    _require_known(f"{field}.model_type", kind, _model_types())
    settings = {name: value for name, value in given.items() if name != "model_type"}
    default = AutoConfig.for_model(kind)
    known = sorted({*default.to_dict(), *default.attribute_map, *_UNDECLARED})
    for name in settings:
        _require_known(f"{field}.{name}", name, known)
    with loading(field, kind):
        return AutoConfig.for_model(kind, **settings)


def require_whole(field: str, name: object, missing: set[str]) -> None:
    """Raise ConfigError if weights are missing: transformers would draw them at random."""
    if missing:
        first = sorted(missing)[0]
        raise ConfigError(
            f"{field}: {str(name)!r} lacks {len(missing)} weights of its architecture, {first} for "
            "one: fetch it again, or ask for random weights with {random: ...}"
        )


def _why(name: object, error: Exception) -> str:
    if isinstance(name, str) and name.startswith((".", "/", "~")):
        folder = Path(name).expanduser()
        if not folder.is_dir() and not folder.is_file():
            return "there is no such folder: correct the path"
        if folder.is_dir() and not (folder / "config.json").is_file():
            return "it holds no config.json: name the folder of a transformers model"
    text = str(error)
    for words, reason in _REASONS:
        if any(word.lower() in text.lower() for word in words):
            return reason
    return " ".join(text.split())[:300] or type(error).__name__


def _model_types() -> list[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return sorted(CONFIG_MAPPING_NAMES)


def _require_known(field: str, name: object, known: list[str]) -> None:
    if name in known:
        return
    close = get_close_matches(str(name), known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known[:8])}, ..."
    raise ConfigError(f"{field}: {name!r} is unknown to transformers: {hint}")
