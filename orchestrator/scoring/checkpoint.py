"""Our own models as something to score, MoCa included: checkpoints, and exports of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jobs.spec import ScoreSpec
from mir.capture import Batch, Subject
from mir.errors import ConfigError
from orchestrator.scoring.inputs import EvaluationPairs
from orchestrator.scoring.place import choose_dtype
from orchestrator.scoring.processor import Template

if TYPE_CHECKING:
    from jobs.model.build import Built

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def is_ours(name: str) -> bool:
    """Whether a job of ours has saved this folder, it is the folder of such a job, or our own
    form of an export. An export as transformers' LLaVA is scored as any other."""
    saved = _saved(name) or any(Path(name).glob("checkpoints/samples-*/job.json"))
    return saved or _exported(name)


def _saved(name: str) -> bool:
    return (Path(name) / "job.json").is_file()


def _exported(name: str) -> bool:
    from jobs.export.ours import SETTINGS

    return (Path(name) / SETTINGS).is_file()


def _load(name: str) -> tuple[Built, ScoreSpec, str]:
    """The model, how its job scores it and in which precision it ran; an export is float32."""
    if _exported(name):
        from jobs.export.ours import load_ours, score_template

        folder = Path(name)
        return load_ours(folder), ScoreSpec(template=score_template(folder)), "fp32"
    from jobs.downstream.start import find_checkpoint
    from jobs.load import load_checkpoint

    loaded = load_checkpoint(Path(name) if _saved(name) else find_checkpoint(name))
    return loaded, loaded.spec.score, loaded.spec.deepspeed.precision


class OwnModel:
    """A model of ours, scored as its own job scores it unless another template is asked."""

    def __init__(self, name: str, device: torch.device, dtype: str, template: Template) -> None:
        """Load it. Raises DataError or ConfigError if the checkpoint cannot be used."""
        from jobs.evaluation import template_ids

        loaded, scored, precision = _load(name)
        # Stored weights are the float32 masters; the job itself runs and scores in its precision.
        self.dtype = choose_dtype(dtype, _DTYPES[precision], device)
        if template == "answer":
            raise ConfigError(
                "--template answer: models of mirsweep know plain and chat; score a folder of "
                "transformers, or leave the option out"
            )
        self.template: str = scored.template if template == "auto" else template
        self._model = loaded.model.to(device, self.dtype)
        self._tokenizer, self._image_processor = loaded.tokenizer, loaded.image_processor
        self._prefix, self._between, self._after = template_ids(
            self.template, self._tokenizer, self._model.prefix_ids
        )
        language: Any = self._model.language
        self.text_config: Any = language.config
        self.subject = Subject(
            module=self._model,
            forward=self._forward,
            decoder_layers=self._model.decoder_layers,
            final_norm=self._model.final_norm,
            hidden_size=int(self.text_config.hidden_size),
        )
        self._vision_tokens: int | None = None

    def longest(self, pairs: EvaluationPairs, max_text_tokens: int | None) -> int:
        """How many tokens the longest pair has."""
        longest = max(len(self._text_ids(text, max_text_tokens)) for text in pairs.texts)
        return len(self._prefix) + self._count_vision(pairs) + longest

    def batch(self, pairs: EvaluationPairs, numbers: list[int], limit: int | None) -> Batch:
        """One forward pass of these pairs."""
        from jobs.evaluation import pad_rows

        rows = [self._text_ids(pairs.texts[number], limit) for number in numbers]
        ids_BT, mask_BT = pad_rows(rows)
        before = len(self._prefix)
        width = before + self._count_vision(pairs) + ids_BT.shape[1]
        vision_BS = torch.zeros(len(numbers), width, dtype=torch.bool)
        vision_BS[:, before : width - ids_BT.shape[1]] = True
        text_BS = torch.zeros_like(vision_BS)
        text_BS[:, width - ids_BT.shape[1] :] = mask_BT
        inputs = {"pixels": self._pixels(pairs, numbers), "ids": ids_BT, "mask": mask_BT}
        return Batch(inputs=inputs, vision=vision_BS, text=text_BS, pairs=numbers)

    def _forward(self, inputs: Mapping[str, Any]) -> None:
        features_BVF = self._model.encode(inputs["pixels"])
        tokens = self._model.sequence(features_BVF, inputs["ids"], inputs["mask"], self._prefix)
        self._model.run_decoder(tokens)

    def _text_ids(self, text: str, limit: int | None) -> list[int]:
        ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return [*self._between, *ids["input_ids"][:limit], *self._after]

    def _pixels(self, pairs: EvaluationPairs, numbers: list[int]) -> torch.Tensor:
        pictures = [pairs.picture(number) for number in numbers]
        pixels: torch.Tensor = self._image_processor(images=pictures, return_tensors="pt")[
            "pixel_values"
        ]
        return pixels

    @torch.no_grad()
    def _count_vision(self, pairs: EvaluationPairs) -> int:
        """Vision tokens a picture, after the projector; the same for all pictures."""
        if self._vision_tokens is None:
            pixels = self._pixels(pairs, [0]).to(self.subject.device)
            vision_1VD = self._model.projector(self._model.encode(pixels))
            self._vision_tokens = int(vision_1VD.shape[1])
        return self._vision_tokens
