"""The official archives and images of parts: where they are, and what their checksums must be.

`archives.toml` has a table for each. One of `file` (the program itself), `tar` (an archive) or
`image` (without tag) says where; `amd64` and `arm64` are published checksums, for an image digests
of its index or of the platform's manifest; `requires` is the module's version that it belongs to;
`programs` has the path of each part inside; `source` says where the checksums were read.
"""

import functools
import hashlib
import platform
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from ci.parts.recipes import MODULES, RECIPES, Recipe

_FILE = Path(__file__).with_name("archives.toml")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Archive:
    """One file or image, for this machine's architecture."""

    name: str
    kind: Literal["file", "tar", "image"]
    location: str
    """A URL, or an image's name without tag (`ghcr.io/kedacore/keda`)."""
    checksum: str
    """`sha256:…` or `sha512:…`."""
    architecture: str
    programs: Mapping[str, str] = field(hash=False)
    """The part's name → its path inside; empty for a file."""

    @property
    def host(self) -> str:
        """Who is asked for it."""
        if self.kind == "image":
            return self.location.partition("/")[0]
        return urlsplit(self.location).netloc

    def key(self, part: str) -> str:
        """The cache folder of a part that comes from here."""
        # An image's index has the same digest for each architecture.
        facts = "\0".join((self.kind, self.checksum, self.programs[part], self.architecture))
        return f"official-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"


def archive_of(recipe: Recipe) -> Archive | None:
    """The official archive that has the part in exactly the pinned version, or None."""
    return next((archive for archive in usable() if recipe.name in archive.programs), None)


def usable() -> list[Archive]:
    """The archives that have this machine's programs in exactly the pinned versions."""
    architecture = _ARCHITECTURES.get(platform.machine())
    if platform.system() != "Linux" or architecture is None:
        return []
    return [
        archive_from(name, entry, architecture)
        for name, entry in entries().items()
        if architecture in entry
        and all(is_required(RECIPES[part].module, entry["requires"]) for part in entry["programs"])
    ]


def archive_from(name: str, entry: Mapping[str, Any], architecture: str) -> Archive:
    """The entry `name` of the file, for one architecture."""
    kind: Literal["file", "tar", "image"]
    (kind,) = (kind for kind in ("file", "tar", "image") if kind in entry)
    return Archive(
        name=name,
        kind=kind,
        location=entry[kind].format(arch=architecture),
        checksum=entry[architecture],
        architecture=architecture,
        programs={part: path.format(arch=architecture) for part, path in entry["programs"].items()},
    )


@functools.cache
def is_required(module: str, requirement: str) -> bool:
    """Whether the wrapper module requires this (`sigs.k8s.io/kwok v0.8.0`)."""
    lines = (MODULES / module / "go.mod").read_text().splitlines()
    plain = (line.removeprefix("require ").partition("//")[0].strip() for line in lines)
    return requirement in plain


@functools.cache
def entries() -> dict[str, Any]:
    """All of `archives.toml`."""
    return tomllib.loads(_FILE.read_text())
