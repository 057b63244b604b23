"""Any image-text model of transformers, from a local folder or by its hub name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.export import calibration
from mir.capture import Batch, Subject
from mir.errors import DataError, EmptyModalityError
from mir.families import find_subject, image_token_id, token_positions
from orchestrator.scoring.inputs import EvaluationPairs
from orchestrator.scoring.place import choose_dtype
from orchestrator.scoring.processor import Prompt, Template, load_processor, picture_marks
from orchestrator.scoring.refusals import in_one_line, require_folder


class HubModel:
    """A model and its processor, loaded to be scored; `template` is the one of its Prompt."""

    def __init__(
        self, name: str, device: torch.device, dtype: str, template: Template, trust: bool
    ) -> None:
        """Load both. Raises DataError if that fails, ModelError if the model cannot be scored."""
        from transformers import AutoConfig
        from transformers.utils import logging

        require_folder(name)
        # What matters of its warnings, missing weights, is an error here.
        logging.set_verbosity_error()
        if not sys.stderr.isatty():
            logging.disable_progress_bar()
        with in_one_line(name, "the config of an image-text model"):
            config = AutoConfig.from_pretrained(name, trust_remote_code=trust)
        self.text_config: Any = config.get_text_config()
        stored = getattr(config, "dtype", None) or getattr(self.text_config, "dtype", None)
        self.dtype = choose_dtype(dtype, stored or torch.float32, device)
        with in_one_line(name, "a processor"):
            processor = load_processor(name, config, trust)
        model = _load_model(name, self.dtype, trust)
        self._image_token_id = image_token_id(model)
        if (Path(name) / calibration.SETTINGS).is_file():
            calibration.attach_moca(model, Path(name))
        self.subject: Subject = find_subject(model)
        model.to(device)
        self._prompt = Prompt(processor, template)
        self._marks = picture_marks(processor, config, self._image_token_id)
        self.template = self._prompt.name

    def longest(self, pairs: EvaluationPairs, max_text_tokens: int | None) -> int:
        """About how many tokens the longest pair has, from the first picture and all texts."""
        first = self._inputs(pairs, [0])["input_ids"].shape[1]
        longest = self._prompt.length(pairs.texts)
        return int(first) + min(longest, max_text_tokens or longest)

    def batch(self, pairs: EvaluationPairs, numbers: list[int], limit: int | None) -> Batch:
        """One forward pass of these pairs; text beyond the limit is not even computed."""
        encoded = self._inputs(pairs, numbers)
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        try:
            vision, text = token_positions(ids, mask, self._image_token_id, limit, self._marks)
        except EmptyModalityError as error:
            raise DataError(f"pairs {[number + 1 for number in numbers]}: {error}") from error
        width = int((vision | text).any(0).nonzero().max()) + 1
        inputs = {
            name: value[:, :width]
            if isinstance(value, Tensor) and value.shape == ids.shape
            else value
            for name, value in encoded.items()
        }
        return Batch(inputs=inputs, vision=vision[:, :width], text=text[:, :width], pairs=numbers)

    def _inputs(self, pairs: EvaluationPairs, numbers: list[int]) -> dict[str, Any]:
        texts = [pairs.texts[number] for number in numbers]
        for number, text in zip(numbers, texts, strict=True):
            self._prompt.refuse_special(text, number)
        return self._prompt.inputs([pairs.picture(number) for number in numbers], texts)


def _load_model(name: str, dtype: torch.dtype, trust: bool) -> Any:
    """The model with all the weights that a score depends on: random ones would score as well."""
    from transformers import AutoModelForImageTextToText

    with in_one_line(name, "an image-text model"):
        model, loaded = AutoModelForImageTextToText.from_pretrained(
            name, dtype=dtype, trust_remote_code=trust, output_loading_info=True
        )
    head = model.get_output_embeddings()
    unused = tuple(f"{path}." for path, module in model.named_modules() if module is head)
    missing = sorted(key for key in loaded["missing_keys"] if not key.startswith(unused))
    if missing:
        raise DataError(
            f"{name}: {len(missing)} weights are not in its files ({missing[0]}, ...), so they "
            "would be random; give the folder that holds all of the model"
        )
    return model
