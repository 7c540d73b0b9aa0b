"""Writes images as docker archives: what `ctr images import` and `docker load` read.

Most images here are a root file system or one static program, so their layers are put together
directly; only what a Dockerfile describes goes through buildah.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ci.images import tools

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

# vfs_cap_data revision 2, effective, permitted CAP_NET_BIND_SERVICE (capability 10).
NET_BIND_SERVICE = bytes([1, 0, 0, 2, 0, 4]).ljust(20, b"\0")


@dataclass(frozen=True)
class Config:
    """What a container of the image runs as; the names are those of a Dockerfile."""

    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    user: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    labels: Mapping[str, str] = field(default_factory=dict)
    exposed: Sequence[str] = ()
    volumes: Sequence[str] = ()


@dataclass(frozen=True)
class File:
    """A file of a layer: where its content is, its mode, and its file capability if it has one."""

    source: Path
    mode: int = 0o644
    capability: bytes | None = None


def layer_of_folder(root: Path, target: Path) -> None:
    """A layer that holds `root` as it is: owners, modes and the times of what packages brought.

    What was made later (by installing them) gets the time of the newest Python source, so that two
    builds give the same bytes. Sources keep theirs, by which their bytecode is checked.
    """
    left_out = [f"--exclude=./{name}/*" for name in ("dev", "proc", "sys", "run", "tmp")]
    order = ["--sort=name", "--numeric-owner", "--one-file-system"]
    order += [f"--mtime=@{newest_source(root)}", "--clamp-mtime"]
    tools.run(["tar", *order, *left_out, "-C", str(root), "-cf", str(target), "."])


def newest_source(root: Path) -> int:
    """The time of the newest `.py` file below `root` in seconds, rounded up; 0 without one."""
    found = (path for path in root.rglob("*.py") if not path.is_symlink())
    return max((-(-path.stat().st_mtime_ns // 1_000_000_000) for path in found), default=0)


def layer_of_files(
    files: Mapping[str, File], target: Path, folders: Mapping[str, int] | None = None
) -> None:
    """A layer of files by absolute path, owned by root, times 0; `folders` maps path to mode."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        wanted = {**_parents([*files, *(folders or {})]), **(folders or {})}
        for path, mode in sorted(wanted.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        for path, file in sorted(files.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = file.source.stat().st_size, file.mode
            if file.capability:
                xattr = file.capability.decode("ascii")
                entry.pax_headers = {"SCHILY.xattr.security.capability": xattr}
            with file.source.open("rb") as content:
                tar.addfile(entry, content)


def write(target: Path, ref: str, layers: Sequence[Path], config: Config) -> None:
    """Writes the archive of an image named `ref` (`name:tag`): layer tars, the lowest first."""
    digests = [_sha256(layer) for layer in layers]
    text = json.dumps(image_config(config, digests, platform.machine()), sort_keys=True).encode()
    config_name = f"{hashlib.sha256(text).hexdigest()}.json"
    names = [f"{digest}.tar" for digest in digests]
    manifest = [{"Config": config_name, "RepoTags": [ref], "Layers": names}]
    with tarfile.open(target, "w") as tar:
        # The manifest first: a reader finds it without going through the layers.
        _add(tar, "manifest.json", json.dumps(manifest).encode())
        _add(tar, config_name, text)
        for layer, name in zip(layers, names, strict=True):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = layer.stat().st_size, 0o644
            with layer.open("rb") as content:
                tar.addfile(entry, content)


def image_config(config: Config, digests: Sequence[str], machine: str) -> dict[str, object]:
    """The image's configuration as JSON data (image-spec v1.1, config.md)."""
    runs: dict[str, object] = {
        "Entrypoint": list(config.entrypoint) or None,
        "Cmd": list(config.cmd) or None,
        "User": config.user,
        "Env": [f"{name}={value}" for name, value in config.env.items()],
        "WorkingDir": config.working_dir,
        "Labels": dict(config.labels),
    }
    if config.exposed:
        runs["ExposedPorts"] = {port: {} for port in config.exposed}
    if config.volumes:
        runs["Volumes"] = {path: {} for path in config.volumes}
    return {
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": runs,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": "1970-01-01T00:00:00Z"} for _ in digests],
    }


def _parents(paths: Iterable[str]) -> dict[str, int]:
    found = {str(parent): 0o755 for path in paths for parent in Path(path).parents}
    found.pop("/", None)
    return found


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))


def _sha256(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
