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
# The chart's values key of each image that is built here.
_IMAGES = {
    "worker": "worker",
    "remediator": "remediator",
    "rabbitmq": "rabbitmq",
    "node-problem-detector": "nodeProblemDetector",
}


class NotReady(Exception):
    """The cluster lacks something that the demo needs; the message says what, and what to do."""


@dataclass(frozen=True)
class Site:
    """A cluster to install on, and the helm arguments that fit it."""

    kube: Kube
    arguments: list[str] = field(default_factory=list)
    local: Cluster | None = None


def find(console: Console, name: str) -> Site:
    """The site that the environment chooses: `CLUSTER=current`, or the local cluster `name`.

    Raises NotReady.
    """
    return _current(console) if is_current() else _local(console, name)


def is_current() -> bool:
    """Whether `CLUSTER=current` was chosen; raises NotReady on any other value than `local`."""
    choice = os.environ.get("CLUSTER", "local")
    if choice not in ("local", "current"):
        raise NotReady(f"CLUSTER is {choice!r}; allowed: local (the default), current")
    return choice == "current"


def clear(site: Site, release: str, namespace: str) -> None:
    """Take an earlier demo's release away, with its namespace, volumes and messages."""
    kube = site.kube
    gone = ["--ignore-not-found", "--wait", "--timeout", "5m"]
    kube.helm("uninstall", release, "--namespace", namespace, *gone)
    kube.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=180s")
    if site.local:
        site.local.reset_volumes()


def _local(console: Console, name: str) -> Site:
    with console.step("A real cluster on this machine: control plane, two nodes, KEDA"):
        cluster = Cluster(name, say=console.say)
        cluster.up()
    with console.step("Container images"):
        built = images.ensure(list(_IMAGES))
        for one, image in built.items():
            cluster.load(image.archive)
            console.say(f"{one}: {image.size_bytes / 1e6:.0f} MB, {image.ref}")
    arguments = ["--values", str(_HERE / "values.yaml")]
    for one, key in _IMAGES.items():
        repository, _, tag = built[one].ref.rpartition(":")
        arguments += ["--set-string", f"{key}.image.repository={repository}"]
        arguments += ["--set-string", f"{key}.image.tag={tag}"]
    programs = parts.ensure(["kubectl", "helm"])
    kube = Kube(str(programs["kubectl"]), str(programs["helm"]), cluster.kubeconfig)
    return Site(kube, arguments, cluster)


def _current(console: Console) -> Site:
    """The kubeconfig at hand; VALUES names a file that says where the images are."""
    programs = {name: shutil.which(name) for name in ("kubectl", "helm")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        raise NotReady(f"CLUSTER=current needs {' and '.join(missing)} on the PATH")
    kube = Kube(str(programs["kubectl"]), str(programs["helm"]))
    values = os.environ.get("VALUES")
    if not values or not Path(values).is_file():
        raise NotReady(
            "CLUSTER=current needs VALUES=<file> with worker.image and remediator.image:"
            " build them (make images), push them where your cluster can pull them"
        )
    with console.step("The cluster at hand"):
        try:
            console.say(kube.kubectl("config", "current-context").strip())
            kube.kubectl("get", "customresourcedefinition", "scaledobjects.keda.sh")
        except CommandFailed as error:
            raise NotReady(f"no cluster with KEDA (https://keda.sh/docs/deploy): {error}") from None
    return Site(kube, ["--values", str(_HERE / "values.yaml"), "--values", values])
