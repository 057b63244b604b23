"""What every specification shares: immutable, strict, plain numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(gt=0)]


class Frozen(BaseModel):
    """Immutable, refuses unknown fields; strings such as '1e-3' are read as numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


def first_mistake(error: ValidationError) -> tuple[str, str]:
    """Where the first mistake is, as in 'optim.samples', and what it is."""
    first = error.errors()[0]
    return ".".join(str(part) for part in first["loc"]), first["msg"]
