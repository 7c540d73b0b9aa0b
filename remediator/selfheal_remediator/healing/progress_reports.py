"""What the pods of one policy report of their work, and when each is probed for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from selfheal_remediator.healing.pod_health import (
    Health,
    Observation,
    Reading,
    Stall,
    WatchedPod,
    stalled,
)
from selfheal_remediator.healing.policy import Policy

#: A report is valid for this many evaluations.
VALID_FOR = 3.0
#: Seconds between two probes of one pod, at least.
SOONEST = 1.0
#: Pods in these states have no work that could be hung.
WITHOUT_WORK = (Health.FINISHED, Health.LEAVING, Health.BEGINNING)


@dataclass(frozen=True, slots=True)
class Probe:
    """A pod to be probed for progress."""

    policy: str
    uid: str
    address: str
    port: int
    path: str


@dataclass(slots=True)
class ProgressReports:
    """By the pods' uids. next_probe: when any pod is to be probed next, or may be."""

    next_probe: float = 0.0
    #: When each pod reported last (when it was probed), and the mark of its last progress.
    _reported: dict[str, tuple[float, float]] = field(default_factory=dict)
    _stalls: dict[str, Stall] = field(default_factory=dict)
    _probe_at: dict[str, float] = field(default_factory=dict)
    _probed: set[str] = field(default_factory=set)

    def has_reported(self, uid: str) -> bool:
        """Whether the pod has ever answered a probe."""
        return uid in self._reported

    def reported_at(self, uid: str, default: float) -> float:
        """When the pod was probed last with an answer, `default` if never."""
        return self._reported.get(uid, (default, 0.0))[0]

    def stall(self, uid: str) -> Stall | None:
        """Since when the pod has made no progress, None = it does, or that is not known."""
        return self._stalls.get(uid)

    def valid_stall(self, uid: str, interval: float, now: float) -> Stall | None:
        """The same; of a pod that has stopped answering nothing is known."""
        stall = self._stalls.get(uid)
        if stall is not None and now - stall.probed_at > VALID_FOR * interval:
            del self._stalls[uid]
            return None
        return stall

    def assume_stall(self, uid: str, stall: Stall) -> None:
        """What is known of the pod without a probe."""
        self._stalls[uid] = stall

    def forget(self, uid: str) -> None:
        """The pod is gone."""
        for known in (self._reported, self._stalls, self._probe_at):
            known.pop(uid, None)
        self._probed.discard(uid)

    def forget_reports(self) -> None:
        """The policy has other symptoms."""
        self._reported.clear()
        self._stalls.clear()

    def probe_soon(self, now: float) -> None:
        """There may be new pods to probe."""
        self.next_probe = min(self.next_probe, now)

    def take_in(
        self,
        uid: str,
        reading: Reading | None,
        observation: Observation | None,
        limit: float | None,
        probed_at: float,
    ) -> bool:
        """The pod's answer to the probe sent at `probed_at`, None = it gave none.

        limit: seconds without progress after which it counts as hung. Returns whether that calls
        for an evaluation.
        """
        self._probed.discard(uid)
        if reading is None:
            return False
        _, mark = self._reported.get(uid, (0.0, -1.0))
        found = stalled(self._stalls.get(uid), mark, reading, probed_at)
        self._reported[uid] = (probed_at, reading.mark)
        if found is None or limit is None:
            self._stalls.pop(uid, None)
            return observation is None or observation.diagnosis.health is Health.UNHEALTHY
        self._stalls[uid] = found
        due = found.since + limit
        if due <= probed_at:
            return True
        # Probed again when it may just have hung, not only when due.
        again = min(self._probe_at.get(uid, due), max(due + 0.05, probed_at + SOONEST))
        self._probe_at[uid] = again
        self.next_probe = min(self.next_probe, again)
        return False

    def due(
        self,
        policy: Policy,
        pods: Iterable[WatchedPod],
        observations: Mapping[str, Observation],
        interval: float,
        now: float,
    ) -> list[Probe]:
        """Pods to probe now: each once in an interval, sooner when it may just have hung."""
        self.next_probe = now + interval
        found: list[Probe] = []
        if policy.progress is None:
            return found
        for pod in pods:
            observation = observations.get(pod.uid)
            if pod.uid in self._probed or not pod.address or observation is None:
                continue
            if observation.diagnosis.health in WITHOUT_WORK:
                self._probe_at.pop(pod.uid, None)
                continue
            # Spread over the interval by the pod's uid, so that they are not probed all at once.
            first = now + (hash(pod.uid) % 1000) / 1000 * interval
            if now >= self._probe_at.setdefault(pod.uid, first):
                self._probe_at[pod.uid] = now + interval
                found += self._begun(policy, pod)
            self.next_probe = min(self.next_probe, self._probe_at[pod.uid])
        return found

    def _begun(self, policy: Policy, pod: WatchedPod) -> list[Probe]:
        """A probe of the pod; none if it has no such port."""
        progress = policy.progress
        assert progress is not None
        port = progress.port if isinstance(progress.port, int) else pod.ports.get(progress.port)
        if port is None:
            return []
        self._probed.add(pod.uid)
        return [Probe(policy.key, pod.uid, pod.address, port, progress.path)]
