"""Whether the pods to move fit elsewhere: requests against free allocatable. Pure.

A first-fit of the largest pods first, with the scheduler's filters (see placement and topology). It
errs on the side of "does not fit": a drain that could not end is worse than one that waits. A
constraint that cannot be evaluated is named in the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from selfheal_remediator.drain.topology import Population, Resident, selects, tolerates
from selfheal_remediator.kube.objects import Capacity, Node
from selfheal_remediator.kube.placement import Terms, ports_clash, terms_match
from selfheal_remediator.kube.pods import Pod
from selfheal_remediator.node.taints import taint_instead

#: Labels and taints by which a cluster shows that nodes are made when pods need them.
_AUTOSCALER_LABELS = ("karpenter.sh/nodepool", "karpenter.sh/provisioner-name")
_AUTOSCALER_TAINTS = (
    "DeletionCandidateOfClusterAutoscaler",
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
)

#: Volumes of claims (namespace, name): the nodes that each can be used on, None = any.
ClaimTerms = Mapping[tuple[str, str], Terms | None]
_NO_CLAIMS: ClaimTerms = {}


@dataclass(slots=True)
class Room:
    """What is free on one node; shrinks as pods are placed."""

    node: Node
    cpu: int
    memory: int
    pods: int
    others: dict[str, int] = field(default_factory=dict)
    there: list[Resident] = field(default_factory=list)

    @classmethod
    def of(cls, node: Node, pods: Iterable[Pod]) -> Room:
        """The node's allocatable less what its unfinished pods request."""
        free = node.allocatable
        room = cls(node, free.cpu, free.memory, free.pods, dict(free.others))
        for pod in pods:
            if not pod.finished:
                room.take(pod)
        return room

    def copy(self) -> Room:
        """The same room, to place pods in on trial."""
        return replace(self, others=dict(self.others), there=list(self.there))

    def take(self, pod: Pod) -> None:
        """The pod is placed here."""
        self.cpu -= pod.requests.cpu
        self.memory -= pod.requests.memory
        self.pods -= 1
        for name, amount in pod.requests.others:
            self.others[name] = self.others.get(name, 0) - amount
        self.there.append(Resident.of(pod))

    def admits(
        self, pod: Pod, claims: ClaimTerms = _NO_CLAIMS, around: Population | None = None
    ) -> bool:
        """Whether the pod could be placed here; False if that is unknown.

        around: the pods that its constraints are about; None = those on this node.
        """
        if around is None:
            around = self.alone()
        return (
            self.fits(pod, claims) and not around.unread_of(pod) and around.allows(pod, self.node)
        )

    def fits(self, pod: Pod, claims: ClaimTerms = _NO_CLAIMS) -> bool:
        """Whether the pod fits on the node, without the constraints of other pods."""
        return (
            self._has(pod.requests)
            and selects(pod, self.node)
            and tolerates(pod, self.node)
            and self._reaches(pod, claims)
            and self._ports_free(pod)
        )

    def alone(self) -> Population:
        """The pods that are here, with nothing known of other nodes."""
        made = Population([self.node], complete=False)
        for resident in self.there:
            made.add(resident, self.node)
        return made

    def _has(self, request: Capacity) -> bool:
        return (
            self.pods >= 1
            and request.cpu <= self.cpu
            and request.memory <= self.memory
            and all(amount <= self.others.get(name, 0) for name, amount in request.others)
        )

    def _reaches(self, pod: Pod, claims: ClaimTerms) -> bool:
        """Whether the pod's volumes can be used here."""
        node = self.node
        return all(
            terms_match(claims.get((pod.namespace, claim)), node.labels, node.name)
            for claim in pod.claims
        )

    def _ports_free(self, pod: Pod) -> bool:
        ours = pod.placement.ports
        return not ours or not any(ports_clash(ours, other.placement.ports) for other in self.there)


