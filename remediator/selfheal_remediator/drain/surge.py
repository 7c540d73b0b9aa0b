"""Whether a Deployment is rolled out so that its only pod may leave a draining node. Pure.

A budget that needs the only pod of a Deployment never allows its eviction. A rollout brings a new
pod first, on another node because this one is cordoned, and the Deployment's controller stops the
old one when the new one is ready. The rollout is begun by an annotation of the pod template, as
`kubectl rollout restart` does it.

What was done is written on the Deployment in the same request, which fails if the Deployment has
changed since it was read: who leads next reads there that nothing is to be done again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from selfheal_remediator.backoff import delay_after
from selfheal_remediator.kube.deployments import Deployment
from selfheal_remediator.kube.fields import Flag, Text, Whole, mistakes, time_text
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.placement import HOSTNAME
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.moments import credible

#: On a Deployment: its owner wants this.
SURGE_KEY = "selfheal.dev/surge"
#: On a Deployment: what was done. On its pod template: for which cordon.
SURGED_KEY = "selfheal.dev/surged"
UNDER_WAY = "the new pod is to be ready before this one stops"
#: What is evicted for the new pod's sake is missing once the old one stops, a moment later.
SHARED = "its PDB counts other pods, too, and would let one of them go for the new one"
MAY_OPEN = "its PDB counts more pods than it needs"
#: Who replaces whole objects removes what was written down, too: both would continue for ever.
PUT_BACK = "somebody has undone its rollout for this cordon"
#: Seconds until the same Deployment is rolled out again: after one rollout, and at most.
FIRST_AGAIN, LONGEST_AGAIN = 600.0, 7200.0
#: So many rollouts of one Deployment in so many seconds.
MOST, MOST_IN = 4, 86400.0


class Surge(Enum):
    """What is to be done about the Deployment of a pod that a budget keeps."""

    NOTHING = "nothing"  # it has none, or its owner does not want this
    START = "start"  # begin a rollout
    UNDO = "undo"  # its rollout failed: back to the template that it had
    ROLLING = "rolling"  # its rollout for this cordon is under way
    WAIT = "wait"  # not now
    REFUSED = "refused"  # not as the Deployment and the pod are


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done, and why; deployment: which one it is, for people."""

    surge: Surge = Surge.NOTHING
    why: str = ""
    deployment: str = ""

    @property
    def text(self) -> str:
        """For the drain's Events, `plan` and `status`; empty = nothing to say."""
        match self.surge:
            case Surge.NOTHING:
                return ""
            case Surge.START:
                return f"Deployment {self.deployment} would be rolled out (surge)"
            case Surge.ROLLING:
                return f"Deployment {self.deployment} is rolled out (surge): {self.why}"
            case Surge.UNDO:
                return f"the surge of Deployment {self.deployment} is undone: {self.why}"
            case Surge.WAIT:
                return f"no surge of Deployment {self.deployment} now: {self.why}"
            case Surge.REFUSED:
                return f"no surge of Deployment {self.deployment}: {self.why}"


NOTHING = Decision()


def cordon_mark(node_uid: str, since: int) -> str:
    """Names one cordon of one node (since: of its State): the same for every leader."""
    return f"{node_uid}-{since}"


@dataclass(frozen=True, slots=True)
class Surged:
    """What was done to a Deployment. mark: of the last cordon; before: what the template's
    annotation was then, None = it had none; generation: of the Deployment with the rollout; undone:
    its rollout failed; at: when rollouts were begun within MOST_IN, in seconds since the epoch."""

    __pydantic_config__: ClassVar = ConfigDict(extra="ignore")

    mark: Text = ""
    before: Text | None = None
    generation: Whole = 0
    undone: Flag = False
    at: tuple[Annotated[Whole, Field(ge=0, le=2**40)], ...] = ()

    def to_json(self) -> str:
        """The annotation's text."""
        raw = _ADAPTER.dump_python(self, mode="json", exclude_defaults=True)
        return json.dumps(raw, separators=(",", ":"))


_ADAPTER = TypeAdapter(Surged)


def _surged(deployment: Deployment) -> Surged:
    """Raises ValueError for an annotation that cannot be read."""
    text = (deployment.annotations or {}).get(SURGED_KEY)
    if text is None:
        return Surged()
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        raise ValueError(f"annotation {SURGED_KEY}: {mistakes(error)}") from error


def decide(
    deployment: Deployment | None,
    pod: Pod,
    mark: str,
    now: float,
    *,
    kept: bool = True,
    unless: str = "",
) -> Decision:
    """What is to be done about the Deployment (as just read, None = the pod is of none) whose pod a
    budget refused to let go. mark: see cordon_mark; now: seconds since the epoch; kept: the budget
    never lets it go, so that a rollout may be begun; unless: why it may not all the same."""
    if deployment is None or deployment.deleting or not _wanted(deployment):
        return NOTHING
    surge, why = _decide(deployment, pod, mark, now, kept=kept)
    if unless and surge is Surge.START:
        surge, why = Surge.REFUSED, unless
    return Decision(surge, why, deployment.id)


def _wanted(deployment: Deployment) -> bool:
    return (deployment.annotations or {}).get(SURGE_KEY) == "true"


