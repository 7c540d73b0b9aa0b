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

from selfheal_remediator.healing.policy import Symptoms
from selfheal_remediator.kube.json_values import (
    as_flag,
    as_moment,
    as_name,
    as_number,
    as_object,
    as_objects,
    as_text,
    as_whole,
)
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.pods import PodBase, PodJson
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
#: The diagnosis of a pod that cannot be read.
UNREAD = "Unreadable"
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
class WatchedPod(PodBase):
    """The part of a Pod that its health shows in. created: 0 = unknown.

    unread: why it cannot be read, empty = it can; then only its identity and deletion count.
    """

    created: float
    kept: bool
    ready_changed: float | None
    waits_for_node: str
    address: str
    ports: Mapping[str, int]
    containers: tuple[Container, ...]
    #: The template of its StatefulSet or DaemonSet that it was created from, empty = unknown.
    revision: str = ""
    unread: str = ""

    def interrupted(self, before: WatchedPod) -> bool:
        """Whether it was not ready all the time since it was as `before`, even if it is by now."""
        known = {item.name: item.restarts for item in before.containers}
        return not self.ready or any(
            item.restarts > known.get(item.name, item.restarts) for item in self.containers
        )


@understood("a Pod")
def watched_from_json(raw: Json) -> WatchedPod:
    """What a policy needs of a Pod from the API's JSON. Raises Malformed."""
    pod = PodJson(raw)
    scheduled = as_text(pod.condition("PodScheduled").get("message")) or "no node fits"
    return WatchedPod(
        **pod.base(),
        created=pod.created or 0.0,
        kept=pod.annotated(*_KEEP),
        ready_changed=as_moment(pod.condition("Ready").get("lastTransitionTime")),
        waits_for_node=scheduled[:200] if pod.condition_status("PodScheduled") == "False" else "",
        address=as_text(pod.status.get("podIP")),
        ports={
            name: as_number(port.get("containerPort"))
            for container in pod.containers
            for port in as_objects(container.get("ports"))
            if (name := as_text(port.get("name")))
        },
        containers=(
            *_containers(pod.status.get("initContainerStatuses"), pod.init_containers, init=True),
            *_containers(pod.status.get("containerStatuses"), pod.containers),
        ),
        revision=sys.intern(as_text(pod.labels.get(REVISION_LABEL))),
    )


def _containers(
    statuses: object, specs: Iterable[Json], *, init: bool = False
) -> Iterable[Container]:
    known = {as_name(spec.get("name")): spec for spec in specs}
    for status in as_objects(statuses):
        name = sys.intern(as_name(status.get("name")))
        spec = known.get(name, {})
        ends = init and as_text(spec.get("restartPolicy")) != "Always"
        yield _container(name, status, spec, ends=ends)


def _container(name: str, status: Json, spec: Json, *, ends: bool) -> Container:
    """ends: it is to end, and once it has done so its attempts before count for nothing."""
    state, before = as_object(status.get("state")), as_object(status.get("lastState"))
    waits = state.get("waiting") is not None  # the API writes `{}` when it knows no reason
    waiting, running = as_object(state.get("waiting")), as_object(state.get("running"))
    ended, ended_before = _ended(state), _ended(before)
    worked = ends and ended is not None and ended.exit_code == 0
    last = ended or (ended_before if waits else None)
    limits = as_object(as_object(spec.get("resources")).get("limits"))
    probe, started = spec.get("startupProbe"), status.get("started")
    return Container(
        name=name,
        waiting=sys.intern(as_text(waiting.get("reason")) or "ContainerCreating") if waits else "",
        message=as_text(waiting.get("message"))[:200],
        exit_code=last.exit_code if last else None,
        exit_reason=last.reason if last else "",
        running_since=as_moment(running.get("startedAt")),
        started=probe is None or started is None or as_flag(started),
        startup_budget=0.0 if probe is None else _budget(as_object(probe)),
        memory_limit=as_text(limits.get("memory")),
        restarts=as_whole(status.get("restartCount")),
        ran=None if worked else _ran(ended, ended_before),
    )


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a run of a container ended. begun, over: by the kubelet's clock."""

    exit_code: int
    reason: str
    begun: float | None
    over: float | None


def _ended(state: Json) -> _Ended | None:
    if state.get("terminated") is None:
        return None
    raw = as_object(state["terminated"])
    return _Ended(
        as_number(raw.get("exitCode")),
        sys.intern(as_text(raw.get("reason"))),
        as_moment(raw.get("startedAt")),
        as_moment(raw.get("finishedAt")),
    )


def _ran(ended: _Ended | None, ended_before: _Ended | None) -> float | None:
    """Seconds, between two times of one clock."""
    run = ended if ended and ended.exit_code else ended_before
    if run is None or run.begun is None or run.over is None:
        return None
    return max(0.0, run.over - run.begun)


def _budget(probe: Json) -> float:
    period, failures = as_whole(probe.get("periodSeconds")), as_whole(probe.get("failureThreshold"))
    return float(as_whole(probe.get("initialDelaySeconds")) + (period or 10) * (failures or 3))


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
    if pod.unread:
        return Diagnosis(Health.DEGRADED, UNREAD, pod.unread)
    found = _containers_say(pod, symptoms) or _not_begun(pod, now) or _stuck(pod, symptoms, stall)
    if found is None:
        found = HEALTHY if pod.ready else _not_ready(pod, symptoms)
    return found


def renewed(found: Diagnosis, symptoms: Symptoms) -> Diagnosis:
    """The diagnosis of a pod made from a template that its owner does not want any more.

    What no restart of the same pod heals (its image, what it requests) a restart heals here. A
    StatefulSet waits for such a pod for ever (kubernetes/kubernetes#67250).
    """
    degraded = found.health is Health.DEGRADED and found.name != UNREAD
    if not degraded or symptoms.not_ready_for is None:
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
