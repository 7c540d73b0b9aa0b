"""The API keys of models, from variables and files: which model's each is, and what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

COMMON = "MODEL_API_KEY"
_FILE = "_FILE"
_MOST_BYTES = 65536
# What an HTTP header may hold.
_KEY = re.compile(r"[\x20-\x7e]+")


@dataclass(slots=True)
class Keys:
    """common: MODEL_API_KEY's; named: by the names of models. problems: one line each, with the
    variable, what is wrong and what is allowed; never with a key."""

    common: str | None = None
    named: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def read_keys(variables: Mapping[str, str], models: frozenset[str] | None) -> Keys:
    """The keys from variables, or from the files that they name; upper and lower case are accepted.

    models: the names that MODELS defines, None if it cannot be read.
    """
    found = Keys()
    taken: dict[str, str] = {}
    for variable, value in variables.items():
        name = variable.upper()
        if not value or not name.startswith(COMMON):
            continue
        if name == f"{COMMON}S":
            found.problems.append(
                f"{name}: there is no such variable; a named model's key is {COMMON}_<NAME>"
            )
            continue
        whose = _whose(name, models)
        if whose is None:
            continue
        model, is_file = whose
        if models is not None and model and model not in models:
            found.problems.append(_unknown(name, model, models))
        elif model in taken:
            found.problems.append(f"{name}: {taken[model]} is set too; set one of them")
        else:
            taken[model] = name
            _put(found, name, model, value, is_file=is_file)
    return found


def model_names(value: object) -> frozenset[str] | None:
    """The names in MODELS; None if it is not a JSON object, which is reported elsewhere."""
    if not value:
        return frozenset()
    try:
        names = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return None
    return frozenset(map(str, names)) if isinstance(names, Mapping) else None


def ambiguous(models: frozenset[str]) -> Iterator[str]:
    """Names of models whose key's variable would be the file with another's key."""
    for name in sorted(models):
        rest = name.removesuffix("-file") if name != "file" else ""
        if rest != name and (not rest or rest in models):
            yield (
                f"MODELS: {name!r} cannot be a model's name: "
                f"{variable(name)} is the file with {variable(rest)}; use another name"
            )


def _whose(name: str, models: frozenset[str] | None) -> tuple[str, bool] | None:
    """The model that a variable is about ("": the common key), and whether it names a file."""
    rest = name.removeprefix(COMMON)
    if rest in ("", _FILE):
        return "", rest == _FILE
    if not rest.startswith("_"):
        return None
    model = _model(rest)
    of_file = _model(rest.removesuffix(_FILE))
    if rest.endswith(_FILE) and of_file and (models is None or model not in models):
        return of_file, True
    return model, False


def _model(rest: str) -> str:
    return rest.removeprefix("_").lower().replace("_", "-")


def variable(model: str) -> str:
    """The variable of a model's key; "": the common one."""
    return f"{COMMON}_{model.upper().replace('-', '_')}" if model else COMMON


def _unknown(name: str, model: str, models: frozenset[str]) -> str:
    there = ", ".join(sorted(models)) or "none"
    return f"{name}: MODELS defines no model {model!r}; it defines {there}"


def _put(found: Keys, name: str, model: str, value: str, *, is_file: bool) -> None:
    try:
        key = _from_file(value) if is_file else value
    except ValueError as error:
        found.problems.append(f"{name}: {error}")
        return
    key = key.strip()
    if not _KEY.fullmatch(key):
        found.problems.append(f"{name}: {_wrong(key)}")
    elif model:
        found.named[model] = key
    else:
        found.common = key


def _from_file(path: str) -> str:
    """A file's text. Raises ValueError, which says why not."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "no path"
        raise ValueError(f"the file {path} cannot be read: {why}") from None
    if len(content) > _MOST_BYTES:
        raise ValueError(f"the file {path} has more than {_MOST_BYTES} bytes and is not a key")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ValueError(f"the file {path} is not text; it must contain only the key") from None


def _wrong(key: str) -> str:
    allowed = "a key is printable ASCII, as an HTTP header takes it"
    if not key:
        return f"is blank; {allowed}"
    at = next(i for i, char in enumerate(key) if not _KEY.fullmatch(char))
    if key[at] in "\r\n":
        what = "a line break"
    else:
        what = "a control character" if key[at].isascii() else "not ASCII"
    return f"character {at + 1} is {what}; {allowed}"
