"""This machine's pip settings and certificate authorities, for a build that must not keep them.

The Dockerfiles take two optional secrets: `pip.conf`, and `ca.pem`, which appears in the build as
/run/secrets/ca.pem.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from ci.images import tools

_SYSTEM_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_CA_IN_BUILD = "/run/secrets/ca.pem"

# What says where packages come from and how they are reached. Folders of this machine
# (find-links, cache-dir) mean nothing inside a build.
_CARRIED = frozenset(
    {
        "index-url",
        "extra-index-url",
        "trusted-host",
        "proxy",
        "timeout",
        "default-timeout",
        "retries",
    }
)


def write(folder: Path) -> Iterator[tuple[str, Path]]:
    """Writes the secrets into `folder`, for its owner only, and yields (id, file) of each."""
    said = tools.run([sys.executable, "-m", "pip", "config", "list"])
    settings = effective(said)
    bundle = Path(settings.get("cert", _SYSTEM_BUNDLE))
    if bundle.is_file():
        yield "ca.pem", bundle
    text = pip_conf(settings, with_authorities=bundle.is_file())
    path = folder / "pip.conf"
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    yield "pip.conf", path


def effective(config_list: str) -> dict[str, str]:
    """The settings that hold for `pip install`, from the output of `pip config list`.

    The environment wins over the section `install`, that over `global` (pip's own order).
    """
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in config_list.splitlines():
        name, _, value = line.partition("=")
        section, _, key = name.partition(".")
        if section in sections:
            sections[section][key] = str(ast.literal_eval(value))
    return sections["global"] | sections["install"] | sections[":env:"]


def pip_conf(settings: dict[str, str], *, with_authorities: bool) -> str:
    """A pip.conf with those settings that mean the same inside a build."""
    kept = {key: value for key, value in sorted(settings.items()) if key in _CARRIED}
    if with_authorities:
        kept["cert"] = _CA_IN_BUILD
    # A value of several lines continues after an indent.
    lines = [f"{key} = {value}".replace("\n", "\n    ") for key, value in kept.items()]
    return "\n".join(["[global]", *lines, ""])
