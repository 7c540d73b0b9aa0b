"""HealingPolicy as a value: its spec, and what its status must remember. Pure.

The API server has validated a policy by the schema in chart/crds; one that still cannot be read
(another version of the schema) is kept as a policy with a `problem`, and never acted on.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    AliasPath,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
)
from pydantic.alias_generators import to_camel

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.healing.canary import Canary
from selfheal_remediator.healing.rollouts import Rollout
from selfheal_remediator.kube.fields import Duration, Flag, Moment, Text, Whole, mistakes, time_text
from selfheal_remediator.kube.json_values import as_name, as_text, as_whole, timestamp
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import understood

HOUR = 3600.0
#: How a reason begins for which nothing is restarted while a person has paused the remediator.
PAUSED = "paused: "
#: Maximum sizes of a status (the schema's limits).
MAX_OWNERS = 50
MAX_RESTARTS = 60
MAX_PODS = 10
MAX_CONDITIONS = 16
MAX_MESSAGE = 1024
MAX_DETAIL = 512


class State(Enum):
    """A policy in one word; the value is the printer column and the bounded label."""

    HEALTHY = "Healthy"
    HEALING = "Healing"
    THROTTLED = "Throttled"
    GAVE_UP = "GaveUp"
    IDLE = "Idle"
    PAUSED = "Paused"
    DEGRADED = "Degraded"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number of pods, or a percentage of the desired ones."""

    number: int
    percent: bool = False

    def of(self, desired: int) -> int:
        """Pods out of `desired`; a percentage is rounded up."""
        return -(-desired * self.number // 100) if self.percent else self.number


_CAMEL = ConfigDict(alias_generator=to_camel)


def _spec(name: str) -> Any:
    """The field of the spec with this name."""
    return Field(validation_alias=AliasPath("spec", name))


def _at_most(characters: int) -> PlainSerializer:
    """A longer text is written shortened."""
    return PlainSerializer(lambda text: _cut(text, characters))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _in_order(moments: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted(moments))


def _threshold(value: object) -> Threshold:
    if type(value) is int and value >= 1:
        return Threshold(value)
    if isinstance(value, str) and re.fullmatch("([1-9][0-9]?|100)%", value):
        return Threshold(int(value[:-1]), percent=True)
    raise ValueError('allowed is a number of pods of at least 1, or a percentage ("1%" to "100%")')


def _port(value: object) -> int | str:
    if (type(value) is int and 1 <= value <= 65535) or (isinstance(value, str) and value):
        return value
    raise ValueError("allowed is a number from 1 to 65535 or the name of a container port")


#: Written never earlier than it was: the hour of a budget must not end too soon.
_RestartMoment = Annotated[
    Moment, PlainSerializer(lambda moment: time_text(math.ceil(moment)), return_type=str)
]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One of a selector's matchExpressions; as text it filters the API's lists."""

    key: Text
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[Text, ...] = ()

    def __str__(self) -> str:
        match self.operator:
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"
            case _:
                return f"{self.key} {self.operator.lower()} ({','.join(self.values)})"


@dataclass(frozen=True, slots=True)
class Selector:
    """spec.selector, of labels of pods."""

    __pydantic_config__: ClassVar = _CAMEL

    match_labels: Mapping[Text, Text] = field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()


def _not_empty(selector: Selector) -> Selector:
    if not (selector.match_labels or selector.match_expressions):
        raise ValueError("allowed are matchLabels or matchExpressions; it would take every pod")
    return selector


@dataclass(frozen=True, slots=True)
class Symptoms:
    """spec.unhealthyWhen; durations in seconds, None = does not count."""

    __pydantic_config__: ClassVar = _CAMEL

    not_ready_for: Duration | None = None
    waiting_reasons: frozenset[Text] = frozenset()
    terminated_non_zero: Flag = False
    terminating_for: Duration | None = None
    no_progress_for: Duration | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """spec.progress: the port's number or name, and the path."""

    port: Annotated[int | str, BeforeValidator(_port)]
    path: Text = "/progress"


@dataclass(frozen=True, slots=True)
class Restart:
    """spec.restart; seconds."""

    __pydantic_config__: ClassVar = _CAMEL

    backoff: Duration = 5.0
    max_backoff: Duration = 300.0
    max_per_hour: Annotated[Whole, Field(ge=1, le=MAX_RESTARTS)] = 6
    grace: Annotated[Duration, Field(alias="gracePeriod")] = 10.0

    def wait(self, failures: int) -> float:
        """Seconds from the last restart to the next, after so many in a row."""
        if failures <= 0:
            return 0.0
        return delay_after(failures, first=self.backoff, longest=self.max_backoff)


@dataclass(frozen=True, slots=True)
class Record:
    """What a policy must remember of one owner of its pods, whoever leads.

    restarts: when its pods were restarted within the last hour, the oldest first. failures:
    consecutive restarts since it was last healthy for long. pod: uid of the pod that is being
    restarted, empty = none. gave_up: since when it is left alone. template: the pod template that
    this is about; another one starts from scratch. rollout: the progress of the current rollout.
    canary: what its last restart shows about the next ones, None = nothing.
    """

    __pydantic_config__: ClassVar = _CAMEL

    uid: Text
    kind: Text = ""
    name: Text = ""
    restarts: Annotated[
        tuple[_RestartMoment, ...], AfterValidator(_in_order), Field(max_length=MAX_RESTARTS)
    ] = ()
    failures: Annotated[Whole, Field(ge=0)] = 0
    pod: Text = ""
    gave_up: Moment | None = None
    template: Text = ""
    rollout: Rollout | None = None
    canary: Canary | None = None

    def forgiven(self) -> Record:
        """A new chance, within the same hour's budget; a canary under way stays so."""
        canary = self.canary if self.canary is not None and self.canary.under_way else None
        return replace(self, failures=0, gave_up=None, canary=canary)

    def taken_over(self, now: float) -> Record:
        """As our clock has it, when another process wrote it.

        A moment that is still to come was written by a clock that is ahead: it counts as now.
        """
        return replace(
            self,
            restarts=tuple(min(moment, now) for moment in self.restarts),
            gave_up=None if self.gave_up is None else min(self.gave_up, now),
            rollout=self.rollout and self.rollout.taken_over(now),
            canary=self.canary and replace(self.canary, restarted=min(self.canary.restarted, now)),
        )

    def recent(self, now: float) -> tuple[float, ...]:
        """The restarts that count against the hourly budget."""
        return tuple(moment for moment in self.restarts if moment > now - HOUR)

    @property
    def idle(self) -> bool:
        """Whether nothing of it has to be remembered."""
        known = self.restarts or self.failures or self.pod or self.gave_up
        return not (known or self.rollout or self.canary)


@dataclass(frozen=True, slots=True)
class PodReport:
    """One of the worst pods."""

    name: Text
    cause: Text
    detail: Annotated[Text, _at_most(MAX_DETAIL)] = ""
    since: Moment = 0.0


@dataclass(frozen=True, slots=True)
class Condition:
    """One entry of status.conditions; `since` is its last transition."""

    type: Text
    holds: Annotated[
        bool,
        BeforeValidator("True".__eq__),
        PlainSerializer(lambda holds: "True" if holds else "False"),
        Field(alias="status"),
    ]
    reason: Text
    message: Annotated[Text, _at_most(MAX_MESSAGE)]
    since: Annotated[Moment, Field(alias="lastTransitionTime")]


@dataclass(frozen=True, slots=True)
class Saved:
    """The parts of a status that the next leader continues from."""

    observed: Annotated[Whole, Field(alias="observedGeneration")] = 0
    restarts: Whole = 0
    last_heal: Annotated[Moment | None, Field(alias="lastHealTime")] = None
    records: Annotated[tuple[Record, ...], Field(alias="owners", max_length=MAX_OWNERS)] = ()
    pods: Annotated[tuple[PodReport, ...], Field(max_length=MAX_PODS)] = ()
    conditions: Annotated[tuple[Condition, ...], Field(max_length=MAX_CONDITIONS)] = ()

    @property
    def since(self) -> Mapping[tuple[str, str], float]:
        """(pod, cause) -> since when."""
        return {(pod.name, pod.cause): pod.since for pod in self.pods}

    @property
    def paused(self) -> bool:
        """Whether nothing was restarted because a person had paused the remediator."""
        return any(
            item.type == "Throttled" and item.message.startswith(PAUSED) for item in self.conditions
        )

    def taken_over(self, now: float) -> Saved:
        """As our clock has it, when another process wrote it."""
        return replace(self, records=tuple(record.taken_over(now) for record in self.records))


@dataclass(frozen=True, slots=True)
class Policy:
    """One HealingPolicy. `problem`: why it cannot be acted on, empty = it can.

    history_lost: what of it cannot be read that remembers restarts: `status.owners`, or all of
    `status`; empty = nothing.
    """

    namespace: str
    name: str
    uid: str
    version: str
    generation: int
    created: float
    labels: Annotated[Selector, AfterValidator(_not_empty), _spec("selector")]
    symptoms: Annotated[Symptoms, _spec("unhealthyWhen")]
    progress: Annotated[Progress | None, _spec("progress")] = None
    restart: Annotated[Restart, _spec("restart")] = Restart()
    threshold: Annotated[Threshold, BeforeValidator(_threshold), _spec("healthThreshold")] = (
        Threshold(1)
    )
    failure_threshold: Annotated[Whole, Field(ge=1, le=100), _spec("failureThreshold")] = 3
    paused: Annotated[Flag, _spec("paused")] = False
    saved: Annotated[Saved, Field(alias="status")] = Saved()
    problem: str = ""
    history_lost: str = ""

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"

    @property
    def selector(self) -> str:
        """The pods' labels as the API's lists are filtered by them."""
        parts = [f"{key}={value}" for key, value in sorted(self.labels.match_labels.items())]
        return ",".join([*parts, *(str(item) for item in self.labels.match_expressions)])


_POLICY, _SAVED = TypeAdapter(Policy), TypeAdapter(Saved)


@understood("a HealingPolicy")
def policy_from_json(raw: Json) -> Policy:
    """A policy from the API's JSON. Raises Malformed when even its name cannot be read."""
    meta = raw["metadata"]
    identity: Json = {
        "namespace": sys.intern(as_name(meta["namespace"])),
        "name": as_name(meta["name"]),
        "uid": as_name(meta["uid"]),
        "version": as_text(meta.get("resourceVersion")),
        "generation": as_whole(meta.get("generation")),
        "created": timestamp(meta.get("creationTimestamp")) or 0.0,
    }
    try:
        return _POLICY.validate_python(
            {**identity, "spec": raw.get("spec"), "status": raw.get("status") or {}}
        )
    except ValidationError as error:
        unread = Policy(**identity, labels=Selector(), symptoms=Symptoms())
        problem = f"this version does not support it: {mistakes(error)}"
        saved = _readable_status(raw.get("status"))
        if saved is None:
            lost = "status.owners" if isinstance(raw["status"], dict) else "status"
            advice = _repair(lost, unread)
            problem = _cut(problem, MAX_MESSAGE - len(advice)) + advice
            return replace(unread, problem=problem, history_lost=lost)
        return replace(unread, saved=saved, problem=problem)


def _readable_status(raw: Any) -> Saved | None:
    """Budgets outlive a spec that cannot be read: the status is written again meanwhile.

    So is what only people read of a status. None: what it remembers of restarts cannot be read.
    """
    known = raw or {}
    if isinstance(known, dict):
        owners = {key: value for key, value in known.items() if key == "owners"}
        for readable in (known, owners):
            try:
                return _SAVED.validate_python(readable)
            except ValidationError:
                continue
    return None


def _repair(lost: str, policy: Policy) -> str:
    """What a person can do about a status (or what is named of it) that cannot be read."""
    empty = '{"status":{"owners":null}}' if lost == "status.owners" else '{"status":null}'
    return (
        f"; nothing is restarted until {lost} can be read or is removed: kubectl -n "
        f"{policy.namespace} patch healingpolicy {policy.name} --subresource=status --type=merge "
        f"-p '{empty}'"
    )


# -- status --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Status:
    """What a policy's status says."""

    observed: Annotated[int, Field(alias="observedGeneration")]
    replicas: int
    healthy: Annotated[int, Field(alias="healthyReplicas")]
    last_heal: Annotated[Moment | None, Field(alias="lastHealTime")]
    restarts: int
    state: State
    message: Annotated[str, _at_most(MAX_MESSAGE)]
    pods: tuple[PodReport, ...]
    records: Annotated[tuple[Record, ...], Field(alias="owners")]
    conditions: tuple[Condition, ...]

    def state_json(self) -> Json:
        """What of it contains nothing that the next leader continues from, in the API's format."""
        everything = self.to_json()
        return {key: everything[key] for key in ("state", "message", "conditions")}

    def to_json(self) -> Json:
        """The status in the API's format; every key is present, so that a patch replaces all."""
        bounded = replace(self, pods=self.pods[:MAX_PODS], records=tuple(kept(self.records)))
        found: Json = _STATUS.dump_python(bounded, mode="json", by_alias=True, exclude_none=True)
        found.setdefault("lastHealTime", None)
        found["owners"] = [
            {key: value for key, value in owner.items() if value or key in ("kind", "name")}
            for owner in found["owners"]
        ]
        for condition in found["conditions"]:
            condition["observedGeneration"] = self.observed
        return found


_STATUS = TypeAdapter(Status)


def kept(records: tuple[Record, ...]) -> list[Record]:
    """The records worth keeping: those with something in them, the latest first.

    Before them those with a canary, the earliest first: a new one that finds no room is not made.
    """
    worth = [record for record in records if not record.idle]
    worth.sort(key=lambda record: max(record.restarts, default=record.gave_up or 0.0), reverse=True)
    worth.sort(key=lambda record: record.canary.restarted if record.canary else math.inf)
    return worth[:MAX_OWNERS]
