"""HealingPolicy as a value: its spec, and what its status must remember. Pure.

The API server has validated a policy by the schema in chart/crds; one that still cannot be read
(another version of the schema) is kept as a policy with a `problem`, and never acted on.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.healing.canary import Canary, canary_from, canary_json
from selfheal_remediator.healing.rollouts import Rollout, rollout_from, rollout_json
from selfheal_remediator.kube.objects import Json, as_name, as_text, timestamp
from selfheal_remediator.kube.responses import understood
from selfheal_remediator.quantities import parse_duration

HOUR = 3600.0
#: How a reason begins for which nothing is restarted while a person has paused the remediator.
PAUSED = "paused: "
#: Maximum sizes of a status (the schema's limits).
MAX_OWNERS = 50
MAX_PODS = 10
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


@dataclass(frozen=True, slots=True)
class Symptoms:
    """spec.unhealthyWhen; durations in seconds, None = does not count."""

    not_ready_for: float | None = None
    waiting_reasons: frozenset[str] = frozenset()
    terminated_non_zero: bool = False
    terminating_for: float | None = None
    no_progress_for: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """spec.progress: the port's number or name, and the path."""

    port: int | str
    path: str = "/progress"


@dataclass(frozen=True, slots=True)
class Restart:
    """spec.restart; seconds."""

    backoff: float = 5.0
    max_backoff: float = 300.0
    max_per_hour: int = 6
    grace: float = 10.0

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

    uid: str
    kind: str = ""
    name: str = ""
    restarts: tuple[float, ...] = ()
    failures: int = 0
    pod: str = ""
    gave_up: float | None = None
    template: str = ""
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
class Saved:
    """The parts of a status that the next leader continues from."""

    observed: int = 0
    restarts: int = 0
    last_heal: float | None = None
    records: tuple[Record, ...] = ()
    #: (pod, cause) -> since when.
    since: Mapping[tuple[str, str], float] = field(default_factory=dict)
    #: Condition type -> (status, since when).
    conditions: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    #: Whether nothing was restarted because a person had paused the remediator.
    paused: bool = False

    def taken_over(self, now: float) -> Saved:
        """As our clock has it, when another process wrote it."""
        return replace(self, records=tuple(record.taken_over(now) for record in self.records))


@dataclass(frozen=True, slots=True)
class Policy:
    """One HealingPolicy. `problem`: why it cannot be acted on, empty = it can."""

    namespace: str
    name: str
    uid: str
    version: str
    generation: int
    created: float
    selector: str
    symptoms: Symptoms
    progress: Progress | None
    restart: Restart
    threshold: Threshold
    failure_threshold: int
    paused: bool
    saved: Saved
    problem: str = ""

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.namespace}/{self.name}"


@understood("a HealingPolicy")
def policy_from_json(raw: Json) -> Policy:
    """A policy from the API's JSON. Raises Malformed when even its name cannot be read."""
    meta = raw["metadata"]
    spec = raw.get("spec") or {}
    try:
        return _policy(meta, spec, _saved(raw.get("status") or {}))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        unread = _policy(meta, {}, Saved())
        return replace(unread, problem=f"this version does not support it: {error!r}")


def _policy(meta: Json, spec: Json, saved: Saved) -> Policy:
    when, progress, restart = (
        spec.get("unhealthyWhen") or {},
        spec.get("progress"),
        spec.get("restart") or {},
    )
    return Policy(
        namespace=sys.intern(meta["namespace"]),
        name=as_name(meta["name"]),
        uid=as_name(meta["uid"]),
        version=as_text(meta.get("resourceVersion")),
        generation=int(meta.get("generation") or 0),
        created=timestamp(meta.get("creationTimestamp")) or 0.0,
        selector=selector_text(spec.get("selector") or {}),
        symptoms=Symptoms(
            not_ready_for=_seconds(when.get("notReadyFor")),
            waiting_reasons=frozenset(when.get("waitingReasons") or ()),
            terminated_non_zero=bool(when.get("terminatedNonZero")),
            terminating_for=_seconds(when.get("terminatingFor")),
            no_progress_for=_seconds(when.get("noProgressFor")),
        ),
        progress=Progress(progress["port"], progress.get("path") or "/progress")
        if progress
        else None,
        restart=Restart(
            backoff=parse_duration(restart.get("backoff", "5s")),
            max_backoff=parse_duration(restart.get("maxBackoff", "300s")),
            max_per_hour=int(restart.get("maxPerHour", 6)),
            grace=parse_duration(restart.get("gracePeriod", "10s")),
        ),
        threshold=_threshold(spec.get("healthThreshold", 1)),
        failure_threshold=int(spec.get("failureThreshold", 3)),
        paused=bool(spec.get("paused")),
        saved=saved,
    )


def _seconds(text: str | None) -> float | None:
    return None if text is None else parse_duration(text)


def _threshold(value: int | str) -> Threshold:
    if isinstance(value, int):
        return Threshold(value)
    return Threshold(int(value.removesuffix("%")), percent=value.endswith("%"))