def _decide(
    deployment: Deployment, pod: Pod, mark: str, now: float, *, kept: bool
) -> tuple[Surge, str]:
    try:
        surged = _surged(deployment)
    except ValueError as error:
        return Surge.REFUSED, str(error)
    begun = _begun(deployment, surged)
    # A rollout of an earlier cordon may have failed when its drain had ended.
    if surged.mark == mark or begun[0] is Surge.UNDO:
        return begun
    unfit = _unfit(deployment) or _bound(pod)
    if unfit:
        return (Surge.REFUSED, unfit) if kept else (Surge.NOTHING, "")
    busy = _busy(deployment, pod) or _too_soon(surged, now) or ("" if kept else MAY_OPEN)
    return (Surge.WAIT, busy) if busy else (Surge.START, "")


def _begun(deployment: Deployment, surged: Surged) -> tuple[Surge, str]:
    """What follows the rollout that was begun for its last cordon."""
    if surged.undone:
        return Surge.REFUSED, "its rollout for this cordon failed and was undone"
    if (deployment.template or {}).get(SURGED_KEY) != surged.mark:
        return Surge.REFUSED, "its template was changed after its rollout for this cordon"
    if deployment.settled:
        return Surge.REFUSED, "it was rolled out for this cordon"
    if not (deployment.observed and deployment.stopped):
        return Surge.ROLLING, UNDER_WAY
    if deployment.paused or deployment.generation != surged.generation:
        return Surge.REFUSED, f"{deployment.stopped}, and it was changed meanwhile"
    return Surge.UNDO, deployment.stopped


def _unfit(deployment: Deployment) -> str:
    """Why a rollout of it would not help or is not ours to begin, empty = it may be begun."""
    if deployment.controller:
        return f"{deployment.controller} manages it and might undo it"
    if deployment.replicas != 1:
        return f"it has {deployment.replicas} replicas, a surge is for the only one"
    if not deployment.gives_up:
        return "it has no progressDeadlineSeconds, so a rollout that fails would never be undone"
    return _stops_first(deployment) or ("its rollouts are paused" if deployment.paused else "")


def _stops_first(deployment: Deployment) -> str:
    """Why the old pod stops before the new one is ready, empty = it does not: without a pod beyond
    the replicas, or with one that may be missing, it does."""
    if deployment.strategy != "RollingUpdate":
        return f"its strategy is {deployment.strategy}, which stops the old pod first"
    if deployment.surge < 1:
        return "its maxSurge is 0, so a rollout stops the old pod first"
    if deployment.unavailable > 0:
        return "its maxUnavailable lets a rollout stop the old pod first"
    return ""


def _bound(pod: Pod) -> str:
    """Why the new pod could not run beside the old one, as far as is known, empty = it could."""
    if pod.claims:
        return f"its pod uses a volume (claim {pod.claims[0]}), which two nodes may not share"
    for term in pod.placement.apart:
        if term.key != HOSTNAME and term.peers.include(pod.namespace, pod.labels):
            return f"two of its pods may not be in one {term.key} (its anti-affinity)"
    return ""


def _busy(deployment: Deployment, pod: Pod) -> str:
    """What has to end first."""
    if not deployment.observed:
        return "its controller has not observed its last change yet"
    if deployment.rolling or deployment.stopped:
        return deployment.rolling or deployment.stopped
    if not deployment.settled or not pod.ready:
        return "its pod is not available"
    return ""


def _too_soon(surged: Surged, now: float) -> str:
    """Whether it was rolled out too recently, or too often."""
    recent = _recent(surged, now)
    if not recent:
        return ""
    if len(recent) >= MOST:
        until = recent[-MOST] + MOST_IN
        return f"{len(recent)} rollouts in 24h, the next one after {time_text(until)}"
    until = recent[-1] + delay_after(len(recent), first=FIRST_AGAIN, longest=LONGEST_AGAIN)
    if now >= until:
        return ""
    return f"its last rollout was a moment ago, the next one after {time_text(until)}"


def _recent(surged: Surged, now: float) -> list[int]:
    return sorted(
        moment for moment in surged.at if moment > now - MOST_IN and credible(moment, now)
    )


# -- the requests ---------------------------------------------------------------------------


def start_patch(deployment: Deployment, mark: str, now: float) -> list[Json]:
    """Begin the rollout of the Deployment as it was read, and write that down."""
    before = (deployment.template or {}).get(SURGED_KEY)
    at = (*_recent(_surged(deployment), now), int(now))
    ops = _written(deployment, Surged(mark, before, deployment.generation + 1, at=at))
    if deployment.template is None:
        ops.append(_add(_TEMPLATE, {}))
    return [*ops, _add(_path(_TEMPLATE), mark)]


def undo_patch(deployment: Deployment) -> list[Json]:
    """Back to the template before the rollout, by which the old ReplicaSet is the current one."""
    surged = _surged(deployment)
    ops = _written(deployment, replace(surged, undone=True))
    if surged.before is not None:
        return [*ops, _add(_path(_TEMPLATE), surged.before)]
    alone = set(deployment.template or ()) == {SURGED_KEY}
    return [*ops, {"op": "remove", "path": _TEMPLATE if alone else _path(_TEMPLATE)}]


_TEMPLATE = "/spec/template/metadata/annotations"


def _path(annotations: str) -> str:
    return f"{annotations}/{SURGED_KEY.replace('/', '~1')}"


def _written(deployment: Deployment, surged: Surged) -> list[Json]:
    ops = [
        {"op": "test", "path": "/metadata/uid", "value": deployment.uid},
        {"op": "test", "path": "/metadata/resourceVersion", "value": deployment.version},
    ]
    if deployment.annotations is None:
        ops.append(_add("/metadata/annotations", {}))
    return [*ops, _add(_path("/metadata/annotations"), surged.to_json())]


def _add(path: str, value: object) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}
