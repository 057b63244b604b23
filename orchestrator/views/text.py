"""How numbers, settings and times read, everywhere a person sees them."""

from __future__ import annotations

import math
from collections.abc import Mapping

MIXTURE = "mixture/"


def number(value: float | None, digits: int = 3) -> str:
    """Three significant digits without needless zeros; '-' for None, 'nan' for what is not finite.

    >>> number(0.00123), number(2.5), number(12345.6), number(None)
    ('1.23e-3', '2.5', '12346', '-')
    """
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -2 or size > 6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        if "." in mantissa:
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa}e{int(exponent)}"
    text = f"{value:.{max(0, digits - 1 - size)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: int) -> str:
    """Thousands separated: 40,960."""
    return f"{value:,}"


def plus_minus(value: float | None, error: float | None) -> str:
    """'2.41 ± 0.03', or the value alone where the error is unknown."""
    if value is None or not math.isfinite(value):
        return number(value)
    return f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"


def duration(seconds: float) -> str:
    """'41 s', '3 min 20 s', '2 h 05 min'."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def percent(share: float) -> str:
    """'43 %'; a share that rounds to zero but is not reads '<1 %'."""
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def weights(params: Mapping[str, float | int | str]) -> dict[str, float]:
    """The mixture's weights by source, heaviest first; empty where no mixture is searched."""
    found = {
        name.removeprefix(MIXTURE): float(value)
        for name, value in params.items()
        if name.startswith(MIXTURE)
    }
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def setting(value: float | int | str) -> str:
    """One sampled value as text."""
    return number(value) if isinstance(value, float) else str(value)


def settings(params: Mapping[str, float | int | str]) -> str:
    """All sampled settings in one line: 'learning_rate 3e-3, moca on, detailed 43 % short 20 %'."""
    plain = {name: value for name, value in params.items() if not name.startswith(MIXTURE)}
    parts = [f"{name} {setting(value)}" for name, value in plain.items()]
    mixed = " ".join(f"{source} {percent(share)}" for source, share in weights(params).items())
    return ", ".join([*parts, mixed] if mixed else parts)
