"""The health of one pod: healthy, starting, unhealthy by its policy, or degraded. Pure.

`diagnose` evaluates a pod once. How long something lasts, and how many consecutive evaluations
found it, is remembered in an `Observation`, by our own clock; a pod's own times are only used at
the first evaluation, when there is nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from selfheal_remediator.healing.policy import Symptoms
from selfheal_remediator.kube.objects import Json, as_name, as_text, timestamp
from selfheal_remediator.kube.responses import understood

#: Reasons why a container waits that a restart cannot heal.
IMAGE_REASONS = frozenset(
    {
        *("ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName"),
        *("ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed"),
    }
)
#: Seconds after its creation when a pod whose containers have not begun is named. No restart helps.
LONG_START = 600.0
#: Reasons that belong to a pod's ordinary beginning.
BEGINNING = frozenset({"ContainerCreating", "PodInitializing"})
OOM_KILLED = "OOMKilled"
#: Seconds beyond a startup probe's own budget before the kubelet must have ended the container.
STARTUP_MARGIN = 30.0
#: Seconds by which two answers about the same last progress may differ (their clock's grain).
ANSWER_TOLERANCE = 2.0
REVISION_LABEL = "controller-revision-hash"
_KEEP = ("selfheal.dev/evict", "false")


@dataclass(frozen=True, slots=True)
class Container:
    """One container as its kubelet last reported it. Times are by the kubelet's clock.

    waiting: why it waits, empty = it does not. exit_code: of a container that has ended and does
    not run, or of the run before when it waits to be run again; None = neither. restarts: how often
    it was started again. ran: seconds that its last run took which ended with an error, or after
    which it was started again; None = there was none.
    """

    name: str
    waiting: str = ""
    message: str = ""
    exit_code: int | None = None
    exit_reason: str = ""
    running_since: float | None = None
    started: bool = True
    startup_budget: float = 0.0
    memory_limit: str = ""
    restarts: int = 0
    ran: float | None = None


@dataclass(frozen=True, slots=True)
class WatchedPod:
    """The part of a Pod that its health shows in."""

    namespace: str
    name: str
    uid: str
    version: str
    node: str
    owner_kind: str
    owner_name: str
    owner_uid: str
    owner_api: str
    phase: str
    created: float
    deletion: float | None
    finalizers: tuple[str, ...]
    mirror: bool
    kept: bool
    ready: bool
    ready_changed: float | None
    waits_for_node: str
    address: str
    ports: Mapping[str, int]
    containers: tuple[Container, ...]
    #: The template of its StatefulSet or DaemonSet that it was created from, empty = unknown.
    revision: str = ""

    @property
    def id(self) -> str:
        """`namespace/name`, for people."""
        return f"{self.namespace}/{self.name}"

    @property
    def finished(self) -> bool:
        """Whether the pod ran to its end."""
        return self.phase in ("Succeeded", "Failed")

    def interrupted(self, before: WatchedPod) -> bool:
        """Whether it was not ready all the time since it was as `before`, even if it is by now."""
        known = {item.name: item.restarts for item in before.containers}
        return not self.ready or any(
            item.restarts > known.get(item.name, item.restarts) for item in self.containers
        )


@understood("a Pod")
def watched_from_json(raw: Json) -> WatchedPod:
    """A pod from the API's JSON. Raises Malformed."""
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    owner: Json = next(
        (ref for ref in meta.get("ownerReferences") or () if ref.get("controller")), {}
    )
    annotations = meta.get("annotations") or {}
    conditions = {item.get("type"): item for item in status.get("conditions") or ()}
    ready = conditions.get("Ready") or {}
    scheduled = conditions.get("PodScheduled") or {}
    specs = {item["name"]: item for item in spec.get("containers") or ()}
    inits = {item["name"]: item for item in spec.get("initContainers") or ()}
    return WatchedPod(
        namespace=sys.intern(meta["namespace"]),
        name=as_name(meta["name"]),
        uid=as_name(meta["uid"]),
        version=as_text(meta.get("resourceVersion")),
        node=sys.intern(spec.get("nodeName") or ""),
        owner_kind=sys.intern(owner.get("kind", "")),
        owner_name=sys.intern(owner.get("name", "")),
        owner_uid=sys.intern(owner.get("uid", "")),
        owner_api=sys.intern(owner.get("apiVersion", "")),
        phase=sys.intern(status.get("phase") or "Unknown"),
        created=timestamp(meta.get("creationTimestamp")) or 0.0,
        deletion=timestamp(meta.get("deletionTimestamp")),
        finalizers=tuple(meta.get("finalizers") or ()),
        mirror="kubernetes.io/config.mirror" in annotations,
        kept=annotations.get(_KEEP[0]) == _KEEP[1],
        ready=ready.get("status") == "True",
        ready_changed=timestamp(ready.get("lastTransitionTime")),
        waits_for_node=(scheduled.get("message") or "no node fits")[:200]
        if scheduled.get("status") == "False"
        else "",
        address=status.get("podIP") or "",
        ports={
            port["name"]: int(port["containerPort"])
            for item in specs.values()
            for port in item.get("ports") or ()
            if port.get("name")
        },
        containers=(
            *_containers(status.get("initContainerStatuses"), inits, init=True),
            *_containers(status.get("containerStatuses"), specs),
        ),
        revision=sys.intern((meta.get("labels") or {}).get(REVISION_LABEL, "")),
    )


