"""Every pod that the chart can make is admitted by the API server's own Pod Security admission."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from typing import Any

import yaml

from ci.cluster import ClusterError
from tests.chart.rendering import CASES, Manifest, pod_specs
from tests.control_plane.chart.conftest import CHART, Site
from tests.support.waiting import until

Object = dict[str, Any]

#: Without a cluster of OpenShift, as Argo CD renders for one.
OPENSHIFT = "global.compatibility.openshift.adaptSecurityContext=force"
#: What the annotations `openshift.io/sa.scc.*` of a namespace give its pods.
ASSIGNED, LEVEL = 1000650000, "s0:c26,c5"
#: Fields that name other objects: an API server without those refuses the pod for another reason.
REFERENCES = ("serviceAccountName", "priorityClassName", "runtimeClassName")


def test_every_pod_is_admitted_where_restricted_is_enforced(site: Site) -> None:
    pods = _pods(site)
    assert _components(pods) >= {"worker", "rabbitmq", "ollama", "remediator", "topology"}
    assert _refused(site, pods) == {}


def test_every_pod_for_openshift_is_admitted_with_the_ids_that_it_assigns(site: Site) -> None:
    """`restricted-v2` takes a pod without ids and assigns them; here a stated one stands for it."""
    pods = _pods(site, f"--set={OPENSHIFT}")
    stated = {name for name, pod in pods.items() for context in _contexts(pod) if _ids(context)}
    assert stated == set()
    assert _refused(site, pods) == {}
    assert _refused(site, {name: _assigned(pod) for name, pod in pods.items()}) == {}


def test_the_detector_is_admitted_in_its_own_namespace_and_in_no_restricted_one(
    site: Site,
) -> None:
    """It reads the host's log: the reason why it has a namespace of its own."""
    manifests = _rendered(site, "default")
    [namespace] = [m for m in manifests if m["kind"] == "Namespace"]
    [daemons] = [m for m in manifests if m["kind"] == "DaemonSet"]
    pod = {"detector": _pod("detector", daemons, daemons["spec"]["template"]["spec"])}
    name = namespace["metadata"]["name"]
    site.cluster.kubectl("create", "-f", "-", input=yaml.safe_dump(namespace))
    try:
        assert _refused(site, pod, name) == {}
        assert "hostPath" in _refused(site, pod)["detector"]
    finally:
        site.cluster.kubectl("delete", "namespace", name, "--wait=true")


def _pods(site: Site, *flags: str) -> dict[str, Object]:
    """Pods as the templates of all cases make them in the release's namespace; equal ones once."""
    with ThreadPoolExecutor(2) as pool:
        rendered = list(pool.map(lambda case: _rendered(site, case, *flags), CASES))
    found: dict[str, Object] = {}
    for case, manifests in zip(CASES, rendered, strict=True):
        for number, (owner, spec) in enumerate(pod_specs(manifests)):
            if owner["metadata"].get("namespace") == site.namespace:
                name = f"{case}-{number}"
                found.setdefault(json.dumps(_pod("", owner, spec)), _pod(name, owner, spec))
    return {pod["metadata"]["name"]: pod for pod in found.values()}


def _rendered(site: Site, case: str, *flags: str) -> list[Manifest]:
    files = [f"--values={path}" for path in CASES[case]]
    command = ["template", "selfheal", str(CHART), "-n", site.namespace, *files, *flags]
    return [m for m in yaml.load_all(site.helm(*command), yaml.CSafeLoader) if m]


def _pod(name: str, owner: Manifest, spec: Manifest) -> Object:
    """What the owner's controller makes of its template."""
    template = owner if owner["kind"] == "Pod" else owner["spec"]["template"]
    spec = {key: deepcopy(value) for key, value in spec.items() if key not in REFERENCES}
    for claim in owner["spec"].get("volumeClaimTemplates", ()):
        volume = claim["metadata"]["name"]
        bound = {"name": volume, "persistentVolumeClaim": {"claimName": f"{volume}-0"}}
        spec.setdefault("volumes", []).append(bound)
    metadata = {"name": name, "labels": template["metadata"].get("labels", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _components(pods: dict[str, Object]) -> set[str]:
    labels = (pod["metadata"]["labels"] for pod in pods.values())
    return {one.get("app.kubernetes.io/component", "") for one in labels}


def _contexts(pod: Object) -> Iterator[Object]:
    spec = pod["spec"]
    for one in (spec, *spec.get("initContainers", ()), *spec["containers"]):
        yield one.setdefault("securityContext", {})


def _ids(context: Object) -> set[str]:
    return {"runAsUser", "runAsGroup", "fsGroup", "supplementalGroups"} & context.keys()


def _assigned(pod: Object) -> Object:
    """The pod with what the security context constraints `restricted-v2` write into it."""
    made = deepcopy(pod)
    whole, *containers = _contexts(made)
    whole |= {"fsGroup": ASSIGNED, "seLinuxOptions": {"level": LEVEL}}
    for context in containers:
        context["runAsUser"] = ASSIGNED
    return made


def _refused(site: Site, pods: dict[str, Object], namespace: str = "") -> dict[str, str]:
    """What the API server has against each pod that it would not make, by the pod's name."""
    create = ("create", "--dry-run=server", "-n", namespace or site.namespace, "-f", "-")

    def account() -> str:
        where = ("-n", namespace or site.namespace, "--ignore-not-found")
        return site.cluster.kubectl("get", "serviceaccount", "default", *where)

    until("the namespace's service account", account)
    listed = {"apiVersion": "v1", "kind": "List", "items": list(pods.values())}
    try:
        site.cluster.kubectl(*create, input=json.dumps(listed))
    except ClusterError as error:
        said = str(error)
        named = {name: [o for o in said.splitlines() if f'"{name}"' in o] for name in pods}
        found = {name: "\n".join(lines) for name, lines in named.items() if lines}
        assert found, said
        return found
    return {}
