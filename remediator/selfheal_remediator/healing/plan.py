"""Inputs and outputs of pod healing: values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selfheal_remediator.healing.canary import Canary
from selfheal_remediator.healing.pod_health import Cause, WatchedPod
from selfheal_remediator.healing.policy import PAUSED, Status
from selfheal_remediator.healing.progress_reports import Probe
from selfheal_remediator.node.skip_reason import SkipReason


@dataclass(frozen=True, slots=True)
class Owner:
    """A pod's owner: the topmost controller known (Deployment, StatefulSet, …).

    desired: its number of pods, None = it has none. rolling: why its pods are being changed,
    empty = they are not. template: names its current pod template. stopped: why a change of its
    pods makes no progress, as it reports, empty = it reports nothing. unseen: its controller has
    not observed its last change: nothing replaces its pods meanwhile. progress: counts that grow
    while its pods are changed. deadline: seconds that it allows without progress, None = not
    given; patience: additional seconds that each step may take. renews: the revision of a
    restarted pod, empty = not known.
    """

    uid: str
    kind: str
    name: str
    api: str
    desired: int | None
    rolling: str = ""
    template: str = ""
    stopped: str = ""
    unseen: bool = False
    progress: tuple[int, ...] = ()
    deadline: float | None = None
    patience: float = 0.0
    renews: str = ""


@dataclass(frozen=True, slots=True)
class Around:
    """What an evaluation needs beside the pods.

    node_trouble: why pods of a node are left alone, empty = they are not. node_path: whether a
    finding on the node would be acted upon by the rules for nodes. stopped: why nothing may be
    restarted at all (paused, API server unhealthy), empty = it may. listed: whether all policies
    are known.
    """

    node_trouble: Callable[[str], str]
    node_path: Callable[[str], bool]
    stopped: str = ""
    listed: bool = True

    @property
    def paused(self) -> bool:
        """Whether a person has paused the remediator."""
        return self.stopped.startswith(PAUSED)


#: Every cause of a Block that the engine itself gives (refusals of the server add theirs).
BLOCKS = (
    "stale", "paused", "stopped", "other-policy", "unmanaged", "kept", "node", "siblings",
    "node-finding", "under-way", "leaving", "owner-unknown", "rollout", "scale-in", "gave-up",
    "backoff", "unobserved", "controller",
    "canary",
)  # fmt: skip
#: An ordered restart was called back before it was sent.
RECALLED = "recalled"


@dataclass(frozen=True, slots=True)
class RestartAction:
    """One pod to restart. `status` is written first; grace period in seconds, None = its own.

    stuck: why it is restarted although its owner is being rolled out, empty = it is not.
    before: the owner's canary before this restart. canary: what the status must contain before the
    eviction is sent, because all pods of the owner are unhealthy; None = nothing.
    """

    policy: str
    pod: WatchedPod
    owner: Owner
    cause: Cause
    why: str
    grace: int | None
    at: float
    status: Status
    stuck: str = ""
    before: Canary | None = None
    canary: Canary | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to say as an Event, on the policy and on the owner (None = the policy only)."""

    policy: str
    owner: Owner | None
    reason: str
    message: str
    warning: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """Pods of several owners are unhealthy on one node and healthy elsewhere."""

    node: str
    since: float
    text: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now. lookups: a pod each of controllers of which nothing is known.

    recalls: earlier restarts that must not be sent any more, and why.
    """

    restarts: tuple[RestartAction, ...] = ()
    recalls: tuple[tuple[RestartAction, SkipReason], ...] = ()
    notices: tuple[Notice, ...] = ()
    probes: tuple[Probe, ...] = ()
    lookups: tuple[WatchedPod, ...] = ()
    wake: float | None = None