def usable(node: Node) -> bool:
    """Whether new pods may go to the node; not to one that we cordoned by a taint alone."""
    if not node.ready or node.unschedulable or node.deleting:
        return False
    return taint_instead(node) is None


def place(
    pods: Iterable[Pod],
    room: Room,
    claims: ClaimTerms = _NO_CLAIMS,
    around: Population | None = None,
) -> list[Pod]:
    """Place what fits, the largest first; returns what is left over.

    around: the pods that are known, to which those that are placed are added.
    """
    left = []
    around = room.alone() if around is None else around
    for pod in sorted(pods, key=_size, reverse=True):
        if room.admits(pod, claims, around):
            room.take(pod)
            around.add(Resident.of(pod), room.node)
        else:
            left.append(pod)
    return left


def place_waiting(waiting: Iterable[Pod], room: Room) -> list[Pod]:
    """Reserve capacity for pending pods; returns those that do not fit here.

    Their constraints towards other pods are ignored, so more capacity may be reserved for them
    than they need.
    """
    left = []
    for pod in waiting:
        if room.fits(pod):
            room.take(pod)
        else:
            left.append(pod)
    return left


def _size(pod: Pod) -> tuple[int, int, int]:
    """What is hard to place comes first: devices, then CPU, then memory."""
    devices = sum("/" in name for name, _ in pod.requests.others)
    return devices, pod.requests.cpu, pod.requests.memory


def tied(terms: Terms | None, others: Iterable[Node]) -> bool:
    """Whether a volume that can be used on these nodes only can be used on none of the others.

    A zone or region that has no other usable node yet gets one where nodes are made on demand.
    """
    nodes = list(others)
    if terms is None or any(
        usable(node) and terms_match(terms, node.labels, node.name) for node in nodes
    ):
        return False
    zonal = all(term and all(item.key in _ZONAL for item in term) for term in terms)
    return not (zonal and autoscaled(nodes))


_ZONAL = (
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "topology.ebs.csi.aws.com/zone",
    "topology.gke.io/zone",
    "topology.disk.csi.azure.com/zone",
)


def autoscaled(nodes: Iterable[Node]) -> bool:
    """Whether the cluster shows that it makes nodes by itself."""
    return any(
        any(label in node.labels for label in _AUTOSCALER_LABELS)
        or any(taint.key in _AUTOSCALER_TAINTS for taint in node.taints)
        for node in nodes
    )


def expected(setting: str, nodes: Iterable[Node], seen: Callable[[], bool] = lambda: False) -> bool:
    """Whether nodes are added for pods that fit nowhere, by `drain.autoscaler`.

    seen: whether an active autoscaler is observed; called only if nothing else decides.
    """
    if setting != "auto":
        return setting == "present"
    return autoscaled(nodes) or seen()


def describe(left: list[Pod], usable: int, around: Population | None = None) -> str:
    """What does not fit or is unknown, for an Event. around: the known pods."""
    names = ", ".join(pod.id for pod in left[:3]) + (", …" if len(left) > 3 else "")
    cpu = sum(pod.requests.cpu for pod in left)
    memory = sum(pod.requests.memory for pod in left) / 2**20
    more: dict[str, int] = {}
    for pod in left:
        for name, amount in pod.requests.others:
            if "/" in name or name.startswith("hugepages-"):
                more[name] = more.get(name, 0) + amount
    sums = "".join(f", {amount} {name}" for name, amount in sorted(more.items()))
    text = (
        f"{len(left)} pods ({names}; {cpu}m CPU, {memory:.0f} MiB{sums} requested) fit on none of "
        f"{usable} usable nodes"
    )
    around = Population([]) if around is None else around
    unread = [(pod.id, around.unread_of(pod)) for pod in left]
    unknown = [f"{name}: {', '.join(texts)}" for name, texts in unread if texts]
    if unknown:
        shown = "; ".join(unknown[:3]) + ("; …" if len(unknown) > 3 else "")
        text += f"; cannot tell for {len(unknown)} of them ({shown})"
    return text