def _containers(
    statuses: Any, specs: Mapping[str, Json], *, init: bool = False
) -> Iterable[Container]:
    for status in statuses or ():
        state, before = status.get("state") or {}, status.get("lastState") or {}
        waiting, running = state.get("waiting"), state.get("running")
        ended = state.get("terminated") or (before.get("terminated") if waiting else None)
        spec = specs.get(status["name"]) or {}
        probe = spec.get("startupProbe")
        worked = init and spec.get("restartPolicy") != "Always" and _succeeded(state)
        yield Container(
            name=sys.intern(status["name"]),
            waiting=sys.intern((waiting or {}).get("reason") or "ContainerCreating")
            if waiting is not None
            else "",
            message=((waiting or {}).get("message") or "")[:200],
            exit_code=ended.get("exitCode") if ended else None,
            exit_reason=sys.intern((ended or {}).get("reason") or ""),
            running_since=timestamp(running.get("startedAt")) if running else None,
            started=status.get("started") is not False or not probe,
            startup_budget=_budget(probe) if probe else 0.0,
            memory_limit=((spec.get("resources") or {}).get("limits") or {}).get("memory", ""),
            restarts=int(status.get("restartCount") or 0),
            ran=None if worked else _ran(state.get("terminated"), before.get("terminated")),
        )


def _succeeded(state: Json) -> bool:
    """Whether a container is over that was to end: its attempts before count for nothing."""
    return (state.get("terminated") or {}).get("exitCode") == 0


def _ran(ended: Json | None, ended_before: Json | None) -> float | None:
    """Seconds, between two times of one clock."""
    run = ended if ended and ended.get("exitCode") else ended_before
    begun, over = timestamp((run or {}).get("startedAt")), timestamp((run or {}).get("finishedAt"))
    return None if begun is None or over is None else max(0.0, over - begun)


def _budget(probe: Json) -> float:
    period = probe.get("periodSeconds") or 10
    return float(
        (probe.get("initialDelaySeconds") or 0) + period * (probe.get("failureThreshold") or 3)
    )


class Health(Enum):
    """What a pod counts as."""

    HEALTHY = "healthy"
    BEGINNING = "beginning"
    UNHEALTHY = "unhealthy"  # by its policy: a restart is needed
    DEGRADED = "degraded"  # not healthy, but for a cause without a restart: reported
    LEAVING = "leaving"
    FINISHED = "finished"


