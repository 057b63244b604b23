"""Mixture weights under caps: how often a source may be seen."""

from __future__ import annotations

from collections.abc import Mapping

from mir.errors import ConfigError


def capped_weights(
    weights: Mapping[str, float],
    sizes: Mapping[str, int],
    max_epochs: Mapping[str, float],
    samples: int,
) -> dict[str, float]:
    """Weights that sum to 1 and keep every capped source within its epochs over `samples`.

    What a cap takes from a source goes to the others in proportion to their weights. Shares of a
    mixture are kept to within a few samples at any time, and so are caps.
    Raises ConfigError where the caps leave less than `samples` to see.
    """
    used = {name: weight for name, weight in weights.items() if weight > 0}
    room = {
        name: max_epochs[name] * sizes[name] / samples if name in max_epochs else 1.0
        for name in used
    }
    if sum(room.values()) < 1 - 1e-9:
        most = int(sum(room.values()) * samples)
        raise ConfigError(
            f"data.max_epochs: leaves {most:,} samples to see, the run asks for {samples:,}: "
            f"raise it, lower optim.samples to {most} or less, or add data"
        )
    full: dict[str, float] = {}
    while True:
        free = {name: weight for name, weight in used.items() if name not in full}
        scale = (1 - sum(full.values())) / max(sum(free.values()), 1e-300)
        over = {name: room[name] for name, weight in free.items() if weight * scale > room[name]}
        if not over:
            shares = full | {name: weight * scale for name, weight in free.items()}
            return {name: shares.get(name, 0.0) for name in weights}
        full |= over
