"""Everything that a cluster of a given name makes on this machine, derived from the name alone.

So whatever was killed, wherever it was, `down` knows what to search for.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from ci.cluster.errors import ClusterError

STATE_ROOT = Path("/var/lib/selfheal")
LOCK_ROOT = Path("/run/lock")
SERVICE_NETWORK = IPv4Network("10.96.0.0/16")
API_SERVICE_ADDRESS = SERVICE_NETWORK[1]
DNS_ADDRESS = SERVICE_NETWORK[10]
POD_NETWORK = IPv4Network("10.244.0.0/16")
DOMAIN = "cluster.local"
API_PORT = 6443
MAX_NODES = 8

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")


@dataclass(frozen=True)
class Layout:
    """Paths and names of the cluster `name` (a DNS label of at most 30 characters)."""

    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ClusterError(
                f"cluster name {self.name!r}: use lower-case letters, digits and '-', at most 30,"
                " beginning and ending with a letter or digit"
            )

    @cached_property
    def root(self) -> Path:
        """The folder of all of the cluster's files; removed by `down`."""
        return STATE_ROOT / self.name

    @property
    def lock(self) -> Path:
        """Held by whoever starts or stops the cluster."""
        return LOCK_ROOT / f"selfheal-{self.name}.lock"

    @property
    def state_file(self) -> Path:
        """The specification, the network and how far `up` got."""
        return self.root / "state.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's, usable from the host."""
        return self.root / "kubeconfig"

    @property
    def certificates(self) -> Path:
        """Keys, certificates and the parts' kubeconfigs."""
        return self.root / "pki"

    @property
    def processes(self) -> Path:
        """One file a process: its id and start time."""
        return self.root / "processes"

    @property
    def logs(self) -> Path:
        """One log a part."""
        return self.root / "logs"

    @property
    def audit_policy(self) -> Path:
        """What the API server writes down of requests; there only when asked for."""
        return self.certificates / "audit-policy.json"

    @property
    def audit_log(self) -> Path:
        """One line of JSON for each request."""
        return self.logs / "audit.json"

    @property
    def volumes(self) -> Path:
        """The folders behind the persistent volumes."""
        return self.root / "volumes"

    @property
    def cgroup(self) -> str:
        """The parent of all of the cluster's cgroups, relative to each hierarchy's root."""
        return f"selfheal-{self.name}"

    @property
    def link(self) -> str:
        """The one network interface on the host (names are limited to 15 characters)."""
        return "sh" + hashlib.sha256(self.name.encode()).hexdigest()[:10]

    @staticmethod
    def node_name(index: int) -> str:
        """`node-1` for index 1."""
        return f"node-{index}"

    def node_root(self, node: str) -> Path:
        """The folder whose parts the node sees as its own /var/lib/…, /run, /etc/cni, /var/log."""
        return self.root / node


@dataclass(frozen=True)
class Network:
    """The addresses of one cluster: a /24 for the machines, a /24 of pods a node."""

    machines: IPv4Network

    @property
    def host(self) -> IPv4Address:
        """This machine's end."""
        return self.machines[1]

    @property
    def control_plane(self) -> IPv4Address:
        """Where the API server listens."""
        return self.machines[2]

    def node(self, index: int) -> IPv4Address:
        """The node's address; `index` counts from 1."""
        return self.machines[10 + index]

    @staticmethod
    def pods(index: int) -> IPv4Network:
        """The node's pod addresses; `index` counts from 1."""
        return IPv4Network((int(POD_NETWORK.network_address) + index * 256, 24))

    @property
    def api_url(self) -> str:
        """The API server, as seen from the host and from the nodes."""
        return f"https://{self.control_plane}:{API_PORT}"
