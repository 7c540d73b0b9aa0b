"""What a step has to be allowed to do, beyond what the remediator may do anyway. Pure.

The API's descriptions of its groups, by which a kind's resource is found, are open to everybody
who is authenticated (the role system:discovery).
"""

from __future__ import annotations

from dataclasses import dataclass

from selfheal_remediator.external_steps import MachineSettings, ResourceSettings, WebhookSettings


@dataclass(frozen=True, slots=True)
class Right:
    """What of a Role or ClusterRole a step needs; namespace empty = in the whole cluster."""

    group: str
    resource: str
    namespace: str
    verbs: tuple[str, ...]


def permissions(step: WebhookSettings | MachineSettings | ResourceSettings) -> tuple[Right, ...]:
    """The rights of a step of these kinds."""
    match step:
        case ResourceSettings():
            verbs = ("get", "create", *(["delete"] if step.clean_up else []))
            resource = step.plural or plural_of(step.template["kind"])
            return (Right(step.group, resource, step.namespace, verbs),)
        case MachineSettings():
            verb = "delete" if step.mode == "delete" else "patch"
            return (Right("cluster.x-k8s.io", "machines", step.namespace, ("get", "list", verb)),)
        case _:
            return ()


def plural_of(kind: str) -> str:
    """The plural that Kubernetes itself guesses.

    https://github.com/kubernetes/apimachinery/blob/master/pkg/api/meta/restmapper.go
    (UnsafeGuessKindToResource)
    """
    name = kind.lower()
    if name == "endpoints":
        return name
    if name.endswith("s"):
        return f"{name}es"
    if name.endswith("y"):
        return f"{name[:-1]}ies"
    return f"{name}s"
