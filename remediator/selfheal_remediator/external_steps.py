"""Steps that other systems carry out, as a rule's `then` says them: webhook, machine, resource."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from selfheal_remediator.names import (
    LabelKey,
    NoneOrNamespaceName,
    is_namespace,
    metadata_problems,
)
from selfheal_remediator.strict import Duration, Status, Strict

#: What a template's texts may name in braces.
PLACEHOLDERS = ("node", "nodeUID", "bootID", "providerID", "occurrence", "rule", "condition")
#: `{name}`; what a shell would replace (`${name}`) is none.
PLACEHOLDER = re.compile(r"(?<!\$)\{([A-Za-z]+)\}")
OCCURRENCE_LABEL = "selfheal.dev/occurrence"
_API_VERSION = re.compile(r"([a-z0-9.-]+/)?v[0-9][a-z0-9]*")
_METADATA = frozenset({"name", "namespace", "labels", "annotations"})


def _as_texts(value: object) -> object:
    """YAML makes booleans and numbers of what are texts in an object's status."""
    return [as_shown(one) for one in value] if isinstance(value, list) else value


def as_shown(value: object) -> object:
    """A scalar of an object as text: true and 1 as JSON writes them, a text as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _status_text(value: object) -> object:
    return str(value) if isinstance(value, bool) else value


def _check_url(url: str) -> str:
    """Raises ValueError, whose text does not show it: it may have a secret in it."""
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0
    except ValueError:
        named = False
    if not named or re.search(r"\s", url):
        raise ValueError("no URL; allowed is https://HOST[:PORT]/PATH, or http:// for the same")
    return url


class WebhookSettings(Strict):
    """A request to a server of the user's. Files are read before each request."""

    url: str = Field(default="", repr=False)
    #: A file with the URL: that of a chat or ticket system is often a secret itself.
    url_file: str = ""
    #: Lines of `whsec_…`, one for each secret that the server accepts.
    secret_file: str = Field(min_length=1)
    ca_file: str = ""
    #: Labels of the node that are sent along.
    labels: tuple[LabelKey, ...] = ()
    #: Seconds at most until the server answers one request.
    request_timeout: Duration = 15.0

    @model_validator(mode="after")
    def _is_complete(self) -> WebhookSettings:
        if bool(self.url) == bool(self.url_file):
            raise ValueError("exactly one of url, urlFile is expected")
        if self.url:
            _check_url(self.url)
        if not 1 <= self.request_timeout <= 30:
            raise ValueError(
                f"requestTimeout must be from 1s to 30s, got {self.request_timeout:g}s"
            )
        return self


class MachineSettings(Strict):
    """Cluster API's Machine of the node: deleted, or marked to be remediated."""

    mode: Literal["delete", "remediate"]
    #: Where the Machines are; empty = anywhere.
    namespace: NoneOrNamespaceName = ""


class Expression(Strict):
    """What an object must show: a field's value, or a condition of its status."""

    path: str = ""
    values: Annotated[tuple[str, ...], BeforeValidator(_as_texts)] = ()
    condition: str = ""
    status: Annotated[Status, BeforeValidator(_status_text)] = "True"

    @model_validator(mode="after")
    def _is_one(self) -> Expression:
        if bool(self.path) == bool(self.condition) or bool(self.path) != bool(self.values):
            raise ValueError("either path and values, or condition (and status) are expected")
        if self.path and "status" in self.model_fields_set:
            raise ValueError("status belongs to condition, not to path")
        return self


def _check_metadata(meta: dict[str, Any]) -> None:
    """Of an object that a step creates. Raises ValueError."""
    if unknown := sorted(map(str, meta.keys() - _METADATA)):
        raise ValueError(
            f"template.metadata.{unknown[0]} is not allowed; allowed are "
            f"{', '.join(sorted(_METADATA))}"
        )
    namespace = meta.get("namespace", "")
    if namespace != "" and not (isinstance(namespace, str) and is_namespace(namespace)):
        raise ValueError(
            f"template.metadata.namespace is {namespace!r:.100}, and no namespace: at most 63 "
            "lower-case letters, digits and '-'; it may not vary"
        )
    if problem := next(metadata_problems(meta), ""):
        raise ValueError(problem)
    if OCCURRENCE_LABEL in (meta.get("labels") or {}):
        raise ValueError(f"template.metadata.labels must be labels without {OCCURRENCE_LABEL}")


class ResourceSettings(Strict):
    """An object that is created, and watched until it shows success or failure."""

    template: dict[str, Any]
    #: The resource's name in the API, where Kubernetes' rule for plurals does not give it.
    plural: str = Field(default="", pattern=r"^[a-z0-9.-]*$")
    succeeded: Expression
    failed: Expression | None = None
    #: Whether it is deleted once it succeeded.
    clean_up: bool = False

    @field_validator("template")
    @classmethod
    def _is_an_object(cls, template: dict[str, Any]) -> dict[str, Any]:
        meta = template.get("metadata")
        if not _API_VERSION.fullmatch(str(template.get("apiVersion"))):
            raise ValueError("template.apiVersion is missing; an example is batch/v1")
        if not re.fullmatch("[A-Z][A-Za-z0-9]*", str(template.get("kind"))):
            raise ValueError("template.kind is missing; an example is SelfNodeRemediation")
        if not isinstance(meta, dict) or not isinstance(meta.get("name"), str) or not meta["name"]:
            raise ValueError("template.metadata.name is missing")
        _check_metadata(meta)
        for text in texts_in(template):
            for name in PLACEHOLDER.findall(text):
                if name not in PLACEHOLDERS:
                    raise ValueError(
                        f"template: {{{name}}} is no placeholder; allowed are "
                        + ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
                    )
        return template

    @property
    def group(self) -> str:
        """The API group, empty = the core group."""
        return str(self.template["apiVersion"]).rpartition("/")[0]

    @property
    def namespace(self) -> str:
        """Where the object is, empty = its kind has no namespace."""
        return str(self.template["metadata"].get("namespace", ""))


def texts_in(value: object) -> Iterator[str]:
    """All texts in it, but for keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from texts_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from texts_in(one)
