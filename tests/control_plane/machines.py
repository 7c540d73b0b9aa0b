"""The type Machine of Cluster API, as two tests need it in one cluster."""

from typing import Any

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def machine_type() -> dict[str, Any]:
    """Both served versions, without rules for their fields; the later one's status is apart, as
    upstream's is."""
    loose = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"openAPIV3Schema": loose}
    names = {"plural": "machines", "singular": "machine", "kind": "Machine"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "machines.cluster.x-k8s.io"},
        "spec": {
            "group": "cluster.x-k8s.io",
            "names": names,
            "scope": "Namespaced",
            "versions": [
                {"name": "v1beta1", "served": True, "storage": True, "schema": schema},
                {
                    "name": "v1beta2",
                    "served": True,
                    "storage": False,
                    "schema": schema,
                    "subresources": {"status": {}},
                },
            ],
        },
    }
