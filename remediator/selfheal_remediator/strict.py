"""What all parts of the configuration have in common: unknown keys are refused, names are
camelCase in YAML, durations become seconds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

from selfheal_remediator.quantities import parse_duration

Duration = Annotated[float, BeforeValidator(parse_duration)]
Status = Literal["True", "False", "Unknown"]


class Strict(BaseModel):
    """A part of the configuration."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=False,
        arbitrary_types_allowed=True,
    )


def need(key: str, seconds: float, least: str, why: str) -> None:
    """Raises ValueError for a shorter duration: with 0 the setting would do the opposite."""
    if seconds < parse_duration(least):
        raise ValueError(f"{key} must be at least {least}, got {seconds:g}s: {why}")
