"""How a kind of object is reached, as the API server describes its groups."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from selfheal_remediator.kube.client import KubernetesApi
from selfheal_remediator.kube.json_values import as_flag, as_name, as_objects
from selfheal_remediator.kube.responses import understood


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind's resource: its path before the namespace (`/apis/batch/v1`), plural and scope."""

    version: str
    plural: str
    namespaced: bool

    def collection(self, namespace: str) -> str:
        """The path of its objects (namespace empty = of all, or it has none)."""
        place = f"/namespaces/{quote(namespace)}" if namespace else ""
        return f"{self.version}{place}/{self.plural}"


def find_resource(api: KubernetesApi, api_version: str, kind: str) -> Resource | None:
    """The resource of a kind, None = this API server does not serve it. Raises ApiFailure."""
    path = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    found = api.get_if_there(path)
    if found is None:
        return None
    with understood(f"the resources of {api_version}"):
        for one in as_objects(found.get("resources")):
            name = as_name(one.get("name"))
            if one.get("kind") == kind and "/" not in name:
                return Resource(path, name, as_flag(one.get("namespaced")))
    return None
