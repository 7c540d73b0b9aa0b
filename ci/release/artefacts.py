"""What a release consists of: the chart's package, the wheel, both images' archives, and sums.

With a key the chart's package has a `.prov` file beside it, for `helm verify`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ci import images, parts
from ci.release.version import ROOT, ReleaseError

IMAGES = ("worker", "remediator")
SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Signing:
    """The chart's PGP key: a name or address, the file with it, the file with its passphrase."""

    key: str
    keyring: Path
    passphrase_file: Path | None = None


def build(version: str, folder: Path, signing: Signing | None = None) -> list[Path]:
    """All files of the release in `folder`, in place of the release before; the sums come last.

    Raises ReleaseError, also for a folder with anything but a release in it; ci.parts.PartsError
    or ci.images.ImagesError.
    """
    folder = folder.resolve()
    _refuse_other_files(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        new = Path(beside) / folder.name
        new.mkdir()
        made = _build(version, new, signing)
        if folder.exists():
            shutil.rmtree(folder)
        new.rename(folder)
    return [folder / file.name for file in made]


def _refuse_other_files(folder: Path) -> None:
    """What was released before is in its sums; whatever else lies there is somebody's."""
    if not folder.exists():
        return
    listed = folder / SUMS
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else ()
    ours = {SUMS, *(line.rpartition("  ")[2] for line in lines)}
    if others := sorted({file.name for file in folder.iterdir()} - ours):
        raise ReleaseError(
            f"{folder} has {others[0]}, which no release made: move it, or name another --folder"
        )


def _build(version: str, folder: Path, signing: Signing | None) -> list[Path]:
    made = [wheel(folder), *chart(folder, signing)]
    built = images.ensure(IMAGES)
    made += [image(name, built[name].archive, version, folder) for name in IMAGES]
    return [*made, sums(folder, made)]


def wheel(folder: Path) -> Path:
    """The Python package with both commands."""
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)])
    return _only(folder, "*.whl")


def chart(folder: Path, signing: Signing | None = None) -> list[Path]:
    """The chart as `helm install` and `helm push` take it; signed, with its `.prov` file."""
    helm = parts.ensure(["helm"])["helm"]
    command = [str(helm), "package", str(ROOT / "chart"), "--destination", str(folder)]
    if signing is None:
        _run(command)
        return [_only(folder, "selfheal-*.tgz")]
    command += ["--sign", "--key", signing.key, "--keyring", str(signing.keyring)]
    if signing.passphrase_file:
        command += ["--passphrase-file", str(signing.passphrase_file)]
    _run(command)
    return [_only(folder, "selfheal-*.tgz"), _only(folder, "selfheal-*.tgz.prov")]


def image(name: str, archive: Path, version: str, folder: Path) -> Path:
    """The image as `docker load` and `ctr images import` take it, named as the chart's default.

    The same bytes for the same image, so that two builders can compare their sums.
    """
    target = folder / f"selfheal-{name}-{version}.image.tar.gz"
    with (
        target.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
    ):
        rename(archive, f"selfheal-{name}:{version}", packed)
    return target


def rename(archive: Path, ref: str, target: IO[bytes] | gzip.GzipFile) -> None:
    """Copies a docker archive of one image to `target`, which then calls it `ref`."""
    with tarfile.open(archive) as old, tarfile.open(fileobj=target, mode="w|") as new:
        for entry in old:
            content = old.extractfile(entry)
            if entry.name == "repositories":
                continue  # of Docker before 1.10: it would name the image again, as it was
            if entry.name == "manifest.json" and content is not None:
                [about] = json.load(content)
                renamed = json.dumps([{**about, "RepoTags": [ref]}]).encode()
                entry.size, content = len(renamed), io.BytesIO(renamed)
            entry.mtime = 0
            new.addfile(entry, content)


def sums(folder: Path, files: list[Path]) -> Path:
    """A file for `sha256sum --check`."""
    target = folder / SUMS
    lines = []
    for file in sorted(files):
        with file.open("rb") as content:
            lines.append(f"{hashlib.file_digest(content, 'sha256').hexdigest()}  {file.name}\n")
    target.write_text("".join(lines), encoding="utf-8")
    return target


def _only(folder: Path, pattern: str) -> Path:
    [found] = folder.glob(pattern)
    return found


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"{Path(command[0]).name} {command[1]}: {done.stderr.strip()}")
