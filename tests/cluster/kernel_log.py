"""A node's kernel log as a file of its own, so that no test writes into the machine's."""

from __future__ import annotations

import time
from pathlib import Path

from ci.cluster import Cluster
from ci.demo.kube import Object

_FILE = "kern.log"
#: A line by which the chart's own rule for KernelDeadlock knows one.
HUNG = "kernel: task containerd-shim:4242 blocked for more than 120 seconds."
#: The chart's monitor with its rules, on the node's own file instead of /dev/kmsg.
MONITOR: Object = {
    "plugin": "filelog",
    "logPath": f"/var/log/{_FILE}",
    "lookback": "0s",
    "pluginConfig": {
        "timestamp": r"^\S+",
        "message": r"kernel: (.*)$",
        "timestampFormat": "2006-01-02T15:04:05Z",
    },
}


def file(cluster: Cluster, node: str, name: str = _FILE) -> Path:
    """A file of the node's /var/log, as it is called on this machine."""
    return cluster.layout.node_root(node) / "log" / name


def write(cluster: Cluster, node: str, line: str) -> None:
    """The node's kernel says something."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with file(cluster, node).open("a") as log:
        log.write(f"{moment} {line}\n")
