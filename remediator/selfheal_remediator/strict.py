"""The base of all settings: unknown keys are refused, keys are camelCase, nothing changes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel

from selfheal_remediator.quantities import parse_duration

#: Seconds, once parsed.
Duration = Annotated[float, BeforeValidator(parse_duration)]


class Strict(BaseModel):
    """See the module."""

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
