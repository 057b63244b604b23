"""The result of a score as a plain value: no tensors, JSON both ways."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from mir.errors import ProtocolError

Variant = Literal["exact", "paper-accurate", "paper-fast"]
VARIANTS: tuple[Variant, ...] = get_args(Variant)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What two scores must share before they may be compared.

    variant: which distance was computed.
    pairs: number of image-text pairs N (the distance is biased upwards for small N).
    pairs_digest: hash of the evaluation images and texts, in order.
    template: name of the chat template that joined image and text.
    max_text_tokens: limit on text tokens a pair, None for none.
    layers: which decoder layers were scored, 1-based, the last after the final norm.
    """

    variant: Variant
    pairs: int | None = None
    pairs_digest: str | None = None
    template: str | None = None
    max_text_tokens: int | None = None
    layers: tuple[int, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that are equal only for equal protocols."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One decoder layer's part of the score.

    distance: squared Frechet distance in units of squared scaled activation.
    share: this layer's part of the sum over layers, 0 to 1.
    text_scale: the factor a = 1 / mean text norm.
    """

    layer: int
    distance: float
    share: float
    text_scale: float
    vision_tokens: int
    text_tokens: int
    vision_outliers: int
    text_outliers: int


@dataclass(frozen=True, kw_only=True)
class MirReport:
    """A Modality Integration Rate with everything needed to judge and compare it.

    mir: log10 of the sum of the layer distances; lower is better.
    standard_error: of `mir` over pairs, None where tokens were not attributed to pairs.
    aggregates: other ways to add up the layers, by name, beside the paper's sum.
    seconds: wall time of the computation, features excluded.
    """

    mir: float
    standard_error: float | None
    protocol: Protocol
    layers: tuple[LayerReport, ...]
    aggregates: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def variant(self) -> Variant:
        """The variant of the distance that was computed."""
        return self.protocol.variant

    @property
    def fingerprint(self) -> str:
        """The protocol's fingerprint; only equal ones may be compared."""
        return self.protocol.fingerprint

    @property
    def per_layer(self) -> tuple[float, ...]:
        """Distances in layer order."""
        return tuple(layer.distance for layer in self.layers)

    def require_comparable(self, other: MirReport) -> None:
        """Raise ProtocolError unless both scores follow one protocol."""
        if self.fingerprint == other.fingerprint:
            return
        mine, theirs = asdict(self.protocol), asdict(other.protocol)
        different = [f"{k} {mine[k]!r} against {theirs[k]!r}" for k in mine if mine[k] != theirs[k]]
        raise ProtocolError(
            "scores of different protocols cannot be compared: " + "; ".join(different)
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable dictionary; `from_json` restores an equal report."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> MirReport:
        """Restore a report that `to_json` wrote (lists are taken for tuples)."""
        protocol = {**data["protocol"], "layers": tuple(data["protocol"]["layers"])}
        return cls(
            mir=data["mir"],
            standard_error=data["standard_error"],
            protocol=Protocol(**protocol),
            layers=tuple(LayerReport(**layer) for layer in data["layers"]),
            aggregates=dict(data["aggregates"]),
            seconds=data["seconds"],
        )
