"""In what a Deployment differs from the release's: images, replicas, environment. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from selfheal_remediator.kube.json_values import as_list, as_name, as_object, as_text
from selfheal_remediator.kube.objects import Json

#: What differs; the values of the metric's label.
FIELDS = ("image", "replicas", "environment")


@dataclass(frozen=True, slots=True)
class Settings:
    """replicas: None where none are given. images, environment: by container; a variable's value
    or source as JSON, which may be confidential and is never shown."""

    replicas: int | None
    images: Mapping[str, str]
    environment: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Difference:
    """field: one of FIELDS. added: it is beside what the release has, and an apply leaves it."""

    field: str
    text: str
    added: bool = False


def settings_of(raw: Json) -> Settings:
    """Of a Deployment, as rendered or as it is."""
    spec = as_object(raw.get("spec"))
    pod = as_object(as_object(spec.get("template")).get("spec"))
    listed = [*as_list(pod.get("initContainers")), *as_list(pod.get("containers"))]
    containers = {as_name(item["name"]): as_object(item) for item in listed}
    replicas = spec.get("replicas")
    return Settings(
        replicas=None if replicas is None else int(replicas),
        images={name: as_text(item.get("image")) for name, item in containers.items()},
        environment={
            name: {as_name(v["name"]): _variable(v) for v in as_list(item.get("env"))}
            for name, item in containers.items()
        },
    )


def _variable(raw: Json) -> str:
    """A variable as the API server would complete it."""
    source = raw.get("valueFrom")
    if source is None:
        return json.dumps(raw.get("value") or "")
    source = {kind: dict(of) for kind, of in source.items()}
    if "fieldRef" in source:
        source["fieldRef"].setdefault("apiVersion", "v1")
    if "resourceFieldRef" in source:
        source["resourceFieldRef"].setdefault("divisor", "0")
    return json.dumps(source, sort_keys=True)


def differences(wanted: Settings, live: Settings) -> tuple[Difference, ...]:
    """In containers of the release alone: another's may be a webhook's. Replicas only where the
    release gives them, which it does without an autoscaler."""
    return tuple(_differences(wanted, live))


def _differences(wanted: Settings, live: Settings) -> Iterator[Difference]:
    for container, image in wanted.images.items():
        found = live.images.get(container)
        if found is not None and found != image:
            text = f"container {container} has image {found} instead of {image}"
            yield Difference("image", text)
    if wanted.replicas is not None and live.replicas != wanted.replicas:
        text = f"it has {live.replicas} replicas instead of {wanted.replicas}"
        yield Difference("replicas", text)
    for container, variables in wanted.environment.items():
        found_variables = live.environment.get(container)
        if found_variables is None:
            continue
        for name in sorted({*variables, *found_variables}):
            if variables.get(name) == found_variables.get(name):
                continue
            added, lost = name not in variables, name not in found_variables
            what = "was added" if added else "is missing" if lost else "has another value"
            text = f"variable {name} of container {container} {what}"
            yield Difference("environment", text, added)
