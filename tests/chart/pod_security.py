"""The Pod Security standard `restricted`, as far as a pod's specification can break it.

Source: kubernetes.io/docs/concepts/security/pod-security-standards (v1.34).
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.chart.rendering import Manifest

ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
ALLOWED_CAPABILITIES = {"NET_BIND_SERVICE"}


def violations(spec: Manifest) -> list[str]:
    """What `restricted` has against a pod's spec, one sentence each."""
    containers = [*spec.get("initContainers", []), *spec["containers"]]
    found = list(_of_pod(spec))
    for container in containers:
        found += [f"{container['name']}: {said}" for said in _of_container(container, spec)]
    return found


def _of_pod(spec: Manifest) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield f"{key} is true"
    for volume in spec.get("volumes", []):
        for kind in volume.keys() - {"name"} - ALLOWED_VOLUMES:
            yield f"volume {volume['name']} is a {kind}"


def _of_container(container: Manifest, spec: Manifest) -> Iterator[str]:
    pod = spec.get("securityContext", {})
    own = container.get("securityContext", {})
    capabilities = own.get("capabilities", {})
    if own.get("privileged"):
        yield "is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allows privilege escalation"
    if "ALL" not in capabilities.get("drop", []):
        yield "does not drop ALL capabilities"
    if set(capabilities.get("add", [])) - ALLOWED_CAPABILITIES:
        yield "adds capabilities"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "may run as root"
    if own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield "runs as user 0"
    profile = own.get("seccompProfile", pod.get("seccompProfile", {}))
    if profile.get("type") not in {"RuntimeDefault", "Localhost"}:
        yield "has no seccomp profile"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "takes a port of the host"
