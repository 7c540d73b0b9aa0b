"""What follows a drain, as a rule says it: the steps of `then`, and `verify`."""

from __future__ import annotations

import json
import zlib
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from selfheal_remediator.external_steps import (
    MachineSettings,
    ResourceSettings,
    WebhookSettings,
)
from selfheal_remediator.names import metadata_problems
from selfheal_remediator.strict import ConditionType, Duration, Status, Strict

#: More steps than anybody waits for; the annotation holds the number only.
MOST_STEPS = 10
#: Seconds between the end of a `wait` and when it would have failed.
WAIT_MARGIN = 60.0
#: Kinds of steps, as the values name them; labels of metrics.
STEP_KINDS = ("job", "machine", "resource", "wait", "webhook")
VERIFY_KINDS = ("condition", "job")


def _status_text(value: object) -> object:
    # YAML turns an unquoted True into a boolean; a condition's status is text.
    return ("True" if value else "False") if isinstance(value, bool) else value


class JobSettings(Strict):
    """A Job in the remediator's own namespace, on the node or beside it."""

    #: A PodTemplateSpec; the API server checks it.
    template: dict[str, Any]
    placement: Literal["node", "beside"] = "node"
    #: What shows that it succeeded: the Job is complete, or the node has another boot id.
    succeeded_by: Literal["completion", "bootID"] = "completion"
    backoff_limit: int = Field(default=0, ge=0, le=10)
    ttl_seconds_after_finished: int = Field(default=86400, ge=3600)

    @model_validator(mode="after")
    def _runs_once(self) -> JobSettings:
        spec = self.template.get("spec")
        if not isinstance(spec, dict) or not spec.get("containers"):
            raise ValueError("template.spec.containers is missing: a pod template is expected")
        if problem := next(metadata_problems(self.template.get("metadata")), ""):
            raise ValueError(problem)
        if spec.get("restartPolicy", "Never") != "Never":
            raise ValueError(
                f"template.spec.restartPolicy is {spec['restartPolicy']!r:.50}; allowed is Never: "
                "after a reboot the node would run it again"
            )
        if self.succeeded_by == "bootID" and self.backoff_limit:
            raise ValueError(
                "backoffLimit must be 0 with succeededBy: bootID: each reboot would count as a "
                "failure, and the Job would reboot the node again"
            )
        return self


class ConditionSettings(Strict):
    """A condition that the node must have."""

    type: ConditionType
    status: Annotated[Status, BeforeValidator(_status_text)] = "True"


def _one_of(part: Strict, names: tuple[str, ...]) -> str:
    """The one of these that is given. Raises ValueError."""
    given = [name for name in names if getattr(part, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ValueError(f"exactly one of {', '.join(names)} is expected, found {found}")
    return given[0]


def _long_enough(timeout: float) -> None:
    if timeout < 1:
        raise ValueError(f"timeout must be at least 1s, got {timeout:g}s: nothing could be begun")


class Step(Strict):
    """One step of a ladder."""

    job: JobSettings | None = None
    machine: MachineSettings | None = None
    resource: ResourceSettings | None = None
    wait: Duration | None = None
    webhook: WebhookSettings | None = None
    #: How long it may take; then it has failed.
    timeout: Duration = 600.0
    #: How long the condition may stay bad after it succeeded, before the next step begins.
    settle: Duration = 300.0

    @model_validator(mode="after")
    def _is_one(self) -> Step:
        _one_of(self, STEP_KINDS)
        _long_enough(self.timeout)
        if self.wait is not None and "timeout" in self.model_fields_set:
            raise ValueError("wait has no timeout: it ends after its own duration")
        return self

    @property
    def kind(self) -> str:
        """Which kind it is, one of STEP_KINDS."""
        return _one_of(self, STEP_KINDS)

    @property
    def limit(self) -> float:
        """Seconds after which it has failed."""
        return self.timeout if self.wait is None else self.wait + WAIT_MARGIN

    @property
    def mark(self) -> str:
        """What it does, short enough for a node's annotation: it differs when that changes."""
        content = self.model_dump(mode="json", exclude={"timeout", "settle"}, exclude_none=True)
        return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode()):08x}"


class Verify(Strict):
    """What must be true of a node that recovered, before it is uncordoned."""

    condition: ConditionSettings | None = None
    job: JobSettings | None = None
    timeout: Duration = 600.0

    @model_validator(mode="after")
    def _is_one(self) -> Verify:
        _one_of(self, VERIFY_KINDS)
        _long_enough(self.timeout)
        return self

    @property
    def kind(self) -> str:
        """Which kind it is, one of VERIFY_KINDS."""
        return _one_of(self, VERIFY_KINDS)
