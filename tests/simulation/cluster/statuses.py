"""metav1.Status bodies as a real API server writes them (apimachinery's pkg/api/errors)."""

from __future__ import annotations

import json
from typing import Any

from tests.simulation.cluster.messages import Json, Response
from tests.simulation.cluster.resources import Resource

JSON_HEADERS = {"Content-Type": "application/json"}


class Refused(Exception):
    """A request is not carried out; `response` is the answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status, response.body[:200])
        self.response = response


def encode(value: object) -> bytes:
    """JSON in the server's compact form."""
    return json.dumps(value, separators=(",", ":")).encode()


def answer(status: int, body: Json) -> Response:
    """An object as an answer."""
    return Response(status, JSON_HEADERS, encode(body))


def failure(
    code: int,
    reason: str,
    message: str,
    details: Json | None = None,
    *,
    retry_after: int = 0,
    metadata: Json | None = None,
) -> Refused:
    """A failure. retry_after > 0 is a header too (endpoints/handlers/responsewriters)."""
    body: Json = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": metadata or {},
        "status": "Failure",
        "message": message,
    }
    if reason:
        body["reason"] = reason
    if details is not None or retry_after:
        body["details"] = {
            **(details or {}),
            **({"retryAfterSeconds": retry_after} if retry_after else {}),
        }
    body["code"] = code
    headers = dict(JSON_HEADERS)
    if retry_after:
        headers["Retry-After"] = str(retry_after)
    return Refused(Response(code, headers, encode(body)))


def plain(code: int, text: str, **headers: str) -> Refused:
    """A failure that is no Status."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Refused(Response(code, {"Content-Type": "text/plain", **named}, text.encode()))


def _details(resource: Resource, name: str, **more: Any) -> Json:
    group = {"group": resource.group} if resource.group else {}
    return {**({"name": name} if name else {}), **group, "kind": resource.plural, **more}


def success(resource: Resource, name: str, uid: str) -> Response:
    """What a deletion is answered with when no object remains."""
    details = _details(resource, name, uid=uid)
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return answer(200, {**body, "details": details})


def not_served() -> Refused:
    """A path that nobody serves."""
    return plain(404, "404 page not found\n")


def not_found(resource: Resource, name: str) -> Refused:
    """There is no such object."""
    message = f'{resource.qualified} "{name}" not found'
    return failure(404, "NotFound", message, _details(resource, name))


def already_exists(resource: Resource, name: str) -> Refused:
    """There is one of this name."""
    message = f'{resource.qualified} "{name}" already exists'
    return failure(409, "AlreadyExists", message, _details(resource, name))


def conflict(resource: Resource, name: str, why: str = "") -> Refused:
    """Somebody else was faster, or it is another object."""
    why = why or (
        "the object has been modified; please apply your changes to the latest version and try"
        " again"
    )
    message = f'Operation cannot be fulfilled on {resource.qualified} "{name}": {why}'
    return failure(409, "Conflict", message, _details(resource, name))


def other_uid(resource: Resource, name: str, wanted: str, there: str) -> Refused:
    """The uid precondition of a deletion (registry/rest/delete.go): it names the kind."""
    message = (
        f'Operation cannot be fulfilled on {resource.kind} "{name}": the UID in the precondition '
        f"({wanted}) does not match the UID in record ({there}). "
        "The object might have been deleted and then recreated"
    )
    details = {"name": name, "kind": resource.kind}
    return failure(409, "Conflict", message, details)


def other_version(resource: Resource, name: str, wanted: str, there: str) -> Refused:
    """The resourceVersion precondition of a deletion."""
    message = (
        f'Operation cannot be fulfilled on {resource.kind} "{name}": the ResourceVersion in the '
        f"precondition ({wanted}) does not match the ResourceVersion in record ({there}). "
        "The object might have been modified"
    )
    return failure(409, "Conflict", message, {"name": name, "kind": resource.kind})


def bad_request(message: str) -> Refused:
    """400."""
    return failure(400, "BadRequest", message)


def invalid(resource: Resource, name: str, field: str, why: str) -> Refused:
    """422 of validation."""
    message = f'{resource.kind} "{name}" is invalid: {field}: {why}'
    causes = [{"reason": "FieldValueInvalid", "message": why, "field": field}]
    group = {"group": resource.group} if resource.group else {}
    details = {"name": name, **group, "kind": resource.kind, "causes": causes}
    return failure(422, "Invalid", message, details)


def patch_not_applicable() -> Refused:
    """422 of a JSON patch whose test failed (endpoints/handlers/patch.go: a generic answer)."""
    message = "the server rejected our request due to an error in our request"
    return failure(422, "Invalid", message, {})


def forbidden(resource: Resource, verb: str, user: str, namespace: str, name: str) -> Refused:
    """403 of the authorizer."""
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    message = (
        f'{subject} is forbidden: User "{user}" cannot {verb} resource "{resource.plural}" in '
        f'API group "{resource.group}" {where}'
    )
    return failure(403, "Forbidden", message, _details(resource, name))


def namespace_terminating(resource: Resource, name: str, namespace: str) -> Refused:
    """403 of the admission plugin NamespaceLifecycle: nothing new in a namespace that ends."""
    message = (
        f'{resource.qualified} "{name}" is forbidden: unable to create new content in namespace '
        f"{namespace} because it is being terminated"
    )
    cause = {
        "reason": "NamespaceTerminating",
        "message": f"namespace {namespace} is being terminated",
        "field": "metadata.namespace",
    }
    return failure(403, "Forbidden", message, _details(resource, name, causes=[cause]))


def unauthorized() -> Refused:
    """401: the token is not accepted."""
    return failure(401, "Unauthorized", "Unauthorized")


def expired(message: str, token: str = "") -> Refused:
    """410."""
    metadata = {"continue": token} if token else {}
    return failure(410, "Expired", message, metadata=metadata)


def version_too_large(wanted: int, current: int) -> Refused:
    """504: a read of a version that is not there yet (apiserver's pkg/storage/errors.go)."""
    message = f"Too large resource version: {wanted}, current: {current}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    message = f"Timeout: {message}"
    return failure(504, "Timeout", message, {"causes": [cause]}, retry_after=1)


def disruption_budget(cause: str, retry_after: int = 0) -> Refused:
    """429 of an eviction (pkg/registry/core/pod/storage/eviction.go)."""
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    details = {"causes": [{"reason": "DisruptionBudget", "message": cause}]}
    return failure(429, "TooManyRequests", message, details, retry_after=retry_after)