class Cause(Enum):
    """Why a pod is unhealthy, by the policy's key; the value is the bounded label for metrics."""

    NOT_READY = "not-ready"
    WAITING = "waiting"
    TERMINATED = "terminated"
    NO_PROGRESS = "no-progress"
    NONE = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A pod's progress, as it reports it. Ages in seconds.

    idle: since the last piece of work was finished. oldest: age of the oldest piece in flight,
    None = not reported. waits: it reports that it waits for a dependency.
    """

    in_flight: int
    idle: float
    mark: float
    oldest: float | None = None
    waits: bool = False


@dataclass(frozen=True, slots=True)
class Stall:
    """No progress, as of one answer: since when, and when it was probed (our clock)."""

    since: float
    probed_at: float
    in_flight: int


def stalled(before: Stall | None, mark: float, reading: Reading, probed_at: float) -> Stall | None:
    """The stall that an answer shows; `before` and `mark` are of the answer before it.

    Work that came after a long idle time has not stalled since then: without `oldest` the stall
    begins when work was first observed in flight with this same last progress.
    """
    if reading.in_flight <= 0 or reading.waits:
        return None
    since = probed_at - max(0.0, reading.idle)
    if reading.oldest is not None:
        since = max(since, probed_at - max(0.0, reading.oldest))
    elif before is not None and mark == reading.mark:
        since = max(since, before.since)
    else:
        since = probed_at
    return Stall(min(since, probed_at), probed_at, reading.in_flight)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One evaluation. `name` is the cause for people; `lasting`: how long it must last, in seconds;
    `since`: when it began by the pod's own clocks, None = unknown."""

    health: Health
    name: str = ""
    detail: str = ""
    cause: Cause = Cause.NONE
    lasting: float = 0.0
    since: float | None = None
    #: Seconds after which it is one of the pods to be reported although nothing is done.
    due: float | None = None


HEALTHY = Diagnosis(Health.HEALTHY)


def diagnose(pod: WatchedPod, symptoms: Symptoms, stall: Stall | None, now: float) -> Diagnosis:
    """What the pod counts as, and why."""
    if pod.finished:
        return Diagnosis(Health.FINISHED, pod.phase)
    if pod.deletion is not None:
        return _leaving(pod, pod.deletion, symptoms)
    found = _containers_say(pod, symptoms) or _not_begun(pod, now) or _stuck(pod, symptoms, stall)
    if found is None:
        found = HEALTHY if pod.ready else _not_ready(pod, symptoms)
    return found


def renewed(found: Diagnosis, symptoms: Symptoms) -> Diagnosis:
    """The diagnosis of a pod made from a template that its owner does not want any more.

    What no restart of the same pod heals (its image, what it requests) a restart heals here. A
    StatefulSet waits for such a pod for ever (kubernetes/kubernetes#67250).
    """
    if found.health is not Health.DEGRADED or symptoms.not_ready_for is None:
        return found
    lasting = symptoms.not_ready_for
    text = f"{found.detail}; a restart applies its owner's current template".lstrip("; ")
    return replace(
        found, health=Health.UNHEALTHY, detail=text, cause=Cause.NOT_READY, lasting=lasting
    )


def _leaving(pod: WatchedPod, deletion: float, symptoms: Symptoms) -> Diagnosis:
    held = f"finalizers {', '.join(pod.finalizers)}" if pod.finalizers else ""
    limit = symptoms.terminating_for
    due = None if limit is None else deletion + limit
    return Diagnosis(Health.LEAVING, "Terminating", held, since=deletion, due=due)


def _containers_say(pod: WatchedPod, symptoms: Symptoms) -> Diagnosis | None:
    degraded: Diagnosis | None = None
    for item in pod.containers:
        found = _container_says(item, symptoms)
        if found is not None and found.health is Health.UNHEALTHY:
            return found
        degraded = degraded or found
    return degraded


def _container_says(item: Container, symptoms: Symptoms) -> Diagnosis | None:
    if item.exit_reason == OOM_KILLED and item.running_since is None:
        limit = f"its limit of {item.memory_limit}" if item.memory_limit else "the node's memory"
        text = f"container {item.name}: its peak reached {limit}; a restart does not raise it"
        return Diagnosis(Health.DEGRADED, OOM_KILLED, text)
    if item.waiting in symptoms.waiting_reasons:
        text = (
            f"container {item.name}: {item.message}" if item.message else f"container {item.name}"
        )
        return Diagnosis(Health.UNHEALTHY, item.waiting, text, Cause.WAITING)
    if item.exit_code and symptoms.terminated_non_zero and item.running_since is None:
        text = f"container {item.name} ended with {item.exit_code}"
        return Diagnosis(Health.UNHEALTHY, "ExitCode", text, Cause.TERMINATED)
    if item.waiting and item.waiting not in BEGINNING:
        why = "; a restart does not fix the image" if item.waiting in IMAGE_REASONS else ""
        text = f"container {item.name}: {item.message or 'it waits'}{why}"
        return Diagnosis(Health.DEGRADED, item.waiting, text)
    return None


