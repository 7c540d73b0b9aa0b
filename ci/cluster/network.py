"""Network namespaces of a cluster: the control plane's holds a bridge, to which the host and every
node have one wire. Only the host's end of its wire is outside; nothing touches the host's firewall.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path

from ci.cluster import processes
from ci.cluster.errors import ClusterError
from ci.cluster.layout import POD_NETWORK, SERVICE_NETWORK, Layout, Network

# Where the /24 networks of the clusters are taken from; each takes the first that is free.
_DEFAULT_CANDIDATES = "10.213.0.0/16"

CONTROL_PLANE = "control-plane"
_BRIDGE = "machines"
_HOLD_SECONDS = 30


def candidates() -> IPv4Network:
    """`SELFHEAL_NETWORK`, else the default; ClusterError for what is no network of IPv4."""
    text = os.environ.get("SELFHEAL_NETWORK") or _DEFAULT_CANDIDATES
    try:
        found = IPv4Network(text)
    except ValueError as error:
        words = f"SELFHEAL_NETWORK: {error} (for example {_DEFAULT_CANDIDATES})"
        raise ClusterError(words) from error
    if found.prefixlen > 24:
        raise ClusterError(f"SELFHEAL_NETWORK: {text} is smaller than a /24")
    return found


def choose(within: IPv4Network, used: Iterable[IPv4Network]) -> Network:
    """The first /24 `within` that overlaps nothing `used`; the default route does not count."""
    routes = [route for route in used if route.prefixlen > 0]
    for candidate in within.subnets(new_prefix=24):
        if not any(candidate.overlaps(route) for route in routes):
            return Network(candidate)
    overlapping = ", ".join(str(route) for route in routes if route.overlaps(within))
    raise ClusterError(
        f"no free network in {within} for the cluster: {overlapping} is in use."
        " SELFHEAL_NETWORK chooses another, for example SELFHEAL_NETWORK=172.29.0.0/16"
    )


def host_routes() -> list[IPv4Network]:
    """The destinations of the host's IPv4 routes, in all tables."""
    command = ["ip", "-json", "-4", "route", "show", "table", "all"]
    listed = json.loads(_answer(command, subprocess.run(command, capture_output=True, text=True)))
    found = []
    for route in listed:
        destination = route["dst"]
        if destination != "default":
            found.append(IPv4Network(destination, strict=False))
    return found


def make_control_plane(layout: Layout, network: Network) -> None:
    """Holds a namespace open and wires it to the host."""
    _hold(layout, CONTROL_PLANE, [])
    holder = processes.pid(layout, CONTROL_PLANE)
    inside = processes.enter(layout, CONTROL_PLANE)
    _ip(layout, "link", "add", _BRIDGE, "type", "bridge", inside=inside)
    _ip(layout, "addr", "add", f"{network.control_plane}/24", "dev", _BRIDGE, inside=inside)
    _ip(layout, "link", "set", _BRIDGE, "up", inside=inside)
    # Made with its peer inside already, so that it disappears with the namespace.
    _ip(
        layout,
        "link",
        "add",
        layout.link,
        "type",
        "veth",
        "peer",
        "name",
        "host",
        "netns",
        str(holder),
    )
    _ip(layout, "link", "set", "host", "master", _BRIDGE, "up", inside=inside)
    _ip(layout, "addr", "add", f"{network.host}/24", "dev", layout.link)
    _ip(layout, "link", "set", layout.link, "up")


def make_node(layout: Layout, network: Network, index: int, nodes: int, binds: list[str]) -> None:
    """Holds a node's namespaces open and wires it to the bridge, with routes to all pods.

    `binds` are shell commands that give the node its own folders in its mount namespace.
    """
    node = layout.node_name(index)
    _hold(layout, node, binds)
    inside = processes.enter(layout, node)
    bridge_side = processes.enter(layout, CONTROL_PLANE)
    holder = str(processes.pid(layout, node))
    _ip(
        layout,
        "link",
        "add",
        node,
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        holder,
        inside=bridge_side,
    )
    _ip(layout, "link", "set", node, "master", _BRIDGE, "up", inside=bridge_side)
    _ip(
        layout,
        "route",
        "add",
        str(network.pods(index)),
        "via",
        str(network.node(index)),
        inside=bridge_side,
    )
    _ip(layout, "addr", "add", f"{network.node(index)}/24", "dev", "eth0", inside=inside)
    _ip(layout, "link", "set", "eth0", "up", inside=inside)
    # kube-proxy redirects service addresses, but the kernel refuses what has no route before that.
    # There is no default route: nothing leaves the machine, and an attempt fails at once.
    _ip(layout, "route", "add", str(SERVICE_NETWORK), "dev", "eth0", inside=inside)
    for other in range(1, nodes + 1):
        if other != index:
            pods, via = str(network.pods(other)), str(network.node(other))
            _ip(layout, "route", "add", pods, "via", via, inside=inside)
    _run(layout, [*inside, "sysctl", "-qw", "net.ipv4.ip_forward=1"])


def remove(layout: Layout) -> None:
    """Removes the host's end of the wire, if the namespace's end did not take it away already."""
    deadline = time.monotonic() + 5
    while exists(layout):
        subprocess.run(["ip", "link", "delete", layout.link], capture_output=True)
        if time.monotonic() > deadline:
            raise ClusterError(f"the network interface {layout.link} cannot be removed")
        time.sleep(0.02)


def exists(layout: Layout) -> bool:
    """Whether the host's end of the wire is there."""
    return Path("/sys/class/net", layout.link).exists()


def reserved() -> list[IPv4Network]:
    """What lies inside a cluster, and so cannot be the network between its machines."""
    return [POD_NETWORK, SERVICE_NETWORK]


def _hold(layout: Layout, name: str, binds: list[str]) -> None:
    """Starts a process that owns a network and a mount namespace; returns when both are made."""
    ready = layout.processes.parent / f"{name}.ready"
    ready.unlink(missing_ok=True)
    setup = ["set -e", "ip link set lo up", *binds, f"touch {ready}", "exec sleep infinity"]
    unshared = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c"]
    processes.start(layout, name, [*unshared, "\n".join(setup)])
    deadline = time.monotonic() + _HOLD_SECONDS
    while not ready.exists():
        if processes.find(layout, name) is None or time.monotonic() > deadline:
            said = (layout.logs / f"{name}.log").read_text().strip()
            raise ClusterError(f"cannot make the namespaces of {name}: {said or 'no answer'}")
        time.sleep(0.01)


def _ip(layout: Layout, *arguments: str, inside: list[str] | None = None) -> None:
    _run(layout, [*(inside or []), "ip", *arguments])


def _run(layout: Layout, command: list[str]) -> None:
    _answer(command, processes.run(layout, command))


def _answer(command: list[str], done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
