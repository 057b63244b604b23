"""Vision encoder -> projector -> causal language model, fed by input embeddings.

Legend: B samples, P prefix tokens before the picture, V vision tokens, T text tokens after it,
S = P + V + T positions, D hidden size, F width of vision features, K vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch import Tensor, nn

from jobs.data.batch import Batch
from jobs.model.language import decoder_parts
from jobs.model.learning import Learning
from jobs.model.names import part_of
from mir.moca import Moca


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """One batch as the language model sees it: `[prefix][vision][text]`.

    Shapes: embeds [B, S, D]; vision_mask, text_mask [B, S] bool. The prefix and padding belong to
    neither mask.
    """

    embeds: Tensor
    vision_mask: Tensor
    text_mask: Tensor


class Llava(nn.Module):
    """A LLaVA-style model of three parts, and MoCa as a fourth where it is attached.

    learning: what learns. All else has no gradients, stays in evaluation mode whatever `train()`
        is told, and runs without building a graph where nothing before it learns.
    prefix_ids: tokens before the picture in training (the beginning-of-sequence token, if any).

    No attention mask is passed: text is padded on the right, so a causal model never sees padding
    from a real token, and the numbers do not depend on how a batch was padded.
    """

    def __init__(
        self,
        *,
        vision: nn.Module,
        projector: nn.Module,
        language: nn.Module,
        learning: Learning,
        prefix_ids: Sequence[int],
        moca: Moca | None = None,
    ) -> None:
        super().__init__()
        self.vision, self.projector, self.language = vision, projector, language
        self.moca = moca
        self._modes = learning.modules
        self.prefix_ids = tuple(prefix_ids)
        for parameter in self.parameters():
            parameter.requires_grad_(parameter in learning.parameters)
        self.train(False)

    @property
    def decoder_layers(self) -> Sequence[nn.Module]:
        """The language model's decoder layers, in order."""
        return decoder_parts(self.language)[0]

    @property
    def final_norm(self) -> nn.Module | None:
        """The norm after the last decoder layer."""
        return decoder_parts(self.language)[1]

    @property
    def frozen_vision(self) -> bool:
        """Whether vision features are the same throughout training."""
        return not any(p.requires_grad for p in self.vision.parameters())

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """What learns, by part ('vision', 'projector', 'language', 'lora', 'moca').

        The order is that of `named_parameters`; a part without learning parameters is left out.
        """
        groups: dict[str, list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(part_of(name), []).append(parameter)
        return groups

    def trainable_counts(self) -> dict[str, int]:
        """Number of trainable parameters by part, parts that learn only."""
        return {part: sum(map(_numel, ps)) for part, ps in self.parameter_groups().items()}

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what learns; what is frozen stays in evaluation mode.

        So do batch norms: their statistics are no parameters, would differ between ranks, and
        those of a few samples are worse than those of the encoder's pre-training.
        """
        super().train(False)
        self.training = mode
        for module in self._modes:
            module.train(mode)
            for norm in filter(_is_batch_norm, module.modules()):
                norm.eval()
        return self

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """Vision features [B, V, F] of pictures [B, 3, H, W].

        A frozen encoder takes them one by one on the CPU, as the feature cache does everywhere:
        kernels round differently for other batch sizes, and the numbers must not depend on the
        cache. On a GPU that would cost too much; there the last bits may differ.
        """
        pixels = pixels_BCHW.to(next(self.vision.parameters()).dtype)
        if not self.frozen_vision:
            learnt: Tensor = self.vision(pixels)
            return learnt
        size = 1 if pixels.device.type == "cpu" else len(pixels)
        with torch.no_grad():
            return torch.cat([self.vision(some) for some in pixels.split(size)])

    def sequence(
        self,
        features_BVF: Tensor,
        text_ids_BT: Tensor,
        text_mask_BT: Tensor,
        prefix_ids: Sequence[int] | None = None,
    ) -> Tokens:
        """Join prefix, projected picture and text. `prefix_ids` None takes the model's own."""
        vision_BVD = self.projector(features_BVF)
        prefix = self.prefix_ids if prefix_ids is None else tuple(prefix_ids)
        count, device = len(text_ids_BT), text_ids_BT.device
        before_BP = torch.tensor(prefix, dtype=torch.long, device=device).expand(count, -1)
        embed = self.language.get_input_embeddings()  # type: ignore[operator]
        words_BND = embed(torch.cat([before_BP, text_ids_BT], dim=1))
        before_BPD, text_BTD = words_BND.split([len(prefix), text_ids_BT.shape[1]], dim=1)
        vision_BV = torch.ones(vision_BVD.shape[:2], dtype=torch.bool, device=device)
        none_BP = torch.zeros_like(before_BP, dtype=torch.bool)
        return Tokens(
            embeds=torch.cat([before_BPD, vision_BVD.to(words_BND.dtype), text_BTD], dim=1),
            vision_mask=torch.cat([none_BP, vision_BV, torch.zeros_like(text_mask_BT)], dim=1),
            text_mask=torch.cat([none_BP, torch.zeros_like(vision_BV), text_mask_BT], dim=1),
        )

    def per_sample_loss(self, batch: Batch, features_BVF: Tensor | None = None) -> Tensor:
        """Mean cross-entropy over each sample's caption and end token, nats a token, [B] float32.

        features_BVF: vision features to use in place of the batch's pictures.
        """
        features = self._features(batch) if features_BVF is None else features_BVF
        tokens = self.sequence(features, batch.caption_ids, batch.caption_mask)
        count, length = batch.caption_ids.shape
        with self.calibrated(tokens):
            out: Any = self.language(
                inputs_embeds=tokens.embeds, use_cache=False, logits_to_keep=length + 1
            )
        logits_NK = out.logits[:, :-1].float().flatten(0, 1)
        losses = F.cross_entropy(logits_NK, batch.caption_ids.flatten(), reduction="none")
        mask = batch.caption_mask.to(losses.dtype)
        return (losses.view(count, length) * mask).sum(1) / mask.sum(1)

    def _features(self, batch: Batch) -> Tensor:
        return batch.pixel_values if batch.holds_features else self.encode(batch.pixel_values)

    def forward(self, batch: Batch) -> Tensor:
        """Mean over samples of each sample's mean token loss, a scalar.

        Every sample weighs the same whatever its length, so the loss of a global batch is the
        mean over its micro-batches, however they are spread over ranks and accumulation.
        """
        return self.per_sample_loss(batch).mean()

    def run_decoder(self, tokens: Tokens) -> None:
        """Run the decoder without its vocabulary head, for what hooks see on the way."""
        with self.calibrated(tokens):
            self.language.get_decoder()(  # type: ignore[operator]
                inputs_embeds=tokens.embeds, use_cache=False
            )

    @contextmanager
    def calibrated(self, tokens: Tokens) -> Iterator[None]:
        """Within: MoCa, if there is any, calibrates the vision tokens of this batch."""
        if self.moca is None:
            yield
            return
        with self.moca.positions(tokens.vision_mask):
            yield


def _is_batch_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm)


def _numel(parameter: nn.Parameter) -> int:
    """Size of a parameter, also where ZeRO-3 has taken its elements away."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
