"""The parts of a model that do not learn: named by source and digest, never copied."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.model.names import MARK, plain_name, wrapped_name
from jobs.spec import JobSpec
from mir.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

_STRIPES = 64
_WORDS = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}


@dataclass(frozen=True, kw_only=True)
class FrozenPart:
    """What of one part was held fixed.

    source: where the weights came from. parameters: how many of them were frozen.
    digest: sixteen hexadecimal digits over names, shapes and values (see `digest_of`).
    """

    source: str
    parameters: int
    digest: str


def frozen_parts(model: nn.Module, spec: JobSpec) -> dict[str, FrozenPart]:
    """The frozen weights of every part that has any, by the part's name.

    model: as it was built and started from, before an engine splits it over ranks.
    """
    return _parts(((n, p) for n, p in model.named_parameters() if not p.requires_grad), spec)


def frozen_beside(
    trained: Collection[str], model: nn.Module, spec: JobSpec
) -> dict[str, FrozenPart]:
    """What `frozen_parts` gave in the job `spec`, which trained the parameters `trained`, if
    `model` holds its frozen weights, whatever learns in `model`.
    """
    plain = {plain_name(n): p for n, p in model.named_parameters() if MARK not in n}
    named = {wrapped_name(name, trained): p for name, p in plain.items()}
    return _parts(((n, p) for n, p in named.items() if n not in trained), spec)


def _parts(frozen: Iterable[tuple[str, Tensor]], spec: JobSpec) -> dict[str, FrozenPart]:
    by_part: dict[str, list[tuple[str, Tensor]]] = {}
    for name, parameter in frozen:
        part, _, within = name.partition(".")
        by_part.setdefault(part, []).append((within, parameter))
    return {
        part: FrozenPart(
            source=_source(part, spec),
            parameters=sum(p.numel() for _, p in named),
            digest=digest_of(named),
        )
        for part, named in by_part.items()
    }


def require_same_frozen(
    where: str, then: Mapping[str, FrozenPart], now: Mapping[str, FrozenPart]
) -> None:
    """Raise DataError if a frozen part is not what it was when the checkpoint `where` was made."""
    for part, before in then.items():
        after = now.get(part)
        if after is None or after.digest != before.digest:
            found = "has none" if after is None else f"gives {after.digest} from {after.source}"
            raise DataError(
                f"{where}: was trained on frozen {part} weights of {before.source} with digest "
                f"{before.digest}, the model now {found}: bring those weights back, or start anew "
                "in another folder"
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
