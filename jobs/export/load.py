"""An exported folder as a model again, with MoCa where it has some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from jobs.export import calibration, ours
from jobs.model.build import Built
from mir.errors import DataError

_LLAVA = "config.json"
MARKS = (ours.SETTINGS, _LLAVA)  # a folder with neither is no exported one


def load_exported(folder: Path) -> Built:
    """The model with its tokenizer and image processor, float32 on the CPU, in evaluation mode.

    model: transformers' LlavaForConditionalGeneration where the folder holds one, with MoCa
    attached from outside; otherwise our own class (`jobs.model.llava.Llava`). No code of the
    folder is run. Raises DataError if it is no exported folder.
    """
    if (folder / ours.SETTINGS).is_file():
        return ours.load_ours(folder)
    if not (folder / _LLAVA).is_file():
        raise DataError(f"{folder}: no exported model: name a folder that mirsweep export wrote")
    import transformers

    model: Any = transformers.LlavaForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32
    )
    processor: Any = transformers.LlavaProcessor.from_pretrained(folder)
    if (folder / calibration.SETTINGS).is_file():
        calibration.attach_moca(model, folder)
    return Built(
        model=model.eval(), tokenizer=processor.tokenizer, image_processor=processor.image_processor
    )
