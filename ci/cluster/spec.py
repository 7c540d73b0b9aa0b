"""What a cluster is to consist of, as asked for on the command line or by a test."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ci.cluster.errors import ClusterError
from ci.cluster.layout import MAX_NODES

# In the order in which they are installed: KEDA's parts find each other by DNS.
DEFAULT_ADDONS = ("coredns", "metrics-server", "keda")
# Not in the cluster but beside it.
MONITORING = "monitoring"
ADDONS = (*DEFAULT_ADDONS, MONITORING)
MAX_KWOK_NODES = 10_000

CONTROL_PLANE_PARTS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubectl",
)
NODE_PARTS = ("kubelet", "kube-proxy")
KWOK_PARTS = ("kwok", "kwok-stages")
_ADDON_PARTS: Mapping[str, tuple[str, ...]] = {
    "keda": ("keda-config",),
    "metrics-server": ("metrics-server-manifests",),
    MONITORING: ("kube-state-metrics", "prometheus", "alertmanager"),
}
_ADDON_IMAGES: Mapping[str, tuple[str, ...]] = {
    "coredns": ("coredns",),
    "metrics-server": ("metrics-server",),
    "keda": ("keda-operator", "keda-adapter", "keda-webhooks"),
}


@dataclass(frozen=True)
class Spec:
    """`nodes` real nodes (0: a bare control plane), addons on them, and pretended KWOK nodes."""

    nodes: int = 2
    addons: tuple[str, ...] = DEFAULT_ADDONS
    kwok: int | None = None
    """None: no KWOK; 0: KWOK runs and manages the nodes that others make; n: it has n nodes."""
    audit: bool = False
    """Whether the API server writes down who asked for what (`Layout.audit_log`)."""

    def __post_init__(self) -> None:
        if not 0 <= self.nodes <= MAX_NODES:
            raise ClusterError(f"nodes: {self.nodes} is not between 0 and {MAX_NODES}")
        if self.kwok is not None and not 0 <= self.kwok <= MAX_KWOK_NODES:
            raise ClusterError(f"kwok: {self.kwok} is not between 0 and {MAX_KWOK_NODES}")
        unknown = sorted(set(self.addons) - set(ADDONS))
        if unknown:
            raise ClusterError(
                f"no such addon: {', '.join(unknown)}; there are {', '.join(ADDONS)}"
            )
        if self.pods and self.nodes == 0:
            raise ClusterError(f"{', '.join(self.pods)} need a real node, and nodes is 0")

    @property
    def pods(self) -> list[str]:
        """The addons that run in the cluster."""
        return [addon for addon in self.addons if addon != MONITORING]

    @property
    def parts(self) -> list[str]:
        """The names of the parts (`ci.parts`) that this needs."""
        names = list(CONTROL_PLANE_PARTS)
        if self.nodes:
            names += NODE_PARTS
        if self.kwok is not None:
            names += KWOK_PARTS
        for addon in self.addons:
            names += _ADDON_PARTS.get(addon, ())
        return names

    @property
    def images(self) -> list[str]:
        """The names of the images (`ci.images`) that this needs on each node."""
        names = ["pause"] if self.nodes else []
        for addon in self.pods:
            names += _ADDON_IMAGES[addon]
        return names

    def document(self) -> dict[str, Any]:
        """As kept in the state file."""
        return {
            "nodes": self.nodes,
            "addons": list(self.addons),
            "kwok": self.kwok,
            "audit": self.audit,
        }


def from_document(document: Mapping[str, Any]) -> Spec:
    """The inverse of `Spec.document`."""
    return Spec(
        document["nodes"],
        tuple(document["addons"]),
        document["kwok"],
        document.get("audit", False),
    )


def parse_with(text: str) -> tuple[tuple[str, ...], int | None]:
    """Addons and KWOK nodes from `keda,metrics-server,kwok=100`; `none` and an empty text are none.

    KEDA and metrics-server bring CoreDNS, without which no pod finds a service.
    """
    chosen: set[str] = set()
    kwok = None
    for word in filter(None, (word.strip() for word in text.split(","))):
        if word == "kwok" or word.startswith("kwok="):
            kwok = _count(word)
        elif word == MONITORING:
            chosen.add(word)
        elif word in ADDONS:
            chosen |= {word, "coredns"}
        elif word != "none":
            raise ClusterError(f"--with {word}: choose from {', '.join(ADDONS)}, kwok=N, none")
    return tuple(addon for addon in ADDONS if addon in chosen), kwok


def _count(word: str) -> int:
    _, _, number = word.partition("=")
    if not number.isdecimal():
        raise ClusterError(f"--with {word}: say how many nodes, for example kwok=100")
    return int(number)
