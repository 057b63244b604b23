"""The README of an exported folder: what it is and how it is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.spec import JobSpec

if TYPE_CHECKING:
    from jobs.export.run import Exported

_LLAVA = """\
from transformers import AutoProcessor, LlavaForConditionalGeneration

model = LlavaForConditionalGeneration.from_pretrained(".")
processor = AutoProcessor.from_pretrained(".")
"""
_OURS = """\
from pathlib import Path
from jobs.export.load import load_exported  # pip install mirsweep

built = load_exported(Path("."))  # built.model, built.tokenizer, built.image_processor
"""
_MOCA = (
    "Decoder layers {layers} calibrate vision tokens (MoCa, moca.safetensors). transformers alone "
    "does not\nknow of it and would run another model; this loads it whole:\n"
)


def model_card(exported: Exported, spec: JobSpec) -> str:
    """Markdown; nothing in it is read by a machine."""
    lines = [
        f"# A vision-language model after {exported.samples:,} samples of pre-training",
        "",
        f"Vision encoder `{spec.model.vision}`, projector `{spec.model.projector}`, language model "
        f"`{spec.model.language}`; job `{spec.digest}` of mirsweep.",
        "",
        f"Loaded again after writing, its logits differ by {exported.difference:.1g} at most.",
        "",
    ]
    whole = exported.form == "llava" and not exported.moca_layers
    if exported.why:
        lines += [f"It is in mirsweep's own form: {exported.why}.", ""]
    if exported.form == "llava" and exported.moca_layers:
        layers = ", ".join(map(str, exported.moca_layers))
        lines += [_MOCA.format(layers=layers)]
    lines += ["```python", (_LLAVA if whole else _OURS).rstrip(), "```", ""]
    return "\n".join(lines)
