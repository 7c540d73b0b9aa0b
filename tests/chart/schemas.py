"""What the API server would say: JSON Schemas of Kubernetes' own types, of operators' and of ours.

Kubernetes' are the strict ones inside the package kubernetes-validate (unknown fields are refused);
the others come from CustomResourceDefinitions and are made strict here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonschema.validators import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

#: Groups of custom resources.
CUSTOM = {"autoscaling.k8s.io", "keda.sh", "monitoring.coreos.com", "selfheal.dev"}


def problems(manifest: Mapping[str, Any], version: str, crds: tuple[Path, ...]) -> list[str]:
    """What is wrong with a manifest on Kubernetes `version` ("1.34"), one sentence each."""
    kind, api = manifest["kind"], manifest["apiVersion"]
    return list(_problems(json.dumps(manifest), api, kind, version, crds))


@cache
def _problems(
    text: str, api: str, kind: str, version: str, crds: tuple[Path, ...]
) -> tuple[str, ...]:
    # Most objects are the same in many cases.
    custom = api.partition("/")[0] in CUSTOM
    validator = _custom(crds, api, kind) if custom else _core(version, api, kind)
    manifest = json.loads(text)
    return tuple(
        f"{kind} {manifest['metadata']['name']}: {'.'.join(map(str, e.path))}: {e.message}"
        for e in validator.iter_errors(manifest)
    )


@cache
def _core(version: str, api: str, kind: str) -> Draft202012Validator:
    stem = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    schema = _load(version, f"{kind.lower()}-{stem}.json")
    return Draft202012Validator(schema, registry=_definitions(version))


@cache
def _definitions(version: str) -> Registry[Any]:
    document = DRAFT202012.create_resource(_load(version, "_definitions.json"))
    # By its own $id: what a registry does not find at once, it searches in all of this document.
    registry: Registry[Any] = document @ Registry()
    return registry.crawl()


def _load(version: str, name: str) -> Any:
    folder = files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    return json.loads((folder / name).read_text(encoding="utf-8"))


@cache
def _custom(crds: tuple[Path, ...], api: str, kind: str) -> Draft202012Validator:
    group, version = api.split("/")
    for definition in _definitions_of(crds, kind):
        spec = definition["spec"]
        if spec["group"] == group and spec["names"]["kind"] == kind:
            [served] = [v for v in spec["versions"] if v["name"] == version]
            schema = _strict(served["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            return Draft202012Validator(schema)
    raise LookupError(f"no CustomResourceDefinition of {api} {kind} under {crds}")


def _definitions_of(crds: tuple[Path, ...], kind: str) -> Iterator[dict[str, Any]]:
    for path in sorted(path for folder in crds for path in folder.rglob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        # Some are long, and reading one as YAML takes seconds.
        if "CustomResourceDefinition" not in text or f"kind: {kind}\n" not in text:
            continue
        for document in yaml.load_all(text, yaml.CSafeLoader):
            if document and document.get("kind") == "CustomResourceDefinition":
                yield document


def _strict(schema: Any) -> Any:
    """The schema, with unknown fields refused wherever the API server would drop them."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if "properties" in schema and isinstance(schema["properties"], dict):
        open_ended = schema.get("x-kubernetes-preserve-unknown-fields")
        if not open_ended and "additionalProperties" not in schema:
            strict["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
    return strict
