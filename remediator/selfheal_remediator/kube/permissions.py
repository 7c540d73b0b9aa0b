"""What this process must be allowed to do, and whether it is."""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_remediator.kube.responses import understood
from selfheal_remediator.kube.transport import Transport


@dataclass(frozen=True, slots=True)
class Permission:
    """One thing this process must be allowed to do; namespace empty = in the whole cluster."""

    verb: str
    group: str
    resource: str
    subresource: str = ""
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        resource = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        group = f".{self.group}" if self.group else ""
        where = f" in namespace {self.namespace}" if self.namespace else ""
        name = f" {self.name}" if self.name else ""
        return f"{self.verb} {resource}{group}{name}{where}"


def missing(transport: Transport, permissions: list[Permission]) -> list[Permission]:
    """Those of the permissions that this account does not have. Raises ApiFailure."""
    return [item for item in permissions if not _allowed(transport, item)]


def _allowed(transport: Transport, item: Permission) -> bool:
    attributes = {
        "verb": item.verb,
        "group": item.group,
        "resource": item.resource,
        "subresource": item.subresource,
        "namespace": item.namespace,
        "name": item.name,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = transport.send("POST", path, body=body)
    if not answer.ok:
        raise answer.failure()
    with understood("the answer to a SelfSubjectAccessReview"):
        return answer.json()["status"]["allowed"] is True
