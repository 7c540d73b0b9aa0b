"""What all parts of the configuration have in common: unknown keys are refused, names are
camelCase in YAML, durations become seconds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from selfheal_remediator.quantities import parse_duration

Duration = Annotated[float, BeforeValidator(parse_duration)]
Status = Literal["True", "False", "Unknown"]
#: By these a node's status says that somebody drains it, or has drained it (KEP-5683).
LIFECYCLE_CONDITIONS = ("DrainInProgress", "Drained")


def _not_of_a_drain(kind: str) -> str:
    if kind in LIFECYCLE_CONDITIONS:
        raise ValueError(
            f"{kind} is what a drain reports, also this remediator's own "
            "(drain.lifecycleConditions): nothing may follow from it"
        )
    return kind


ConditionType = Annotated[str, Field(min_length=1, max_length=316), AfterValidator(_not_of_a_drain)]


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
