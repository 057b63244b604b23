"""The parts of a model that do not learn: named by source and digest, never copied."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from jobs.model.names import MARK, plain_name, wrapped_name
from jobs.spec import JobSpec
from mir.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

_LOADED = ("vision.", "language.")
_FIELDS = {"digest": "weights", "buffers": "buffers"}
_STRIPES = 64
_WORDS = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}


@dataclass(frozen=True, kw_only=True)
class FrozenPart:
    """What of one part was held fixed.

    source: where the weights came from. parameters: how many of them were frozen.
    digest: sixteen hexadecimal digits over names, shapes and values (see `digest_of`).
    buffers: the same over what was loaded beside parameters, such as statistics of batch norms,
        which never learn; None where there was none, and in checkpoints that do not know of it.
    """

    source: str
    parameters: int
    digest: str
    buffers: str | None = None


def frozen_parts(model: nn.Module, spec: JobSpec) -> dict[str, FrozenPart]:
    """The frozen weights and buffers of every part that has any, by the part's name.

    model: as it was built and started from, before an engine splits it over ranks.
    """
    frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
    return _parts(frozen, _buffers(model), spec)


def frozen_beside(
    trained: Collection[str], model: nn.Module, spec: JobSpec
) -> dict[str, FrozenPart]:
    """What `frozen_parts` gave in the job `spec`, which trained the parameters `trained`, if
    `model` holds its frozen weights, whatever learns in `model`.
    """
    parameters, buffers = (
        {wrapped_name(plain_name(n), trained): t for n, t in named.items() if MARK not in n}
        for named in (dict(model.named_parameters()), _buffers(model))
    )
    return _parts({n: p for n, p in parameters.items() if n not in trained}, buffers, spec)


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """What a part from elsewhere keeps beside parameters. What is computed as a model is built,
    like the length of its words, differs in its last bits between machines."""
    own = dict(model.named_buffers())
    return {n: own[n] for n in model.state_dict() if n in own and n.startswith(_LOADED)}


def _parts(
    frozen: Mapping[str, Tensor], buffers: Mapping[str, Tensor], spec: JobSpec
) -> dict[str, FrozenPart]:
    weights, beside = _by_part(frozen), _by_part(buffers)
    return {
        part: FrozenPart(
            source=_source(part, spec),
            parameters=sum(p.numel() for p in weights.get(part, {}).values()),
            digest=digest_of(weights.get(part, {}).items()),
            buffers=digest_of(beside[part].items()) if part in beside else None,
        )
        for part in weights | beside
    }


def _by_part(named: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors by part, and by their names within it."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in named.items():
        part, _, within = name.partition(".")
        found.setdefault(part, {})[within] = tensor
    return found


def require_same_frozen(
    where: str, then: Mapping[str, FrozenPart], now: Mapping[str, FrozenPart]
) -> None:
    """Raise DataError if a frozen part is not what it was when the checkpoint `where` was made."""
    for (part, before), (field, what) in product(then.items(), _FIELDS.items()):
        after = now.get(part)
        was, found = getattr(before, field), after and getattr(after, field)
        if was not in (None, found):
            gives = f"gives {found} from {after.source}" if after and found else "has none"
            raise DataError(
                f"{where}: was trained on frozen {part} {what} of {before.source} with digest "
                f"{was}, the model now {gives}: bring those {what} back, or start anew in another "
                "folder"
            )


def digest_of(named: Iterable[tuple[str, Tensor]]) -> str:
    """A digest of names, shapes, types and values that runs at the speed of memory.

    Values enter as sums of their bits over 64 columns and 64 rows of each tensor, which finds
    weights that were replaced, trained on or rounded; it does not withstand a forger. Those of 16
    bits count as the float32 that they are read as elsewhere.
    """
    digest = hashlib.sha256()
    for name, given in sorted(named, key=lambda item: item[0]):
        tensor = given.float() if given.element_size() == 2 else given
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_sums(tensor))
    return digest.hexdigest()[:16]


def _sums(tensor: Tensor) -> bytes:
    import torch

    flat = tensor.detach().cpu().contiguous().flatten()
    words = flat.view(getattr(torch, _WORDS[flat.element_size()]))
    whole = len(words) // _STRIPES * _STRIPES
    body, rest = words[:whole].view(_STRIPES, -1), words[whole:]
    sums = [
        body.sum(1, dtype=torch.int64),
        words[:whole].view(-1, _STRIPES).sum(0, dtype=torch.int64),
        rest.to(torch.int64),
    ]
    return torch.cat(sums).numpy().tobytes()


def _source(part: str, spec: JobSpec) -> str:
    names = {"vision": str(spec.model.vision), "language": str(spec.model.language)}
    own = str(names.get(part, "the first job's seed"))
    return own if spec.start is None else f"{own}, then {spec.start}"
