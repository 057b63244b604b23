"""A model's processor: how it is loaded, its tokens for pictures, how it joins a pair."""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

from mir.errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Template = Literal["auto", "chat", "answer", "plain"]
_MARK = re.compile(r"(image|img|vision|boi|eoi).*_token(_id|_index)?$")
_IMAGE_TOKEN = ("image_token", "image_token_id", "image_token_index")
_PROBE = "\u2420"


def load_processor(name: str, config: Any, trust: bool) -> Any:
    """The processor of the model in `name`, for pictures and text.

    Without torchvision transformers makes no video processor, and without that none of the
    families that also take videos. MIR needs pictures only, so it is left out then.
    """
    from transformers import PROCESSOR_MAPPING, AutoProcessor
    from transformers.utils import is_torchvision_available

    kind = PROCESSOR_MAPPING.get(type(config), None)
    takes_videos = kind is not None and "video_processor" in kind.get_attributes()
    if takes_videos and not is_torchvision_available():
        return without_videos(kind).from_pretrained(name)
    return AutoProcessor.from_pretrained(name, trust_remote_code=trust)


def without_videos(kind: Any) -> Any:
    """The processor class `kind`, saved and loaded under its own name without its video part."""

    class PicturesOnly(kind):
        # SmolVLM asks its video processor for these two before any video is there.
        video_processor = SimpleNamespace(num_frames=None, fps=None)

        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in kind.get_attributes() if name != "video_processor"]

        @classmethod
        def from_args_and_dict(
            cls, args: list[Any], processor_dict: dict[str, Any], **options: Any
        ) -> Any:
            settings = {**processor_dict, "video_processor": None}
            return super().from_args_and_dict(args, settings, **options)

    PicturesOnly.__name__ = kind.__name__
    return PicturesOnly


def picture_marks(processor: Any, config: Any, image_token_id: int) -> frozenset[int]:
    """Ids of the tokens that bracket or number pictures without holding any of their features.

    Families name them alike: fake_image_token, vision_end_token_id, end_image_token, eoi_token.
    """
    tokenizer = processor.tokenizer
    named = {**config.to_dict(), **vars(processor)}
    marks = set()
    for name, value in named.items():
        if _MARK.search(name) and name not in _IMAGE_TOKEN:
            found = tokenizer.convert_tokens_to_ids(value) if isinstance(value, str) else value
            if isinstance(found, int) and found != tokenizer.unk_token_id:
                marks.add(found)
    return frozenset(marks - {image_token_id})


class Prompt:
    """Joins pictures and texts into model inputs.

    template: `chat`, text beside the picture in the user's turn, then the head of the answer;
    `answer`, text as the answer to a turn with only the picture, as the paper's code does;
    `plain`, text right after the picture. What was asked for, or for `auto` chat where the
    processor has a chat template, else plain.
    name: what a protocol calls it. The chat template of our exports has no turns: it is plain, and
    knows the token that begins a sequence, which not every tokenizer adds.
    """

    def __init__(self, processor: Any, wanted: Template) -> None:
        """Raises ConfigError or DataError if the template cannot be used."""
        from jobs.export.llava import PLAIN

        self._processor, self._tokenizer = processor, processor.tokenizer
        self._place = str(getattr(processor, "image_token", None) or "")
        has_chat = bool(getattr(processor, "chat_template", None))
        if not self._place:
            raise DataError(
                f"{type(processor).__name__} names no image token; MIR needs the picture's place"
            )
        if wanted in ("chat", "answer") and not has_chat:
            raise ConfigError(
                f"--template {wanted}: this model's processor has no chat template; use plain"
            )
        self.template: str = wanted if wanted != "auto" else "chat" if has_chat else "plain"
        self.name: str = self.template
        if wanted in ("auto", "plain") and str(processor.chat_template).endswith(PLAIN):
            self.template, self.name = "chat", "plain"
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._special = self._special_tokens()
        self._check_order()

    def inputs(self, pictures: Sequence[Image], texts: Sequence[str]) -> dict[str, Any]:
        """Right-padded model inputs of these pairs, tensors on the host."""
        options = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        if self.template == "plain":
            prompts = [self._place + text for text in texts]
            images = [[picture] for picture in pictures]
            return dict(self._processor(images=images, text=prompts, **options))
        talks = [self._talk(text, image=image) for image, text in zip(pictures, texts, strict=True)]
        # SmolVLM's own version overwrites the tensors in its options with this argument's default.
        return dict(
            self._processor.apply_chat_template(
                talks,
                add_generation_prompt=self.template == "chat",
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                processor_kwargs=options,
            )
        )

    def refuse_special(self, text: str, number: int) -> None:
        """Raise DataError if text `number` (from 0) holds a special token of the tokenizer."""
        found = next((token for token in self._special if token in text), None)
        if found is not None:
            raise DataError(
                f"--texts: text {number + 1} contains {found!r}, which this model takes for a "
                "special token; remove it from the text"
            )

    def length(self, texts: Sequence[str]) -> int:
        """Tokens of the longest text by itself."""
        return max(len(ids) for ids in self._tokenizer(list(texts))["input_ids"])

    def _talk(self, text: str, **image: Any) -> list[dict[str, Any]]:
        picture = {"type": "image", **image}
        words = {"type": "text", "text": text}
        if self.template == "chat":
            return [{"role": "user", "content": [picture, words]}]
        return [
            {"role": "user", "content": [picture]},
            {"role": "assistant", "content": [words]},
        ]

    def _special_tokens(self) -> list[str]:
        added = self._tokenizer.added_tokens_decoder.values()
        named = {token.content for token in added if token.special} | {self._place}
        named |= {token for token in self._tokenizer.all_special_tokens if token}
        return sorted(named)

    def _check_order(self) -> None:
        """Text before its picture would leave only template tokens to be scored as text."""
        if self.template == "plain":
            return
        prompt = self._processor.apply_chat_template(
            [self._talk(_PROBE)], add_generation_prompt=self.template == "chat", tokenize=False
        )[0]
        place, words = prompt.find(self._place), prompt.find(_PROBE)
        if place < 0 or words < place:
            fault = "leaves out" if min(place, words) < 0 else "puts the text before"
            what = "the text" if words < 0 <= place else "the picture"
            raise DataError(
                f"--template {self.template}: this model's chat template {fault} {what}; use plain"
            )
