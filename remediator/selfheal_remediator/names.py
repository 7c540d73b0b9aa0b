"""Names of objects, and keys and values of labels, as settings have them. Pure.

What the API server would refuse is refused with the configuration: it would be noticed only when a
node is to be cordoned or repaired, or a selector would select nothing. The rules are those of
IsQualifiedName, IsValidLabelValue, IsDNS1123Subdomain and IsDNS1123Label in
k8s.io/apimachinery/pkg/util/validation/validation.go.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated

from pydantic import AfterValidator

_PART = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAMESPACE = re.compile(_PART)
_OBJECT = re.compile(rf"{_PART}(\.{_PART})*")
_NAME = re.compile("[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
MOST_OF_NAME, MOST_OF_DOMAIN = 63, 253

_ALLOWED_NAME = (
    f"at most {MOST_OF_NAME} letters, digits, '-', '_' and '.', "
    "the first and last a letter or digit"
)
_ALLOWED_DOMAIN = f"a lower-case DNS name of at most {MOST_OF_DOMAIN} characters"
#: What is allowed, for people.
ALLOWED_KEY = f"{_ALLOWED_NAME}; before them {_ALLOWED_DOMAIN} and '/', or nothing"
ALLOWED_VALUE = f"{_ALLOWED_NAME}; or nothing"


def is_label_key(key: str) -> bool:
    """Whether it can be the key of a label, an annotation or a taint."""
    domain, slash, name = key.rpartition("/")
    return _is(_NAME, name, MOST_OF_NAME) and (not slash or _is(_OBJECT, domain, MOST_OF_DOMAIN))


def is_label_value(value: str) -> bool:
    """Whether it can be the value of a label or a taint."""
    return not value or _is(_NAME, value, MOST_OF_NAME)


def _is(pattern: re.Pattern[str], text: str, most: int) -> bool:
    return len(text) <= most and pattern.fullmatch(text) is not None


def _check_key(key: str) -> str:
    """Raises ValueError for what can be no key of a label or annotation."""
    if not is_label_key(key):
        raise ValueError(f"{key!r:.100} is not the key of a label; allowed are {ALLOWED_KEY}")
    return key


def _check_value(value: str) -> str:
    """Raises ValueError for what can be no value of a label."""
    if not is_label_value(value):
        raise ValueError(f"{value!r:.100} is not the value of a label; allowed are {ALLOWED_VALUE}")
    return value


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        _check_key(key)
        _check_value(value)
    return labels


def is_namespace(name: str) -> bool:
    """Whether it can be the name of a namespace."""
    return _is(_NAMESPACE, name, MOST_OF_NAME)


def _check_namespace(name: str) -> str:
    if not is_namespace(name):
        raise ValueError(
            f"{name!r:.100} is not the name of a namespace; allowed are at most {MOST_OF_NAME} "
            "lower-case letters, digits and '-', the first and last no '-'"
        )
    return name


def _check_object(name: str) -> str:
    if not _is(_OBJECT, name, MOST_OF_DOMAIN):
        raise ValueError(
            f"{name!r:.100} is not the name of an object; allowed is {_ALLOWED_DOMAIN}"
        )
    return name


def _or_none(check: Callable[[str], str]) -> AfterValidator:
    """An empty text names none."""
    return AfterValidator(lambda text: check(text) if text else text)


LabelKey = Annotated[str, AfterValidator(_check_key)]
LabelValue = Annotated[str, AfterValidator(_check_value)]
Labels = Annotated[dict[str, str], AfterValidator(_check_labels)]
NamespaceName = Annotated[str, AfterValidator(_check_namespace)]
ObjectName = Annotated[str, AfterValidator(_check_object)]
NoneOrLabelKey = Annotated[str, _or_none(_check_key)]
NoneOrNamespaceName = Annotated[str, _or_none(_check_namespace)]
NoneOrObjectName = Annotated[str, _or_none(_check_object)]


def metadata_problems(metadata: object) -> Iterator[str]:
    """What is wrong with the labels and annotations of a template's metadata. A label's value that
    names a placeholder in braces is checked by the API server when it is filled in."""
    if metadata is None:
        return
    if not isinstance(metadata, Mapping):
        yield f"template.metadata is {metadata!r:.100}, and no mapping"
        return
    for part in ("labels", "annotations"):
        found = metadata.get(part)
        if found is None:
            continue
        if not isinstance(found, Mapping):
            yield f"template.metadata.{part} is no mapping"
            continue
        for key, value in found.items():
            if not isinstance(key, str) or not is_label_key(key):
                yield (
                    f"template.metadata.{part}: {key!r:.100} is not the key of a label or "
                    f"annotation; allowed are {ALLOWED_KEY}"
                )
            elif not isinstance(value, str):
                yield f"template.metadata.{part}.{key:.100} is {value!r:.100}, and no text"
            elif part == "labels" and "{" not in value and not is_label_value(value):
                yield (
                    f"template.metadata.labels.{key:.100}: {value!r:.100} is not the value of a "
                    f"label; allowed are {ALLOWED_VALUE}"
                )
