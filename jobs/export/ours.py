"""A folder with our own small model class, for models that transformers has no class for.

    mirsweep.json           what joins the parts: projector, layer of the encoder, MoCa; and the
                            template that its job scored it with
    vision/, language/      the parts as folders of their own, with image processor and tokenizer
    joint.safetensors       projector and MoCa, float32

Built again by `jobs.export.load.load_exported`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from jobs.load import Loaded
from jobs.model.build import Built, build_model
from jobs.spec import ModelSpec
from mir.errors import DataError

SETTINGS, JOINT = "mirsweep.json", "joint.safetensors"
_TEMPLATE = "template"
_JOINT_PARTS = ("projector.", "moca.")


def save_ours(loaded: Loaded, folder: Path) -> None:
    """Write the folder. LoRA must have been merged."""
    from safetensors.torch import save_file

    encoder: Any = loaded.model.vision.encoder
    encoder.save_pretrained(folder / "vision")
    loaded.image_processor.save_pretrained(folder / "vision")
    language: Any = loaded.model.language
    language.save_pretrained(folder / "language")
    loaded.tokenizer.save_pretrained(folder / "language")
    state = loaded.model.state_dict()
    joint = {k: v.contiguous() for k, v in state.items() if k.startswith(_JOINT_PARTS)}
    save_file(joint, folder / JOINT)
    kept = {"projector", "projector_norm", "select_layer", "class_token", "moca"}
    settings = loaded.spec.model.model_dump(mode="json", include=kept)
    settings[_TEMPLATE] = loaded.spec.score.template
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1), encoding="utf-8")


def load_ours(folder: Path) -> Built:
    """Build what `save_ours` wrote. Raises DataError if a part is missing or does not fit."""
    from safetensors.torch import load_file

    settings = _settings(folder)
    settings.pop(_TEMPLATE, None)
    parts = {part: str(folder / part) for part in ("vision", "language")}
    built = build_model(ModelSpec.model_validate({**settings, **parts}), seed=0)
    joint = load_file(folder / JOINT)
    wanted = {name for name in built.model.state_dict() if name.startswith(_JOINT_PARTS)}
    if wanted != set(joint):
        odd = sorted(wanted ^ set(joint))
        raise DataError(f"{folder}: {JOINT} does not fit {SETTINGS} ({odd[0]}): export it again")
    built.model.load_state_dict(joint, strict=False)
    return built


def score_template(folder: Path) -> Literal["plain", "chat"]:
    """How the job that trained the model joined picture and text when it scored itself."""
    found = _settings(folder).get(_TEMPLATE, "plain")
    return "chat" if found == "chat" else "plain"


def _settings(folder: Path) -> dict[str, Any]:
    """What `save_ours` noted. Raises DataError where it cannot be read."""
    path = folder / SETTINGS
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}): export the checkpoint again") from error
    if not isinstance(told, dict):
        raise DataError(f"{path}: holds no settings: export the checkpoint again")
    return told
