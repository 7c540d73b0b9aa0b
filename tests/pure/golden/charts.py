"""The rendered chart: a digest of each object for every case, and all the text for two of them.

A digest is of the object as JSON with sorted keys, so that order and blanks do not matter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import yaml

from ci.parts import ensure
from tests.chart.rendering import CASES, OPERATORS, VERSIONS, Helm, Rendering, on_cluster
from tests.chart.test_render_matrix import PLATFORMS, Platform

#: Cases of which the file holds everything, for a difference to be read.
WHOLE = ("default", "production")
#: A string of more characters than this is not written out.
LONG = 1000


@cache
def _helm() -> Helm:
    """It is begun with all cases at once. Raises PartsError where there is no Helm."""
    found = Helm(ensure(["helm"])["helm"])
    found.ahead(_renderings().values())
    return found


def _platform(platform: Platform) -> Rendering:
    groups = [f"--api-versions={group}" for group in platform.groups]
    flags = (f"--kube-version={VERSIONS[-1]}.0", *groups, *platform.flags)
    return Rendering.of(platform.values, sets=platform.sets, release=platform.release, flags=flags)


@cache
def _renderings() -> dict[str, Rendering]:
    found = {case: on_cluster(case, VERSIONS[-1], OPERATORS) for case in CASES}
    for name, platform in PLATFORMS.items():
        found[f"on {name}"] = _platform(platform)
    return {name.replace(" ", "-").replace(",", "").replace("'", ""): one
            for name, one in found.items()}  # fmt: skip


def _render(name: str) -> str:
    lines = []
    for manifest in sorted(_helm().render(_renderings()[name]), key=_name):
        text = json.dumps(manifest, sort_keys=True)
        lines.append(f"{_name(manifest)} {hashlib.sha256(text.encode()).hexdigest()[:16]}")
        if name in WHOLE:
            lines += yaml.safe_dump(_shortened(manifest), width=100).splitlines()
    return "\n".join(lines) + "\n"


def _shortened(value: Any) -> Any:
    """Whole files (dashboards, rules) have tests of their own: of long strings a digest."""
    if isinstance(value, dict):
        return {key: _shortened(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shortened(inner) for inner in value]
    if isinstance(value, str) and len(value) > LONG:
        return f"sha256 {hashlib.sha256(value.encode()).hexdigest()[:16]}"
    return value


def _name(manifest: dict[str, Any]) -> str:
    meta = manifest["metadata"]
    return f"{manifest['kind']}/{meta.get('namespace', '')}/{meta['name']}"


def cases() -> dict[str, Callable[[], str]]:
    """Each case's name, and how its text is made."""
    return {name: partial(_render, name) for name in _renderings()}
