"""Builds what a Dockerfile describes, with buildah and a storage of our own in the cache.

There is one storage folder per base root file system: it holds the base images and the layers of
earlier builds, so that a changed source file rebuilds the last layers only. It goes when the base
changes.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ci.images import secrets, store, tools
from ci.images.errors import ImagesError
from ci.versions import cache_root


@dataclass(frozen=True)
class Storage:
    """A buildah storage: where it is, and the driver that works there."""

    root: Path
    driver: str

    def run(self, *arguments: str) -> str:
        """Runs buildah on this storage; ImagesError with the end of its output on failure."""
        # Its mounts and locks end with each command, so nothing of them is kept; and it must not
        # make the machine's own folder of networks, in which it would leave a lock.
        with tempfile.TemporaryDirectory(prefix="selfheal-buildah-") as folder:
            config = Path(folder, "containers.conf")
            config.write_text(f'[network]\nnetwork_config_dir = "{folder}/networks"\n')
            settings = {
                "BUILDAH_ISOLATION": "chroot",
                "CONTAINERS_CONF": str(config),
                "TMPDIR": tempfile.gettempdir(),
            }
            places = ["--root", str(self.root), "--runroot", f"{folder}/run"]
            command = ["buildah", *places, "--storage-driver", self.driver, *arguments]
            return tools.run_contained(command, env=dict(os.environ) | settings)

    def has(self, ref: str) -> bool:
        """Whether an image of that name is in the storage."""
        return ref in self.run("images", "--format", "{{.Name}}:{{.Tag}}").split()


def storage(key: str) -> Storage:
    """The storage for base images of that key; those of other keys are removed."""
    root = cache_root() / "buildah" / f"storage-{key}"
    root.mkdir(parents=True, exist_ok=True)
    store.prune_named(root)
    overlay = Storage(root, "overlay")
    try:
        # What a killed build left: nobody else uses this storage while the caller holds its lock.
        overlay.run("rm", "--all")
    except ImagesError as error:
        # Overlay file systems cannot be stacked everywhere (a cache inside a container).
        if "overlay" not in str(error):
            raise
        return Storage(root, "vfs")
    return overlay


def build(
    place: Storage, dockerfile: Path, context: Path, arguments: Mapping[str, str], ref: str
) -> str:
    """`buildah build` with its layers kept; this machine's pip settings go in as secrets.

    All times are 0, and the format is OCI's, since Docker's has the build containers' random names:
    so two builds give the same bytes. Gives the image's id.
    """
    # Found and removed by the next build if this one is killed; the caller holds the lock.
    with store.scratch_folder(place.root.with_name("secrets")) as folder:
        said = place.run(
            "build",
            "--layers",
            "--pull-never",
            "--timestamp=0",
            "--format=oci",
            *(f"--build-arg={name}={value}" for name, value in arguments.items()),
            *(f"--secret=id={name},src={path}" for name, path in secrets.write(folder)),
            f"--file={dockerfile}",
            f"--tag={ref}",
            str(context),
        )
    return said.split()[-1]