def _not_begun(pod: WatchedPod, now: float) -> Diagnosis | None:
    if pod.waits_for_node:
        return Diagnosis(Health.DEGRADED, "Unschedulable", pod.waits_for_node, since=pod.created)
    if not _beginning(pod, now):
        return None
    if pod.phase == "Pending" and now - pod.created > LONG_START:
        why = "its image, volumes, network or init containers are not ready"
        text = f"not begun {LONG_START:.0f}s after it was made: {why}"
        waiting = next((item.waiting for item in pod.containers if item.waiting), "Pending")
        return Diagnosis(Health.DEGRADED, waiting, text, since=pod.created)
    return Diagnosis(Health.BEGINNING, "Starting")


def _stuck(pod: WatchedPod, symptoms: Symptoms, stall: Stall | None) -> Diagnosis | None:
    lasting = symptoms.no_progress_for
    if stall is None or lasting is None:
        return None
    # Only what an answer says counts: the time since then may have brought progress.
    due = stall.probed_at - stall.since >= lasting
    if not (due or pod.ready):
        return None
    detail = f"{stall.in_flight} in flight, none finished" if stall.in_flight else ""
    health = Health.UNHEALTHY if due else Health.HEALTHY
    return Diagnosis(health, "NoProgress", detail, Cause.NO_PROGRESS, lasting, since=stall.since)


def _beginning(pod: WatchedPod, now: float) -> bool:
    """Whether it still starts: containers being made, or a startup probe inside its budget."""
    if pod.phase == "Pending":
        return True
    for item in pod.containers:
        if item.waiting in BEGINNING:
            return True
        if item.running_since is not None and not item.started:
            began = max(item.running_since, pod.created)
            return now <= began + item.startup_budget + STARTUP_MARGIN
    return False


def _not_ready(pod: WatchedPod, symptoms: Symptoms) -> Diagnosis:
    begun = [item.running_since for item in pod.containers if item.running_since is not None]
    moments = [moment for moment in (pod.ready_changed, *begun) if moment is not None]
    # The kubelet's clock may be behind the API server's: nothing was before the pod was made.
    since = max(pod.created, *moments) if moments else None
    if symptoms.not_ready_for is None:
        return Diagnosis(Health.DEGRADED, "NotReady", "", since=since)
    return Diagnosis(
        Health.UNHEALTHY, "NotReady", "", Cause.NOT_READY, symptoms.not_ready_for, since=since
    )


@dataclass(frozen=True, slots=True)
class Observation:
    """What is remembered of one pod: the diagnosis, since when, and consecutive failed checks."""

    diagnosis: Diagnosis
    since: float
    failed: int = 0

    @property
    def due(self) -> float:
        """When it has lasted long enough."""
        return self.since + self.diagnosis.lasting

    def certain(self, checks: int, now: float) -> bool:
        """Whether the pod is certainly unhealthy, after this many checks."""
        unhealthy = self.diagnosis.health is Health.UNHEALTHY
        return unhealthy and now >= self.due and self.failed >= checks


def observe(
    before: Observation | None,
    found: Diagnosis,
    now: float,
    *,
    regular: bool,
    noted: float | None = None,
) -> Observation:
    """The memory after one evaluation. `regular`: it is a regular evaluation, not one in between.

    A symptom that existed before continues; at the first evaluation of a pod its own clock or a
    predecessor's record (`noted`) gives its start.
    """
    shows = found.cause is not Cause.NONE
    reported = found.since if found.cause is Cause.NO_PROGRESS else None  # each answer contains it
    if before is not None and before.diagnosis.name == found.name:
        moved_on = reported is not None and reported > before.since + ANSWER_TOLERANCE
        failed = 0 if moved_on or not shows else before.failed
        return Observation(
            found, before.since if reported is None else reported, failed + int(regular and shows)
        )
    since = now
    if reported is not None:
        since = reported
    elif before is None:
        since = min(now, noted if noted is not None else found.since or now)
    return Observation(found, since, int(regular and shows))
