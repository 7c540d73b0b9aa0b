"""Builds what is missing in the cache, one at a time; a killed build leaves nothing half-done."""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ci.parts import native
from ci.parts.errors import PartsError
from ci.parts.progress import Console, Progress
from ci.parts.recipes import (
    BUILD_ENVIRONMENT,
    MODULES,
    RECIPES,
    Recipe,
    key,
    link_flags,
    module_sources,
)
from ci.parts.toolchain import Toolchain, find
from ci.versions import cache_root, pin

_GIB = 1 << 30
# Measured cold: modules, Go's build cache and the programs of each wrapper module.
_COLD_BYTES = {"kubernetes": 4 * _GIB, "keda": 5 * _GIB}
_COLD_BYTES_OTHER = 3 * _GIB // 2
_TEMPORARY = ".building-"


def ensure(names: Sequence[str], progress: Progress | None = None) -> dict[str, Path]:
    """The paths of the parts `names`; those that are not in the cache are built first.

    A program's path is its executable, a source folder's path is the folder. Two processes never
    build at once: the second waits, and finds the first one's work. Raises PartsError.
    """
    wanted = _recipes(names)
    toolchain = find(pin("go", "toolchain"))
    places = {recipe.name: place(recipe, toolchain) for recipe in wanted}
    if not all(path.exists() for path in places.values()):
        with _lock():
            _remove_leftovers()
            missing = [recipe for recipe in wanted if not places[recipe.name].exists()]
            check_space(missing, _file_systems(toolchain))
            _build_all(missing, places, toolchain, progress or Console())
    return {recipe.name: places[recipe.name] for recipe in wanted}


def place(recipe: Recipe, toolchain: Toolchain) -> Path:
    """Where the part is, or will be, in the cache."""
    version = pin("go", recipe.module)
    folder = key(recipe, version, toolchain.version, module_sources(recipe.module))
    return _parts_root() / recipe.name / folder / recipe.name


def check_space(missing: Sequence[Recipe], free: Mapping[Path, int]) -> None:
    """Raises PartsError when one of the folders has fewer `free` bytes than a cold build fills."""
    needed = space_needed(missing)
    names = ", ".join(recipe.name for recipe in missing)
    for folder, has in free.items():
        if has < needed:
            raise PartsError(
                f"not enough disk space under {folder} to build {names}: needs about"
                f" {needed / _GIB:.0f} GiB, has {has / _GIB:.1f} GiB."
                " SELFHEAL_CACHE chooses another folder, GOCACHE and GOMODCACHE choose Go's own."
            )


def space_needed(missing: Sequence[Recipe]) -> int:
    """Bytes that a cold build of these parts needs, in all."""
    modules = {recipe.module for recipe in missing}
    return sum(_COLD_BYTES.get(module, _COLD_BYTES_OTHER) for module in modules)


def _file_systems(toolchain: Toolchain) -> dict[Path, int]:
    """Free bytes where a build writes: our cache and Go's two; each disk once."""
    said = subprocess.run(
        [toolchain.go, "env", "GOCACHE", "GOMODCACHE"], capture_output=True, text=True, check=True
    )
    folders = [_parts_root(), *map(Path, said.stdout.split())]
    free: dict[int, tuple[Path, int]] = {}
    for folder in folders:
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free.setdefault(there.stat().st_dev, (folder, shutil.disk_usage(there).free))
    return dict(free.values())


def _recipes(names: Sequence[str]) -> list[Recipe]:
    unknown = sorted(set(names) - set(RECIPES))
    if unknown:
        raise PartsError(f"no such part: {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    return [recipe for name, recipe in RECIPES.items() if name in set(names)]


def _build_all(
    missing: Sequence[Recipe], places: dict[str, Path], toolchain: Toolchain, progress: Progress
) -> None:
    for number, recipe in enumerate(missing, 1):
        with progress.working(recipe.name, number, len(missing)):
            _build(recipe, places[recipe.name], toolchain)


def _build(recipe: Recipe, final: Path, toolchain: Toolchain) -> None:
    final.parent.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=_parts_root()))
    try:
        if recipe.package:
            _compile(recipe, temporary / recipe.name, toolchain)
        else:
            _copy_sources(recipe, temporary / recipe.name, toolchain)
        shutil.rmtree(final.parent, ignore_errors=True)
        temporary.chmod(0o755)
        temporary.rename(final.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _compile(recipe: Recipe, output: Path, toolchain: Toolchain) -> None:
    flags = link_flags(recipe, pin("go", recipe.module))
    arguments = ["build", "-ldflags", flags, "-o", str(output)]
    if tags := recipe.native.tags if recipe.native else recipe.tags:
        arguments += ["-tags", tags]
    _go(recipe, toolchain, *arguments, recipe.package)


def _copy_sources(recipe: Recipe, output: Path, toolchain: Toolchain) -> None:
    _go(recipe, toolchain, "mod", "download", recipe.source_module)
    listed = _go(recipe, toolchain, "list", "-m", "-f", "{{.Dir}}", recipe.source_module)
    shutil.copytree(Path(listed.strip()) / recipe.folder, output)
    for path in [output, *output.rglob("*")]:
        # Go's module cache is read-only, and a copy of it could not be removed.
        path.chmod(0o755 if path.is_dir() else 0o644)


def _go(recipe: Recipe, toolchain: Toolchain, *arguments: str) -> str:
    settings = (
        native.environment(recipe.native, _parts_root()) if recipe.native else BUILD_ENVIRONMENT
    )
    try:
        done = subprocess.run(
            [toolchain.go, *arguments],
            cwd=MODULES / recipe.module,
            env=os.environ | settings,
            capture_output=True,
            text=True,
        )
    except OSError as error:
        raise PartsError(f"cannot run {toolchain.go}: {error}") from error
    if done.returncode != 0:
        raise PartsError(_failure(recipe, done.returncode, done.stderr))
    return done.stdout


def _failure(recipe: Recipe, status: int, stderr: str) -> str:
    said = [line for line in stderr.splitlines() if not line.startswith("go: downloading ")]
    detail = "\n  ".join(said[-12:]) or "it said nothing"
    if status < 0 or "signal: killed" in stderr:
        return (
            f"the build of {recipe.name} was killed (status {status}); on a small machine this is"
            f" usually a lack of memory. Run the same command again to continue.\n  {detail}"
        )
    return f"the build of {recipe.name} failed (status {status}):\n  {detail}"


def _parts_root() -> Path:
    root = cache_root() / "parts"
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PartsError(
            f"cannot write to the cache: {error}. SELFHEAL_CACHE chooses it."
        ) from error
    return root


@contextmanager
def _lock() -> Iterator[None]:
    with (_parts_root() / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("waiting for another build of parts to end", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_leftovers() -> None:
    """Removes what a killed build left; only called with the lock held, so nobody is using it."""
    for leftover in _parts_root().glob(f"{_TEMPORARY}*"):
        shutil.rmtree(leftover)
