"""What is reported about one drain, and when again. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from selfheal_remediator.drain.blockers import describe
from selfheal_remediator.drain.engine import NodeDrain
from selfheal_remediator.kube.fields import time_text
from selfheal_remediator.kube.pods import Pod

#: What blocks is reported so long (seconds) after it began, and then at most so often.
BLOCKED_FIRST = 1.0
BLOCKED_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class Report:
    """An Event about the node."""

    reason: str
    message: str
    warning: bool = True


@dataclass(slots=True)
class DrainReports:
    """What was reported about one drain; each method returns what is to be reported now."""

    blocked_since: float | None = None
    reported_at: float = float("-inf")
    returned_at: float = float("-inf")
    deadline_reported: bool = False
    delay_reported: bool = False
    left: frozenset[str] = field(default_factory=frozenset)
    #: Pods (uids) of which it was said that they may complete, and that they did not.
    awaited: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)

    def pods_left(self, drain: NodeDrain) -> list[Report]:
        """Pods that returned too often: once for each reason."""
        fresh = sorted(drain.returned_too_often - self.left)
        self.left = drain.returned_too_often
        return [Report("PodsLeftOnNode", f"not evicted: {text}") for text in fresh]

    def delayed(self, drain: NodeDrain, now: float) -> list[Report]:
        """The first eviction is still to come: once."""
        if self.delay_reported or not drain.evictions or not drain.delayed(now):
            return []
        self.delay_reported = True
        text = f"no pod is evicted before {time_text(drain.not_before)} (drain.delay)"
        return [Report("DrainDelayed", text, warning=False)]

    def completing(self, drain: NodeDrain) -> list[Report]:
        """Pods whose completion is waited for, and those that did not complete: each once."""
        found = []
        waiting = [item for item in drain.pods.completing if item[0].uid not in self.awaited]
        if waiting:
            self.awaited.update(pod.uid for pod, _ in waiting)
            until = time_text(max(sorting.until or 0.0 for _, sorting in waiting))
            names = _names([pod.id for pod, _ in waiting])
            text = f"waiting until {until} for pods to complete, then they are evicted: {names}"
            found.append(Report("DrainWaiting", text, warning=False))
        cut = [
            item.pod
            for uid, item in drain.evictions.items()
            if item.waited_until is not None and not item.terminating and uid not in self.cut
        ]
        if cut:
            self.cut.update(pod.uid for pod in cut)
            names = _names([pod.id for pod in cut])
            over = "the time to wait for them is over"
            why = over if drain.pods.around.ready else "the node is not Ready"
            text = f"evicted although not complete, {why}: {names}"
            found.append(Report("PodsNotCompleted", text))
        return found

    def deadline_passed(
        self, drain: NodeDrain, now: float, *, limit: float, on_deadline: str
    ) -> list[Report]:
        """The deadline (limit: its seconds) has passed: once."""
        if now < drain.deadline or self.deadline_reported:
            return []
        self.deadline_reported = True
        text = describe(drain.blockers(now)) or f"{len(drain.evictions)} pods still terminating"
        message = f"not empty after {limit:g}s (onDeadline: {on_deadline}): {text}"
        return [Report("DrainDeadlinePassed", message)]

    def blocked(self, drain: NodeDrain, now: float) -> tuple[list[Report], float | None]:
        """What blocks, at most once a minute; and when to evaluate that again."""
        blockers = drain.blockers(now)
        if not blockers:
            self.blocked_since = None
            return [], None
        if self.blocked_since is None:
            self.blocked_since = now
        speak_at = max(self.blocked_since + BLOCKED_FIRST, self.reported_at + BLOCKED_EVERY)
        if now < speak_at:
            return [], speak_at
        self.reported_at = now
        return [Report("DrainBlocked", describe(blockers))], now + BLOCKED_EVERY

    def returned(self, drain: NodeDrain, evicted: tuple[Pod, ...], now: float) -> list[Report]:
        """What was put on a drained node and is evicted now, at most once a minute."""
        put = [pod.id for pod in evicted if not drain.evictions[pod.uid].stayed]
        if not put or now < self.returned_at + BLOCKED_EVERY:
            return []
        self.returned_at = now
        text = f"scheduled to the drained node despite its cordon, evicted again: {_names(put)}"
        return [Report("PodsOnDrainedNode", text)]


def _names(pods: list[str]) -> str:
    """The first three of them."""
    more = f" and {len(pods) - 3} more" if len(pods) > 3 else ""
    return ", ".join(pods[:3]) + more


def slot_yielded(drain: NodeDrain, now: float) -> Report:
    """Its drain slot goes to another node's drain."""
    if drain.standstill.seen is None:  # it was begun by a predecessor
        text = "other nodes are drained first: more drains are running than allowed"
        return Report("DrainPaused", text, warning=False)
    if drain.only_waits:
        text = "another node is drained while its pods may complete"
        return Report("DrainPaused", text, warning=False)
    why = describe(drain.blockers(now)) or "its pods cannot be evicted"
    standing = now - drain.standstill.progress_at
    text = f"no pod has left for {standing:.0f}s, another node is drained first: {why}"
    return Report("DrainStalled", text)


def slot_regained() -> Report:
    """It has a drain slot again."""
    text = "its drain continues: a drain slot is free again"
    return Report("DrainResumed", text, warning=False)


def surged(deployment: str, pod: str, undone: str) -> Report:
    """A Deployment was rolled out for its only pod, or that was undone, as `undone` says."""
    if undone:
        text = f"the rollout of Deployment {deployment} was undone, pod {pod} stays: {undone}"
        return Report("SurgeUndone", text)
    text = (
        f"Deployment {deployment} is rolled out, so that a new pod is ready before its only pod "
        f"{pod} stops, which a PDB keeps"
    )
    return Report("SurgeStarted", text, warning=False)


def recovering(why: str) -> Report:
    """Its node recovers, as `why` says."""
    return Report("DrainPaused", f"no more pods are evicted for now: {why}", warning=False)
