"""Where the demo runs: the local cluster with images built here, or the kubeconfig at hand."""

import json
import os
import shutil
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

from ci import images, parts
from ci.cluster import Cluster, Spec
from ci.cluster.spec import ADDONS
from ci.demo.console import Console
from ci.demo.kube import CommandFailed, Kube
from ci.demo.model import Model

CHART = Path(__file__).parents[2] / "chart"
# The chart's values key of each image that is built here.
IMAGES = {
    "worker": "worker",
    "remediator": "remediator",
    "rabbitmq": "rabbitmq",
    "node-problem-detector": "nodeProblemDetector",
}


# Marks the namespace as the demo's, which may delete it with all that is in it.
_OURS = "selfheal.dev/demo"


class NotReady(Exception):
    """The cluster lacks something that the demo needs; the message says what, and what to do."""


@dataclass(frozen=True)
class Site:
    """A cluster to install on, and the helm arguments that fit it."""

    kube: Kube
    arguments: list[str] = field(default_factory=list)
    local: Cluster | None = None


def find(console: Console, name: str, model: Model) -> Site:
    """The site that the environment chooses: `CLUSTER=current`, or the local cluster `name`.

    Raises NotReady.
    """
    return _current(console, model) if is_current() else _local(console, name, model)


def check() -> None:
    """Raises NotReady at once, before anything is built, where the local cluster cannot be."""
    if is_current() or (sys.platform == "linux" and os.geteuid() == 0):
        return
    instead = "CLUSTER=current VALUES=<file> takes the cluster of your kubeconfig instead"
    if sys.platform != "linux":
        raise NotReady(f"a cluster on this machine needs Linux; {instead}")
    raise NotReady(f"a cluster on this machine needs root: sudo make demo; {instead}")


def check_node(site: Site, node: str) -> None:
    """Raises NotReady when a node was named that the cluster does not have."""
    there = [one["metadata"]["name"] for one in site.kube.items("nodes")]
    if node and node not in there:
        raise NotReady(f"--node {node}: the cluster has no such node; allowed: {', '.join(there)}")


def is_current() -> bool:
    """Whether `CLUSTER=current` was chosen; raises NotReady on any other value than `local`."""
    choice = os.environ.get("CLUSTER", "local")
    if choice not in ("local", "current"):
        raise NotReady(f"CLUSTER is {choice!r}; allowed: local (the default), current")
    return choice == "current"


def clear(site: Site, release: str, namespace: str) -> None:
    """Take an earlier demo's release away, with its namespace, volumes and messages.

    Raises NotReady when the namespace is there and no demo has made it.
    """
    kube = site.kube
    found = kube.kubectl("get", "namespace", namespace, "--ignore-not-found", "-o", "json")
    if not site.local and found and _OURS not in json.loads(found)["metadata"].get("labels", {}):
        raise NotReady(
            f"the namespace {namespace} of this cluster is not the demo's, which deletes its own."
            f" If it may be deleted: kubectl label namespace {namespace} {_OURS}=true"
        )
    gone = ["--ignore-not-found", "--wait", "--timeout", "5m"]
    kube.helm("uninstall", release, "--namespace", namespace, *gone)
    kube.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=180s")
    if site.local:
        site.local.reset_volumes()


def make_namespace(site: Site, namespace: str) -> None:
    """Make the namespace, marked as the demo's."""
    metadata = {"name": namespace, "labels": {_OURS: "true"}}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    site.kube.kubectl("apply", "-f", "-", input=json.dumps(manifest))


def current(console: Console) -> Site:
    """The kubeconfig at hand, as it is; raises NotReady when there is no cluster with KEDA."""
    programs = {name: shutil.which(name) for name in ("kubectl", "helm")}
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        raise NotReady(f"CLUSTER=current needs {' and '.join(missing)} on the PATH")
    kube = Kube(str(programs["kubectl"]), str(programs["helm"]))
    try:
        console.say(kube.kubectl("config", "current-context").strip())
        kube.kubectl("get", "customresourcedefinition", "scaledobjects.keda.sh")
    except CommandFailed as error:
        raise NotReady(f"no cluster with KEDA (https://keda.sh/docs/deploy): {error}") from None
    return Site(kube)


def _local(console: Console, name: str, model: Model) -> Site:
    with console.step("A real cluster on this machine: control plane, two nodes, KEDA, Prometheus"):
        cluster = Cluster(name, Spec(addons=ADDONS), say=console.say)
        cluster.up()
    with console.step("Container images"):
        keys = {**IMAGES, **model.images}
        built = images.ensure(list(keys))
        for one, image in built.items():
            cluster.load(image.archive)
            console.say(f"{one}: {image.size_bytes / 1e6:.0f} MB, {image.ref}")
    arguments = _values(model)
    for one, key in keys.items():
        repository, _, tag = built[one].ref.rpartition(":")
        arguments += ["--set-string", f"{key}.image.repository={repository}"]
        arguments += ["--set-string", f"{key}.image.tag={tag}"]
    for key, value in model.local_values.items():
        arguments += ["--set-string", f"{key}={value}"]
    programs = parts.ensure(["kubectl", "helm"])
    kube = Kube(str(programs["kubectl"]), str(programs["helm"]), cluster.kubeconfig)
    return Site(kube, arguments, cluster)


def _values(model: Model) -> list[str]:
    return [word for file in model.values for word in ("--values", str(file))]


def _current(console: Console, model: Model) -> Site:
    """The kubeconfig at hand; VALUES names a file that says where the images are."""
    values = os.environ.get("VALUES")
    if not values or not Path(values).is_file():
        raise NotReady(
            "CLUSTER=current needs VALUES=<file> with worker.image and remediator.image:"
            " build them (make images), push them where your cluster can pull them"
        )
    with console.step("The cluster at hand"):
        return replace(current(console), arguments=[*_values(model), "--values", values])
