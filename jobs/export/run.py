"""From a checkpoint to a folder that others can load, checked by loading it.

Legend: B samples, P prefix tokens, V vision tokens, T text tokens, K vocabulary.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from jobs.export import calibration
from jobs.export.card import model_card
from jobs.export.llava import as_llava, why_not_llava
from jobs.export.load import MARKS, load_exported
from jobs.export.ours import save_ours
from jobs.load import Loaded, load_checkpoint
from jobs.model.lora import merge_lora
from mir.errors import ConfigError, MirsweepError

# Largest difference between logits in float32 that is still the same model.
TOLERANCE = 1e-4
Form = Literal["llava", "mirsweep"]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written.

    form: 'llava' for transformers' LlavaForConditionalGeneration, 'mirsweep' for our own class;
    why: the reason for our own, '' otherwise. moca_layers: decoder layers whose calibration stands
    in an extra file. difference: largest difference of any logit after loading it again.
    """

    folder: Path
    form: Form
    why: str
    moca_layers: tuple[int, ...]
    samples: int
    difference: float


def export_checkpoint(checkpoint: Path, folder: Path) -> Exported:
    """Write the model of `checkpoint` to the new folder `folder`, load it and compare logits.

    LoRA is merged into the language model. Raises ConfigError if `folder` holds something,
    DataError for a checkpoint that cannot be used, and MirsweepError if what was written is not
    the same model; then nothing is left behind.
    """
    making = folder / ".making"
    if making.exists():
        raise ConfigError(f"{folder}: holds an export that was cut off: remove it or name another")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: holds something already: name a new folder")
    loaded = load_checkpoint(checkpoint)
    probe = _Probe(loaded)
    making.mkdir(parents=True)
    try:
        exported = _write(loaded, folder, making, probe)
        (making / "README.md").write_text(model_card(exported, loaded.spec), encoding="utf-8")
        # The file that it is known by comes last: a killed export must not look like a whole one.
        for entry in sorted(making.iterdir(), key=lambda entry: entry.name in MARKS):
            entry.rename(folder / entry.name)
        making.rmdir()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return exported


def _write(loaded: Loaded, folder: Path, making: Path, probe: _Probe) -> Exported:
    """Write to `making` what is to be found in `folder`."""
    merge_lora(loaded.model.language)
    why = why_not_llava(loaded)
    moca = loaded.model.moca
    acting = calibration.acting_layers(moca)
    if why is None:
        if moca is not None:
            moca.remove()
            if acting:
                calibration.save_moca(moca, making)
        model, processor = as_llava(loaded)
        model.save_pretrained(making)
        processor.save_pretrained(making)
    else:
        save_ours(loaded, making)
    difference = probe.difference(making)
    if not difference <= TOLERANCE:
        raise MirsweepError(
            f"{folder}: the exported model's logits differ by {difference:.2g}, more than "
            f"{TOLERANCE:g}: it was removed; please report the job file with it"
        )
    return Exported(
        folder=folder,
        form="mirsweep" if why else "llava",
        why=why or "",
        moca_layers=tuple(acting),
        samples=loaded.samples,
        difference=difference,
    )


class _Probe:
    """Two made-up samples and what the checkpoint's own model says to them."""

    def __init__(self, loaded: Loaded) -> None:
        from PIL import Image

        generator = torch.Generator().manual_seed(0)
        model = loaded.model
        noise = torch.randint(0, 256, (2, 64, 64, 3), generator=generator, dtype=torch.uint8)
        pictures = [Image.fromarray(one.numpy()) for one in noise]
        processed: Any = loaded.image_processor(images=pictures, return_tensors="pt")
        self._pixels_BCHW: Tensor = processed["pixel_values"]
        self._prefix = list(model.prefix_ids)
        size = len(model.language.get_input_embeddings().weight)  # type: ignore[operator]
        known = min(size, len(loaded.tokenizer))
        self._ids_BT = torch.randint(0, known, (2, 7), generator=generator)
        self._logits_BTK = self._ours(model)

    def difference(self, folder: Path) -> float:
        """Largest difference of a text logit between the checkpoint and the folder, loaded."""
        found = load_exported(folder)
        model = found.model
        logits = self._theirs(model) if hasattr(model, "lm_head") else self._ours(model)
        return float((logits[..., : self._logits_BTK.shape[-1]] - self._logits_BTK).abs().max())

    @torch.no_grad()
    def _ours(self, model: Any) -> Tensor:
        mask = torch.ones_like(self._ids_BT, dtype=torch.bool)
        tokens = model.sequence(model.encode(self._pixels_BCHW), self._ids_BT, mask)
        with model.calibrated(tokens):
            logits: Tensor = model.language(inputs_embeds=tokens.embeds, use_cache=False).logits
        return logits[:, -self._ids_BT.shape[1] :].float()

    @torch.no_grad()
    def _theirs(self, model: Any) -> Tensor:
        count, image = len(self._ids_BT), model.config.image_token_index
        before_BP = torch.tensor(self._prefix, dtype=torch.long).expand(count, -1)
        image_BV = torch.full((count, model.config.image_seq_length), image)
        ids = torch.cat([before_BP, image_BV, self._ids_BT], dim=1)
        logits: Tensor = model(input_ids=ids, pixel_values=self._pixels_BCHW).logits
        return logits[:, -self._ids_BT.shape[1] :].float()
