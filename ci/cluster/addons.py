"""CoreDNS, metrics-server and KEDA: their own manifests, made to fit two small nodes."""

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ci.cluster.errors import ClusterError

Document = dict[str, Any]

_COREDNS = Path(__file__).with_name("coredns.yaml")

# The images of the containers of each addon, by the container's name.
_IMAGES = {
    "coredns": "coredns",
    "metrics-server": "metrics-server",
    "keda-operator": "keda-operator",
    "keda-metrics-apiserver": "keda-adapter",
    "keda-admission-webhooks": "keda-webhooks",
}
# What tells that an addon serves: (kind/name, condition, namespace).
_PROOFS: Mapping[str, list[tuple[str, str, str]]] = {
    "coredns": [("deployment/coredns", "Available", "kube-system")],
    "metrics-server": [
        ("deployment/metrics-server", "Available", "kube-system"),
        ("apiservice/v1beta1.metrics.k8s.io", "Available", ""),
    ],
    "keda": [
        ("deployment/keda-operator", "Available", "keda"),
        ("deployment/keda-metrics-apiserver", "Available", "keda"),
        ("deployment/keda-admission", "Available", "keda"),
        ("apiservice/v1beta1.external.metrics.k8s.io", "Available", ""),
    ],
}
# Small enough that everything fits on one node while the other is drained.
_REQUESTS = {"cpu": "10m", "memory": "64Mi"}


def manifests(addon: str, builds: Mapping[str, Path], images: Mapping[str, str]) -> str:
    """The objects of `addon` as YAML; `images` are the references to run, by image name."""
    if addon == "coredns":
        text = _COREDNS.read_text()
    elif addon == "metrics-server":
        text = _kustomize(builds["kubectl"], builds["metrics-server-manifests"] / "base")
    else:
        text = _kustomize(builds["kubectl"], builds["keda-config"] / "default")
    documents = yaml.load_all(text, Loader=_LOADER)
    return yaml.dump_all(fit(documents, images), Dumper=_DUMPER, sort_keys=False)


def proofs(addon: str) -> list[list[str]]:
    """Arguments of `kubectl wait` that return once the addon serves."""
    return [
        [f"--for=condition={condition}", what, *([f"--namespace={space}"] if space else [])]
        for what, condition, space in _PROOFS[addon]
    ]


def fit(documents: Iterable[Document], images: Mapping[str, str]) -> list[Document]:
    """The documents with our images, small requests and quick probes in every Deployment."""
    fitted = [document for document in documents if document]
    for document in fitted:
        if document["kind"] == "Deployment":
            for container in document["spec"]["template"]["spec"]["containers"]:
                _fit_container(container, images)
    return fitted


def _fit_container(container: Document, images: Mapping[str, str]) -> None:
    name = container["name"]
    container["image"] = images[_IMAGES[name]]
    container["imagePullPolicy"] = "IfNotPresent"
    container["resources"]["requests"] = dict(_REQUESTS)
    container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 2}
    if name == "metrics-server":
        # The authority that signed the API server's certificate signed the kubelets' too.
        authority = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
        container["args"].append(f"--kubelet-certificate-authority={authority}")


def _kustomize(kubectl: Path, folder: Path) -> str:
    done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True)
    if done.returncode != 0:
        raise ClusterError(f"kubectl kustomize {folder}: {done.stderr.strip()}")
    return done.stdout


# The C parser where PyYAML has it: KEDA's definitions are half a megabyte.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
