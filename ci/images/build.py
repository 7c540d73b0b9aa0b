"""Images from the cache, made when what they consist of has changed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ci.images import catalog, store, tools
from ci.images.catalog import Plan
from ci.images.errors import ImagesError
from ci.parts.progress import Console, Progress
from ci.versions import cache_root

_KEEP = 3
_TRIES = 3


@dataclass(frozen=True)
class Image:
    """A built image: its name, its docker archive (for `ctr images import`), and its bytes."""

    ref: str
    archive: Path
    size_bytes: int


def ensure(names: Sequence[str], progress: Progress | None = None) -> dict[str, Image]:
    """The images `names`, each built only if what it consists of has changed.

    Raises ValueError for an unknown name, `tools.MissingTools` for what the machine lacks,
    `ci.parts.PartsError` and ImagesError when a build fails; then nothing half-done is left.
    """
    plans = {name: catalog.plan(name) for name in names}
    said = progress or Console()
    missing = [name for name, plan in plans.items() if not plan.path.exists()]
    for number, name in enumerate(missing, 1):
        plans[name] = _build(name, said, number, len(missing))
    return {name: found(plan) for name, plan in plans.items()}


def found(plan: Plan) -> Image:
    """The built image of a plan; FileNotFoundError when it is not built."""
    # The newest by use are kept, so using one makes it newer (another user's cache stays as it is).
    with contextlib.suppress(PermissionError):
        os.utime(plan.path)
    return Image(plan.ref, plan.path, plan.path.stat().st_size)


class _SourcesChanged(Exception):
    """What was built is not what the key says: somebody saved a file meanwhile."""


def _build(name: str, progress: Progress, number: int, total: int) -> Plan:
    for _ in range(_TRIES):
        plan = catalog.plan(name)
        with contextlib.suppress(_SourcesChanged):
            _build_once(plan, progress, number, total)
            return plan
    raise ImagesError(f"the sources of {name} changed during each of {_TRIES} builds; run again")


def _build_once(plan: Plan, progress: Progress, number: int, total: int) -> None:
    with store.locked(cache_root() / "images" / f"{plan.name}.lock"):
        if plan.path.exists():
            return
        tools.need_root(f"building the {plan.name} image")
        tools.need_space(plan.path.parent, 1, f"the {plan.name} image")
        if "build" in plan.roots:
            tools.need({"buildah": "buildah"})
        ready = catalog.prepare(plan, progress)
        working = progress.working(f"image {plan.name}", number, total)
        with working, store.whole_file(plan.path) as part:
            plan.make(part, plan.ref, ready)
            if catalog.plan(plan.name).key != plan.key:
                raise _SourcesChanged
        store.prune_named(plan.path, _KEEP)