def selector_text(selector: Mapping[str, Any]) -> str:
    """The label selector as a query of the API understands it."""
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for item in selector.get("matchExpressions") or ():
        key, values = item["key"], ",".join(item.get("values") or ())
        parts.append(
            {
                "In": f"{key} in ({values})",
                "NotIn": f"{key} notin ({values})",
                "Exists": key,
                "DoesNotExist": f"!{key}",
            }[item["operator"]]
        )
    return ",".join(parts)


# -- status --------------------------------------------------------------------------------


def _saved(status: Json) -> Saved:
    return Saved(
        observed=int(status.get("observedGeneration") or 0),
        restarts=int(status.get("restarts") or 0),
        last_heal=timestamp(status.get("lastHealTime")),
        records=tuple(_record(item) for item in status.get("owners") or ()),
        since={
            (item["name"], item["cause"]): timestamp(item.get("since")) or 0.0
            for item in status.get("pods") or ()
        },
        conditions={
            item["type"]: (item["status"], timestamp(item["lastTransitionTime"]) or 0.0)
            for item in status.get("conditions") or ()
        },
        paused=any(
            item["type"] == "Throttled" and str(item.get("message") or "").startswith(PAUSED)
            for item in status.get("conditions") or ()
        ),
    )


def _record(item: Json) -> Record:
    moments = (timestamp(text) for text in item.get("restarts") or ())
    return Record(
        uid=item["uid"],
        kind=item.get("kind", ""),
        name=item.get("name", ""),
        restarts=tuple(sorted(moment for moment in moments if moment is not None)),
        failures=int(item.get("failures") or 0),
        pod=item.get("pod", ""),
        gave_up=timestamp(item.get("gaveUp")),
        template=item.get("template", ""),
        rollout=rollout_from(item.get("rollout")),
        canary=canary_from(item.get("canary")),
    )


@dataclass(frozen=True, slots=True)
class PodReport:
    """One of the worst pods."""

    name: str
    cause: str
    detail: str
    since: float


@dataclass(frozen=True, slots=True)
class Condition:
    """One entry of status.conditions; `since` is its last transition."""

    type: str
    holds: bool
    reason: str
    message: str
    since: float


@dataclass(frozen=True, slots=True)
class Status:
    """What a policy's status says."""

    observed: int
    replicas: int
    healthy: int
    last_heal: float | None
    restarts: int
    state: State
    message: str
    pods: tuple[PodReport, ...]
    records: tuple[Record, ...]
    conditions: tuple[Condition, ...]

    def to_json(self) -> Json:
        """The status in the API's format; every key is present, so that a patch replaces all."""
        return {
            "observedGeneration": self.observed,
            "replicas": self.replicas,
            "healthyReplicas": self.healthy,
            "lastHealTime": time_text(self.last_heal),
            "restarts": self.restarts,
            "state": self.state.value,
            "message": _cut(self.message, MAX_MESSAGE),
            "pods": [
                {
                    "name": pod.name,
                    "cause": pod.cause,
                    "detail": _cut(pod.detail, MAX_DETAIL),
                    "since": time_text(pod.since),
                }
                for pod in self.pods[:MAX_PODS]
            ],
            "owners": [_record_json(record) for record in kept(self.records)],
            "conditions": [
                {
                    "type": item.type,
                    "status": "True" if item.holds else "False",
                    "observedGeneration": self.observed,
                    "lastTransitionTime": time_text(item.since),
                    "reason": item.reason,
                    "message": _cut(item.message, MAX_MESSAGE),
                }
                for item in self.conditions
            ],
        }


def kept(records: tuple[Record, ...]) -> list[Record]:
    """The records worth keeping: those with something in them, the latest first.

    Before them those with a canary, the earliest first: a new one that finds no room is not made.
    """
    worth = [record for record in records if not record.idle]
    worth.sort(key=lambda record: max(record.restarts, default=record.gave_up or 0.0), reverse=True)
    worth.sort(key=lambda record: record.canary.restarted if record.canary else math.inf)
    return worth[:MAX_OWNERS]


def _record_json(record: Record) -> Json:
    found: Json = {"uid": record.uid, "kind": record.kind, "name": record.name}
    if record.restarts:
        # Never earlier than it was: the hour of a budget must not end too soon.
        found["restarts"] = [time_text(math.ceil(moment)) for moment in record.restarts[-60:]]
    if record.failures:
        found["failures"] = record.failures
    if record.pod:
        found["pod"] = record.pod
    if record.gave_up:
        found["gaveUp"] = time_text(record.gave_up)
    if record.template:
        found["template"] = record.template
    if record.rollout is not None:
        found["rollout"] = rollout_json(record.rollout, time_text(record.rollout.since))
    if record.canary is not None:
        canary = record.canary
        found["canary"] = canary_json(canary, time_text(canary.restarted), time_text(canary.newest))
    return found


def time_text(seconds: float | None) -> str | None:
    """A time as the API writes it (whole seconds), None when there is none."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
