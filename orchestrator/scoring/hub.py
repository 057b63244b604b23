"""Any image-text model of transformers, from a local folder or by its hub name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mir.capture import Batch, Subject
from mir.errors import DataError
from mir.families import find_subject, image_token_id, token_positions
from orchestrator.scoring.inputs import EvaluationPairs
from orchestrator.scoring.place import choose_dtype


class HubModel:
    """A model and its processor, loaded to be scored.

    template: 'chat' where the processor has a chat template, else 'plain' (image, newline, text).
    """

    def __init__(self, name: str, device: torch.device, dtype: str, trust: bool) -> None:
        """Load both. Raises DataError if that fails, MirError if the model cannot be scored."""
        from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging

        _require_folder(name)
        if not sys.stderr.isatty():
            logging.disable_progress_bar()
        common = {"trust_remote_code": trust}
        config = _loaded(name, AutoConfig, **common)
        stored = getattr(config, "dtype", None) or torch.float32
        self.dtype = choose_dtype(dtype, stored, device)
        self._processor: Any = _loaded(name, AutoProcessor, **common)
        model = _loaded(name, AutoModelForImageTextToText, dtype=self.dtype, **common)
        self._image_token_id = image_token_id(model)
        self.subject: Subject = find_subject(model)
        model.to(device)
        self.text_config: Any = config.get_text_config()
        tokenizer = self._processor.tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        self.template = "chat" if getattr(self._processor, "chat_template", None) else "plain"

    def longest(self, pairs: EvaluationPairs, max_text_tokens: int | None) -> int:
        """About how many tokens the longest pair has, from the first picture and all texts."""
        first = self._encoded(pairs, [0])["input_ids"].shape[1]
        texts = self._processor.tokenizer(list(pairs.texts))["input_ids"]
        longest = max(len(ids) for ids in texts)
        return int(first) + min(longest, max_text_tokens or longest)

    def batch(self, pairs: EvaluationPairs, numbers: list[int], limit: int | None) -> Batch:
        """One forward pass of these pairs; text beyond the limit is not even computed."""
        encoded = self._encoded(pairs, numbers)
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        vision, text = token_positions(ids, mask, self._image_token_id, limit)
        width = int((vision | text).any(0).nonzero().max()) + 1
        inputs = {
            name: value[:, :width]
            if isinstance(value, Tensor) and value.shape == ids.shape
            else value
            for name, value in encoded.items()
        }
        return Batch(inputs=inputs, vision=vision[:, :width], text=text[:, :width], pairs=numbers)

    def _encoded(self, pairs: EvaluationPairs, numbers: list[int]) -> dict[str, Any]:
        images = [[pairs.picture(number)] for number in numbers]
        texts = [self._checked(pairs.texts[number], number) for number in numbers]
        options = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        if self.template == "plain":
            prompts = [f"{self._processor.image_token}\n{text}" for text in texts]
            return dict(self._processor(images=images, text=prompts, **options))
        conversations = [
            [
                {
                    "role": "user",
                    "content": [{"type": "image", "image": image}, {"type": "text", "text": text}],
                }
            ]
            for (image,), text in zip(images, texts, strict=True)
        ]
        return dict(
            self._processor.apply_chat_template(
                conversations,
                add_generation_prompt=True,
                tokenize=True,
                return_dict=True,
                processor_kwargs=options,
            )
        )

    def _checked(self, text: str, number: int) -> str:
        marker = str(self._processor.image_token)
        if marker in text:
            raise DataError(
                f"text {number + 1} contains {marker!r}, which this model takes for a picture; "
                "remove it from the text"
            )
        return text


def _require_folder(name: str) -> None:
    """A hub name has one slash at most; anything else that does not exist is a misspelt path."""
    looks_like_path = Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1
    if looks_like_path and not Path(name).is_dir():
        raise DataError(f"{name}: there is no such folder; correct the path or give a hub name")


def _loaded(name: str, kind: Any, **options: Any) -> Any:
    """`kind.from_pretrained` with its many errors turned into one line."""
    try:
        return kind.from_pretrained(name, **options)
    except (OSError, ValueError, ImportError, KeyError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "give a folder of transformers, a hub name or a checkpoint of mirsweep"
        if "trust_remote_code" in str(error):
            remedy = "it needs code of its own; add --trust-remote-code only if you trust it"
        elif Path(name).is_dir():
            remedy = "the folder must hold an image-text model with its processor"
        raise DataError(
            f"{name}: cannot be loaded as {kind.__name__}: {first}; {remedy}"
        ) from error
