"""Answers in words: greedy decoding of several prompts at once, with or without solved examples.

Legend: B prompts, S positions of a prompt, V vision tokens, F feature width, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from jobs.model.length import positions_of
from jobs.model.llava import Llava, Tokens
from mir.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A picture's features [V, F] and the tokens after it."""

    features: Tensor
    ids: Sequence[int]


def join_shots(model: Llava, prompts: Sequence[Sequence[Shot]]) -> Tokens:
    """`[prefix][picture][text][picture][text]...` for every prompt.

    All prompts have as many shots, and the n-th shots of all have equally many tokens: then there
    is no padding, and the answers do not depend on which prompts are answered together.
    """
    embed: Any = model.language.get_input_embeddings()  # type: ignore[operator]
    device = embed.weight.device
    count = len(prompts)

    def words(rows: Sequence[Sequence[int]]) -> Tensor:
        embedded: Tensor = embed(torch.tensor(rows, dtype=torch.long, device=device))
        return embedded

    pieces = [words([model.prefix_ids] * count)]
    seen = [torch.zeros(pieces[0].shape[:2], dtype=torch.bool, device=device)]
    for column in zip(*prompts, strict=True):
        features_BVF = torch.stack([shot.features for shot in column]).to(device)
        vision_BVD = model.projector(features_BVF).to(pieces[0].dtype)
        text_BTD = words([shot.ids for shot in column])
        pieces += [vision_BVD, text_BTD]
        seen.append(torch.ones(vision_BVD.shape[:2], dtype=torch.bool, device=device))
        seen.append(torch.zeros(text_BTD.shape[:2], dtype=torch.bool, device=device))
    vision_BS = torch.cat(seen, dim=1)
    return Tokens(embeds=torch.cat(pieces, dim=1), vision_mask=vision_BS, text_mask=~vision_BS)


def require_room(model: Llava, positions: int, shots: int) -> None:
    """Raise ConfigError where the language model cannot read that far."""
    most = positions_of(model)
    if most is not None and positions > most:
        raise ConfigError(
            f"evaluate.shots: a question after {shots} solved examples needs {positions} "
            f"positions, the language model has {most}: use fewer, or a lower max_new_tokens"
        )


@torch.no_grad()
def greedy(model: Llava, tokens: Tokens, limit: int, stop: int) -> list[list[int]]:
    """Each prompt's most likely next tokens, at most `limit`, without the token `stop`.

    The picture and the question are read once; every further token reads the kept keys and
    values. MoCa touches only vision tokens, so decoding passes it by.
    """
    language: Any = model.language
    embed = language.get_input_embeddings()
    with model.calibrated(tokens):
        out = language(inputs_embeds=tokens.embeds, use_cache=True, logits_to_keep=1)
    taken: list[Tensor] = []
    ended_B = torch.zeros(len(tokens.embeds), dtype=torch.bool, device=tokens.embeds.device)
    for _ in range(limit):
        next_B = out.logits[:, -1].argmax(dim=-1)
        ended_B = ended_B | (next_B == stop)
        taken.append(next_B)
        if bool(ended_B.all()) or len(taken) == limit:
            break
        out = language(
            inputs_embeds=embed(next_B).unsqueeze(1),
            past_key_values=out.past_key_values,
            use_cache=True,
            logits_to_keep=1,
        )
    rows: list[list[int]] = torch.stack(taken, dim=1).tolist()
    return [row[: row.index(stop)] if stop in row else row for row in rows]
