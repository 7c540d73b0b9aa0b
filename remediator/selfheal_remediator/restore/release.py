"""The release's rendered objects, as the chart's ConfigMap for restoring holds them. Pure.

What Helm adds to each object that it makes is added here too: the label and the two annotations by
which it knows its own (helm/pkg/action/validate.go, setMetadataVisitor). Helm 4 makes and changes
objects by server-side apply under the field manager that also made the ConfigMap, normally `helm`:
an object applied under the same name is its own again, without conflicts. Helm 3 merges by itself
and knows no conflicts.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass

from selfheal_remediator.failures import Malformed
from selfheal_remediator.kube.json_values import as_list, as_name, as_object, as_text
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.kube.responses import understood

#: The key of the ConfigMap's data: a JSON list of objects.
OBJECTS = "objects.json"
RELEASE_NAME, RELEASE_NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
MANAGED_BY = "app.kubernetes.io/managed-by"
#: The labels that every object of the release has, with the ConfigMap's own values.
_SELECTED_BY = ("app.kubernetes.io/name", "app.kubernetes.io/instance")
_HELM = "helm"
#: Labels and annotations of tools that put back by themselves what was deleted, by their domain.
_GITOPS = {
    "argocd.argoproj.io": "Argo CD",
    "kustomize.toolkit.fluxcd.io": "Flux",
    "helm.toolkit.fluxcd.io": "Flux",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind that is restored. api: its apiVersion; plural: as in a path."""

    name: str
    api: str
    plural: str

    @property
    def group(self) -> str:
        """The API group, empty for the core's."""
        return self.api.rpartition("/")[0]


#: By name. A Deployment needs its ServiceAccount, a ScaledObject its TriggerAuthentication.
KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("ServiceAccount", "v1", "serviceaccounts"),
        Kind("Service", "v1", "services"),
        Kind("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets"),
        Kind("Deployment", "apps/v1", "deployments"),
        Kind("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers"),
        Kind("TriggerAuthentication", "keda.sh/v1alpha1", "triggerauthentications"),
        Kind("ScaledObject", "keda.sh/v1alpha1", "scaledobjects"),
    )
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object of the release, as rendered."""

    kind: Kind
    name: str
    manifest: Json

    @property
    def key(self) -> str:
        """`Kind/name`."""
        return f"{self.kind.name}/{self.name}"


@dataclass(frozen=True, slots=True)
class Release:
    """What the ConfigMap says. uid, terminating: its own; objects: by key.

    manager: the field manager that wrote the objects into it. off: why nothing may be restored,
    empty = it may.
    """

    namespace: str
    config_map: str
    uid: str
    terminating: bool
    name: str
    manager: str
    selector: str
    off: str
    objects: Mapping[str, Wanted]

    @property
    def key(self) -> str:
        """For the store: one ConfigMap is watched."""
        return self.config_map


def release_from_json(raw: Json) -> Release:
    """Raises Malformed where the ConfigMap is not as the chart renders it."""
    with understood("the ConfigMap of objects to restore"):
        meta = as_object(raw["metadata"])
        labels, annotations = as_object(meta.get("labels")), as_object(meta.get("annotations"))
        text = as_text(as_object(raw.get("data")).get(OBJECTS))
        objects = {wanted.key: wanted for wanted in map(_wanted, json.loads(text))}
        name = as_text(annotations.get(RELEASE_NAME))
        return Release(
            namespace=as_name(meta["namespace"]),
            config_map=as_name(meta["name"]),
            uid=as_name(meta["uid"]),
            terminating=bool(meta.get("deletionTimestamp")),
            name=name,
            manager=_manager(meta),
            selector=",".join(f"{key}={as_name(labels[key])}" for key in _SELECTED_BY),
            off=gitops(meta) or ("" if name else _NOT_HELM),
            objects=objects,
        )


_NOT_HELM = (
    f"its ConfigMap has no annotation {RELEASE_NAME}: something else than Helm installed the chart"
)


def _wanted(raw: Json) -> Wanted:
    kind = KINDS.get(as_name(raw["kind"]))
    if kind is None or raw["apiVersion"] != kind.api:
        raise Malformed(f"{raw['apiVersion']} {raw['kind']} is no kind that is restored")
    return Wanted(kind, as_name(as_object(raw["metadata"])["name"]), raw)


def gitops(meta: Json) -> str:
    """Why an object with this metadata is left to a GitOps tool; empty = it is not."""
    for what in ("labels", "annotations"):
        for key in as_object(meta.get(what)):
            tool = _GITOPS.get(key.partition("/")[0])
            if tool:
                return f"{tool} manages the release ({what[:-1]} {key})"
    return ""


def _manager(meta: Json) -> str:
    """Who wrote the ConfigMap's data: by apply, else by an update; `helm` where nobody says so."""
    writers: dict[str, str] = {}
    for entry in as_list(meta.get("managedFields")):
        if "f:data" in as_object(as_object(entry).get("fieldsV1")):
            writers[as_text(entry.get("operation"))] = as_text(entry.get("manager"))
    return writers.get("Apply") or writers.get("Update") or _HELM


def body(release: Release, wanted: Wanted, *, guarded: bool) -> Json:
    """What is applied. guarded: owned by the ConfigMap, so that an uninstall which deletes the
    ConfigMap deletes this object too, whichever of the two it comes to first."""
    made = copy.deepcopy(wanted.manifest)
    meta = made["metadata"]
    meta["namespace"] = release.namespace
    meta["labels"] = {**(meta.get("labels") or {}), MANAGED_BY: "Helm"}
    meta["annotations"] = {
        **(meta.get("annotations") or {}),
        RELEASE_NAME: release.name,
        RELEASE_NAMESPACE: release.namespace,
    }
    if guarded:
        owner = {"apiVersion": "v1", "kind": "ConfigMap"}
        meta["ownerReferences"] = [{**owner, "name": release.config_map, "uid": release.uid}]
    return made
