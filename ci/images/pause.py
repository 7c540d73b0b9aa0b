"""Builds the program of the pause image from `pause/main.go`."""

from __future__ import annotations

import os
from pathlib import Path

from ci.images import inputs, tools
from ci.parts.recipes import BUILD_ENVIRONMENT
from ci.parts.toolchain import find
from ci.versions import pin

_SOURCES = Path(__file__).with_name("pause")


def sources_digest() -> str:
    """A hash over the sources."""
    return inputs.digest_of_files(_SOURCES, sorted(_SOURCES.iterdir()))


def build(folder: Path) -> Path:
    """Compiles the program into `folder` and gives its path (a few seconds, about 1.5 MB)."""
    go = find(pin("go", "toolchain")).go
    output = folder / "program"
    environment = {**os.environ, **BUILD_ENVIRONMENT}
    command = [str(go), "build", "-ldflags", "-s -w", "-o", str(output), "."]
    tools.run(command, env=environment, cwd=_SOURCES)
    return output
