"""Where the demo runs: the local cluster with images built here, or the kubeconfig at hand."""

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from ci import images, parts
from ci.cluster import Cluster
from ci.demo.console import Console
from ci.demo.kube import CommandFailed, Kube

_HERE = Path(__file__).parent
CHART = _HERE.parents[1] / "chart"
_OURS = ("worker", "remediator", "rabbitmq", "node-problem-detector")


@dataclass(frozen=True)
class Site:
    """A cluster to install on, and the values that fit it."""

    kube: Kube
    settings: list[str] = field(default_factory=list)  # `--set-string` arguments: the images
    values: list[Path] = field(default_factory=list)
    local: Cluster | None = None


class NotReady(Exception):
    """The cluster lacks something that the demo needs; the message says what, and what to do."""


def find(console: Console) -> Site:
    """The site that the environment chooses: `CLUSTER=current`, or the local cluster."""
    return _current(console) if is_current() else _local(console)


def is_current() -> bool:
    choice = os.environ.get("CLUSTER", "local")
    if choice not in ("local", "current"):
        raise NotReady(f"CLUSTER is {choice!r}; allowed: local (the default), current")
    return choice == "current"
