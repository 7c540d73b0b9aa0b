"""The one version of everything released: `pyproject.toml` has it, all other places follow."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Semantic versions, which Helm insists on; a pre-release as `1.2.0-rc.1`.
_VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9a-z]+(\.[0-9a-z]+)*)?")


class ReleaseError(Exception):
    """Nothing can be released; the message says what is wrong, and where."""


@dataclass(frozen=True)
class Place:
    """Where the version is written: each match of `pattern` has it as group 2, after group 1."""

    path: str
    pattern: str

    def found(self, root: Path) -> list[str]:
        """The versions written there, in order."""
        text = (root / self.path).read_text(encoding="utf-8")
        return [match[2] for match in re.finditer(self.pattern, text, re.MULTILINE)]

    def write(self, root: Path, version: str) -> None:
        """Puts `version` in each place."""
        file = root / self.path
        text = file.read_text(encoding="utf-8")
        file.write_text(
            re.sub(self.pattern, rf"\g<1>{version}", text, flags=re.MULTILINE), encoding="utf-8"
        )


_TEXT = r"([0-9][0-9A-Za-z.+-]*)"
PLACES = (
    Place("pyproject.toml", rf'^(version = "){_TEXT}(?=")'),
    Place("chart/Chart.yaml", rf"^(version: ){_TEXT}$"),
    Place("chart/Chart.yaml", rf"^(appVersion: ){_TEXT}$"),
    Place("README.md", rf"(selfheal-(?:worker|remediator):){_TEXT}"),
    Place("docs/install.md", rf"(selfheal-){_TEXT}(?=\.tgz)"),
)


def current(root: Path = ROOT) -> str:
    """The version that `pyproject.toml` names."""
    with (root / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def differences(root: Path = ROOT) -> Iterator[str]:
    """One sentence for each place that does not say what `pyproject.toml` says."""
    version = current(root)
    for place in PLACES:
        found = place.found(root)
        if not found:
            yield f"{place.path} has no version where {place.pattern!r} searches for it"
        for other in found:
            if other != version:
                yield f"{place.path} says {other}, pyproject.toml {version}"
    newest = re.search(r"^## (\S+)", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    if newest is None or newest[1] != version:
        named = newest[1] if newest else "nothing"
        yield f"CHANGELOG.md begins with {named}, not with {version}"


def check(root: Path = ROOT) -> str:
    """The version, if all places agree on it. Raises ReleaseError."""
    if wrong := list(differences(root)):
        raise ReleaseError("; ".join(wrong))
    return current(root)


def change(version: str, root: Path = ROOT) -> None:
    """Writes `version` in every place; the changelog is a human's. Raises ReleaseError."""
    if not _VERSION.fullmatch(version):
        raise ReleaseError(f"{version!r} is no version; allowed: 1.2.3 or 1.2.3-rc.1")
    for place in PLACES:
        place.write(root, version)
