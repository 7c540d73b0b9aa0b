"""Where this machine gets Debian from: debootstrap is given the same place, never a fixed one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEBIAN_SUITES = frozenset({"bullseye", "bookworm", "trixie", "forky", "sid"})


@dataclass(frozen=True)
class Source:
    """One apt source: a URI and the suites that it is asked for."""

    uri: str
    suites: tuple[str, ...]


def parse_one_line(text: str) -> Iterator[Source]:
    """`deb [options] URI SUITE COMPONENT…`, one a line (sources.list(5), one-line style)."""
    for line in text.splitlines():
        entry, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        if entry != "deb":
            continue
        if rest.startswith("["):
            rest = rest.partition("]")[2]
        words = rest.split()
        if len(words) >= 2:
            yield Source(words[0], (words[1],))


def parse_deb822(text: str) -> Iterator[Source]:
    """Stanzas of `Key: value` (sources.list(5), deb822 style); `Enabled: no` ones are left out."""
    for stanza in text.replace("\r", "").split("\n\n"):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[key] = f"{fields.get(key, '')} {line.strip()}"
            else:
                key, _, value = line.partition(":")
                key = key.lower()
                fields[key] = value.strip()
        wanted = "deb" in fields.get("types", "").split()
        if wanted and fields.get("enabled", "yes").lower() not in {"no", "false", "0"}:
            suites = tuple(fields.get("suites", "").split())
            yield from (Source(uri, suites) for uri in fields.get("uris", "").split())


def debian_mirror(sources: list[Source]) -> str | None:
    """The URI of the first source of a plain Debian suite; None where there is none (Ubuntu).

    A security or updates archive does not hold whole suites, so only bare suite names count.
    """
    for source in sources:
        if DEBIAN_SUITES.intersection(source.suites) and "://" in source.uri:
            return source.uri.rstrip("/")
    return None


def machine_sources(etc_apt: Path = Path("/etc/apt")) -> list[Source]:
    """Everything that /etc/apt/sources.list and sources.list.d say, in apt's order."""
    main = etc_apt / "sources.list"
    sources = list(parse_one_line(main.read_text(encoding="utf-8"))) if main.is_file() else []
    folder = etc_apt / "sources.list.d"
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".sources":
            sources += parse_deb822(text)
        elif path.suffix == ".list":
            sources += parse_one_line(text)
    return sources
