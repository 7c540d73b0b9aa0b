"""What an owner's pods show about its canary, and what the canary keeps back meanwhile. Pure.

Where nearly all pods of an owner are unhealthy, either a restart helps (workers that hang since a
fail-over of their broker) or it does not (the image, a dependency). One restart tells.
"""

from __future__ import annotations

from dataclasses import replace

from selfheal_remediator.healing.canary import Canary, Outcome, Shown, advanced
from selfheal_remediator.healing.plan import Block
from selfheal_remediator.healing.pod_health import STARTUP_MARGIN, Cause, Health, WatchedPod
from selfheal_remediator.healing.policy import Record
from selfheal_remediator.healing.policy_state import CLOCK_TOLERANCE, RESTART_LIMIT, Group, Ward

#: Of so many pods one may be healthy and the others still count as all.
NEARLY_ALL = 10


def everywhere_unhealthy(group: Group) -> bool:
    """Whether nearly all pods are surely unhealthy, on several nodes."""
    healthy = [pod for pod in group.alive if pod not in group.ill]
    return (
        len({pod.node for pod in group.ill}) >= 2
        and len(group.ill) >= 2
        and len(healthy) * NEARLY_ALL <= len(group.alive)
    )


def canary_of(
    ward: Ward, group: Group, pod: WatchedPod, before: Canary | None, now: float
) -> Canary | None:
    """The owner's canary when this pod is restarted now."""
    if before is not None and before.outcome is Outcome.PASSED:
        return before
    if len({one.node for one in group.alive}) < 2:
        return None  # what a restart shows on its own node says nothing about another
    return Canary(pod.uid, now, ward.sights[pod.uid].diagnosis.cause.value)


def followed(
    ward: Ward, group: Group, record: Record, interval: float, now: float
) -> Canary | None:
    """The owner's canary as of now."""
    canary = record.canary
    if canary is None or group.key in ward.pending:
        return canary
    stays = waiting_pod(ward, canary)
    new = fresh(group, canary)
    old = [pod for pod in group.alive if pod not in new]
    length = trial(ward, canary, interval)
    limit = RESTART_LIMIT + length + _longest_start(group)
    shown = Shown(
        stays=stays is not None,
        recovered=stays is not None and not group.under_way and ward.surely_well(stays),
        proved=any(_proved(ward, pod, canary, length, now) for pod in new),
        unhealthy=bool(new) and not group.under_way and all(pod in group.ill for pod in new),
        overdue=now - canary.restarted > limit,
        late=now - canary.restarted > 2 * limit,
        alone=_steady(ward, old, length, now) * NEARLY_ALL <= len(group.alive),
        ill=any(pod in group.ill for pod in old),
        settled=all(_settled(ward, group, pod, length, now) for pod in old),
        relapsed=not group.under_way and everywhere_unhealthy(group),
    )
    return advanced(canary, shown)


def waiting_pod(ward: Ward, canary: Canary | None) -> WatchedPod | None:
    """The canary's own pod, when it was written down and surely not evicted; else None."""
    pod = ward.pods.get(canary.pod) if canary is not None and canary.under_way else None
    return pod if pod is not None and pod.deletion is None and not pod.finished else None


def fresh(group: Group, canary: Canary) -> list[WatchedPod]:
    """Pods made after the restart. One that somebody else deleted is replaced by such a pod too."""
    since = canary.restarted - CLOCK_TOLERANCE
    return [pod for pod in group.alive if pod.created >= since and pod.uid != canary.pod]


def trial(ward: Ward, canary: Canary, interval: float) -> float:
    """Seconds for which the replacement must be healthy: as long as its cause takes to show."""
    symptoms, lasting = ward.policy.symptoms, 0.0
    if canary.cause == Cause.NOT_READY.value:
        lasting = symptoms.not_ready_for or 0.0
    elif canary.cause == Cause.NO_PROGRESS.value:
        lasting = symptoms.no_progress_for or 0.0
    return max(lasting, ward.policy.failure_threshold * interval)


def held_back(
    ward: Ward, group: Group, record: Record | None, interval: float, now: float
) -> Block | None:
    """Why nothing of the owner is restarted because of its canary."""
    canary = record.canary if record is not None else None
    if canary is None or canary.outcome is Outcome.PASSED:
        return None
    if canary.outcome is Outcome.FAILED:
        text = (
            f"{len(group.ill)} of {len(group.alive)} pods are ill, on every node, and a restart of "
            "one did not help: the image, or something that they need, is at fault; none is "
            "restarted before a new revision, ten minutes of health or a change of the policy"
        )
        return Block("siblings", text)
    if waiting_pod(ward, canary) is not None:
        return None
    old = [pod for pod in group.alive if pod not in fresh(group, canary)]
    if 2 * _steady(ward, old, trial(ward, canary, interval), now) >= len(group.alive):
        return None
    text = "most of its pods are ill: one was restarted, the others wait for what comes of it"
    return Block("canary", text)


def note_health(ward: Ward, pod: WatchedPod, first: bool, now: float) -> None:
    """Note since when the pod has been healthy. first: it was not evaluated before.

    How long it was ready before that counts where readiness is all that there is to know: a pod
    that hangs is ready, and has not said yet how its work goes.
    """
    if not ward.well(pod):
        ward.healthy_since.pop(pod.uid, None)
        return
    trusted = first and pod.ready and ward.policy.progress is None
    known = min(now, pod.ready_changed or now) if trusted else now
    ward.healthy_since.setdefault(pod.uid, known)


def hand_over(source: Ward, target: Ward, uid: str) -> None:
    """What one policy knows of an owner's canary, to the policy that looks after the owner now."""
    record, group = source.records.get(uid), target.groups.get(uid)
    if record is None or record.canary is None or group is None or group.owner is None:
        return
    source.records[uid] = replace(record, canary=None)
    known = target.records.get(uid) or Record(uid, record.kind, record.name)
    if known.canary is None and known.template in ("", record.template):
        target.records[uid] = replace(known, canary=record.canary, template=record.template)


def _steady(ward: Ward, pods: list[WatchedPod], length: float, now: float) -> int:
    """How many have been healthy for long: pods that crash are healthy in between."""
    return sum(ward.steady(pod, length, now) for pod in pods)


def _settled(ward: Ward, group: Group, pod: WatchedPod, length: float, now: float) -> bool:
    """Whether it is certain what the pod counts as."""
    poor = ward.sights[pod.uid].diagnosis.health is Health.POOR
    return poor or pod in group.ill or ward.steady(pod, length, now)


def _proved(ward: Ward, pod: WatchedPod, canary: Canary, length: float, now: float) -> bool:
    if not ward.steady(pod, length, now):
        return False
    asked = canary.cause == Cause.NO_PROGRESS.value and ward.policy.progress is not None
    return not asked or pod.uid in ward.answers


def _longest_start(group: Group) -> float:
    """Seconds that a pod may take to start: one that loads a model is neither well nor ill."""
    longest = max((one.startup_budget for pod in group.pods for one in pod.containers), default=0.0)
    return longest + STARTUP_MARGIN if longest else 0.0
