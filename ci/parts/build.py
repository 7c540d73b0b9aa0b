"""Gets what is missing in the cache: an official archive, or a build from source.

One at a time; what is killed leaves nothing half-done.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ci.parts import native, official
from ci.parts.archives import Archive, archive_of
from ci.parts.errors import PartsError
from ci.parts.progress import Console, Progress
from ci.parts.recipes import (
    BUILD_ENVIRONMENT,
    MODULES,
    RECIPES,
    Recipe,
    compile_flags,
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
_DOWNLOADS = ".downloads"


@dataclass(frozen=True)
class _Choice:
    """Where a part is, or will be, and the archive that it comes from, unless it is built."""

    recipe: Recipe
    path: Path
    archive: Archive | None = None


def ensure(names: Sequence[str], progress: Progress | None = None) -> dict[str, Path]:
    """The paths of the parts `names`; those that are not in the cache are got or built first.

    A program's path is its executable, a source folder's path is the folder. Two processes never
    build at once: the second waits, and finds the first one's work. Raises PartsError.
    """
    wanted = _recipes(names)
    toolchain = find(pin("go", "toolchain"))
    choices = [_choose(recipe, toolchain) for recipe in wanted]
    if not all(choice.path.exists() for choice in choices):
        with _lock():
            _remove_leftovers()
            missing = [choice for choice in choices if not choice.path.exists()]
            if built := [choice.recipe for choice in missing if not choice.archive]:
                check_space(built, _file_systems(toolchain))
            _get_all(missing, toolchain, progress or Console())
    return {choice.recipe.name: choice.path for choice in choices}


def place(recipe: Recipe, toolchain: Toolchain) -> Path:
    """Where the part is, or will be, in the cache; may ask its archive's host, for seconds."""
    return _choose(recipe, toolchain).path


def found(recipe: Recipe, toolchain: Toolchain) -> Path | None:
    """Where the part is in the cache, however it came there; nobody is asked."""
    archive = archive_of(recipe)
    places = [_source_place(recipe, toolchain), *([_place(recipe, archive)] if archive else [])]
    return next((path for path in places if path.exists()), None)


def _choose(recipe: Recipe, toolchain: Toolchain) -> _Choice:
    built = _Choice(recipe, _source_place(recipe, toolchain))
    archive, setting = archive_of(recipe), official.setting()
    if archive is None or setting == "source":
        return built
    got = _Choice(recipe, _place(recipe, archive), archive)
    if setting == "official":
        return got
    if built.path.exists() or not (got.path.exists() or official.can_be_had(archive)):
        return built
    return got


def _source_place(recipe: Recipe, toolchain: Toolchain) -> Path:
    version = pin("go", recipe.module)
    folder = key(recipe, version, toolchain.version, module_sources(recipe.module))
    return _parts_root() / recipe.name / folder / recipe.name


def _place(recipe: Recipe, archive: Archive) -> Path:
    return _parts_root() / recipe.name / archive.key(recipe.name) / recipe.name


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


def _get_all(missing: Sequence[_Choice], toolchain: Toolchain, progress: Progress) -> None:
    """Each archive once, however many parts come from it."""
    jobs = {
        choice.archive.name if choice.archive else choice.recipe.name: choice for choice in missing
    }
    for number, choice in enumerate(jobs.values(), 1):
        if archive := choice.archive:
            said = f"{archive.name} from {archive.host}"
            with progress.working(said, number, len(jobs), "downloading"):
                _fetch(archive)
        else:
            with progress.working(choice.recipe.name, number, len(jobs)):
                _build(choice.recipe, choice.path, toolchain)
    shutil.rmtree(_parts_root() / _DOWNLOADS, ignore_errors=True)


def _fetch(archive: Archive) -> None:
    """All programs of the archive, also those that nobody wants yet."""
    with _temporary() as temporary:
        official.fetch(archive, temporary, _parts_root() / _DOWNLOADS)
        for part in archive.programs:
            final = _place(RECIPES[part], archive)
            if final.exists():  # and may be running
                continue
            folder = temporary / f"{part}.folder"
            folder.mkdir()
            (temporary / part).rename(folder / part)
            _move(folder, final.parent)


def _build(recipe: Recipe, final: Path, toolchain: Toolchain) -> None:
    with _temporary() as temporary:
        folder = temporary / "folder"
        folder.mkdir()
        if recipe.package:
            _compile(recipe, folder / recipe.name, toolchain)
        else:
            _copy_sources(recipe, folder / recipe.name, toolchain)
        _move(folder, final.parent)


@contextmanager
def _temporary() -> Iterator[Path]:
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=_parts_root()))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move(folder: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(final, ignore_errors=True)
    folder.chmod(0o755)
    folder.rename(final)


def _compile(recipe: Recipe, output: Path, toolchain: Toolchain) -> None:
    flags = link_flags(recipe, pin("go", recipe.module))
    arguments = ["build", "-ldflags", flags, "-o", str(output), "-gcflags", compile_flags(recipe)]
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
