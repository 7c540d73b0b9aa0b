"""The pinned versions (`versions.toml`) and the cache folder that is keyed by them."""

import functools
import os
import tomllib
from pathlib import Path

_FILE = Path(__file__).with_name("versions.toml")


def cache_root() -> Path:
    """Where built parts, images and downloads are kept: `SELFHEAL_CACHE`, else the user's cache."""
    chosen = os.environ.get("SELFHEAL_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser().absolute() / "selfheal"


def pin(section: str, name: str) -> str:
    """The pinned value `name` of `[section]`; KeyError names both when there is none."""
    try:
        value = pins()[section][name]
    except KeyError:
        raise KeyError(f"{_FILE.name} has no {name} in [{section}]") from None
    return str(value)


@functools.cache
def pins() -> dict[str, dict[str, str]]:
    """All of `versions.toml`, by section."""
    return tomllib.loads(_FILE.read_text())
