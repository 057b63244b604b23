"""Captures the hidden states of vision and text tokens while a model runs.

Legend: B sequences of a batch, T positions, N tokens of all batches, D hidden size.
The states equal transformers' `output_hidden_states[1:]`: the output of each decoder layer, the
last one after the final norm. Only the selected tokens are copied, so memory grows with N, not
with the padded B x T, and attention weights are never asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mir.errors import MirError
from mir.layer import Pairs


@dataclass(frozen=True)
class _Selection:
    """Flat positions (row x T + column) of the next forward, vision first, then text."""

    shape: tuple[int, int]
    rows: Tensor
    vision: int


class LayerProbe:
    """Context manager that records the tokens named by `positions` in every decoder layer.

    decoder_layers: the language model's layers, in order. Modules such as MoCa that change a
        layer's output by a hook must be attached before the probe is entered.
    final_norm: module whose output (or first output, so the whole decoder will do) is the state
        after the final norm, the last entry; None where the model has no such norm.
    store: device on which captured tokens are kept, None for the one they were computed on.
    only: 1-based layers to capture, None for all (layer groups in several passes).

    Forwards without a preceding `positions` are not recorded.
    """

    def __init__(
        self,
        decoder_layers: Sequence[nn.Module],
        final_norm: nn.Module | None,
        *,
        store: torch.device | str | None = None,
        only: Collection[int] | None = None,
    ) -> None:
        self._count = len(decoder_layers)
        wanted = range(1, self._count + 1) if only is None else sorted(set(only))
        if not wanted or wanted[0] < 1 or wanted[-1] > self._count:
            raise MirError(f"layers {list(wanted)} asked for; the model has 1 to {self._count}")
        last = decoder_layers[-1] if final_norm is None else final_norm
        self._sources = {k: decoder_layers[k - 1] if k < self._count else last for k in wanted}
        self._end = last
        self._store = store
        self._selection: _Selection | None = None
        self._handles: list[RemovableHandle] = []
        self._vision: dict[int, list[Tensor]] = {k: [] for k in wanted}
        self._text: dict[int, list[Tensor]] = {k: [] for k in wanted}
        self._vision_pairs: list[Tensor] = []
        self._text_pairs: list[Tensor] = []

    def __enter__(self) -> Self:
        for layer, module in self._sources.items():
            self._handles.append(module.register_forward_hook(self._recorder(layer)))
        self._handles.append(self._end.register_forward_hook(self._forget_positions))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._selection = None

    def positions(
        self, vision_mask_BT: Tensor, text_mask_BT: Tensor, pair_index_B: Tensor | Sequence[int]
    ) -> None:
        """Say which positions of the next forward are vision and text tokens, and of which pair.

        The masks may be all False (a rank that only keeps step with the others). Pair indices are
        global pair numbers.
        """
        vision_BT, text_BT = vision_mask_BT.bool(), text_mask_BT.bool()
        pairs_B = torch.as_tensor(pair_index_B, dtype=torch.long)
        if vision_BT.shape != text_BT.shape or vision_BT.shape[:1] != pairs_B.shape:
            raise MirError(
                f"masks {tuple(vision_BT.shape)} and {tuple(text_BT.shape)} and "
                f"{pairs_B.numel()} pair indices do not describe one batch"
            )
        pairs_BT = pairs_B[:, None].expand(vision_BT.shape)
        self._vision_pairs.append(pairs_BT[vision_BT.cpu()])
        self._text_pairs.append(pairs_BT[text_BT.cpu()])
        flat_vision = vision_BT.flatten().nonzero().flatten()
        flat_text = text_BT.flatten().nonzero().flatten()
        self._selection = _Selection(
            shape=(vision_BT.shape[0], vision_BT.shape[1]),
            rows=torch.cat([flat_vision, flat_text]),
            vision=len(flat_vision),
        )

    def pairs(self) -> Pairs:
        """Pair number of each captured vision and text token, [N] each, on the host."""
        empty = torch.empty(0, dtype=torch.long)
        return torch.cat([empty, *self._vision_pairs]), torch.cat([empty, *self._text_pairs])

    def layers(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Vision and text tokens (vision_ND, text_ND) of each captured layer, in layer order.

        The probe forgets a layer as it hands it out, so that tokens are never kept twice. Raises
        MirError, before the first layer, if a forward did not pass through one.
        """
        announced = tuple(len(pairs) for pairs in self.pairs())
        for layer in self._sources:
            if not self._vision[layer]:
                raise MirError(
                    f"layer {layer} saw no forward after positions were set, or its tokens were "
                    "handed out already"
                )
            seen = tuple(sum(map(len, kept[layer])) for kept in (self._vision, self._text))
            if seen != announced:
                raise MirError(
                    f"layer {layer} saw {seen[0]} vision and {seen[1]} text tokens, "
                    f"{announced[0]} and {announced[1]} were announced: a forward left the layer "
                    "out"
                )
        for layer in self._sources:
            yield _taken(self._vision, layer), _taken(self._text, layer)

    def clear(self) -> None:
        """Forget what was captured."""
        for store in (self._vision, self._text):
            for tokens in store.values():
                tokens.clear()
        self._vision_pairs.clear()
        self._text_pairs.clear()

    def _recorder(self, layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001
            selection = self._selection
            if selection is None:
                return
            hidden_BTD = output if isinstance(output, Tensor) else output[0]
            if tuple(hidden_BTD.shape[:2]) != selection.shape:
                raise MirError(
                    f"layer {layer} has shape {tuple(hidden_BTD.shape)}, but the positions are "
                    f"for {selection.shape}: the model changes the sequence, which the probe "
                    "cannot follow"
                )
            rows = selection.rows.to(hidden_BTD.device)
            kept_ND = hidden_BTD.detach().flatten(0, 1).index_select(0, rows)
            kept_ND = kept_ND.to(self._store or kept_ND.device)
            self._vision[layer].append(kept_ND[: selection.vision])
            self._text[layer].append(kept_ND[selection.vision :])

        return record

    def _forget_positions(self, module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG002
        self._selection = None


def _taken(kept: dict[int, list[Tensor]], layer: int) -> Tensor:
    """The layer's tokens as one tensor; the probe keeps none of them."""
    parts, kept[layer] = kept[layer], []
    return parts[0] if len(parts) == 1 else torch.cat(parts)
