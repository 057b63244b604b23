"""The word-level tokenizer of the embedded world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.world import captions, questions, scenes, texts
from jobs.world.corpus import document_at

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK = SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
_SCANNED = 4000  # documents read to collect the words of the sentence patterns


def words() -> tuple[str, ...]:
    """Every word that the world can say, sorted."""
    known: set[str] = set()
    lists = (
        *(captions.GLYPH_WORDS, captions.NUMBERS, captions.PLACES, questions.ANSWERS),
        *(scenes.SHAPES, tuple(scenes.COLOURS), tuple(scenes.SIZES)),
        *(texts.HE, texts.SHE, texts.TRADES, texts.HOMES, texts.GOALS, texts.THINGS),
        *(texts.ANIMALS, texts.ADJECTIVES, texts.WEATHER, texts.TIMES, texts.FEELINGS),
        *(texts.GOODS, texts.AMOUNTS),
    )
    for phrase in (phrase for phrases in lists for phrase in phrases):
        known.update(phrase.split())
    for index in range(_SCANNED):
        document = document_at("train", index)
        known.update(document.body.split(), *document.groups)
    return tuple(sorted(known))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Splits lower-cased text at blanks and punctuation, puts <s> in front; some 260 words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate((*SPECIAL, *words()))}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=UNK))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, numbers[BOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=512,
        padding_side="right",
    )
