"""What a cluster or a command leaves on this machine, found without its own bookkeeping."""

import os
from pathlib import Path

from ci.cluster import Cluster

# Where the parts of a cluster keep their files unless set otherwise.
FOLDERS = (
    "/etc/cni",
    "/etc/kubernetes",
    "/opt/cni",
    "/run/containerd",
    "/run/netns",
    "/run/selfheal-buildah",
    "/usr/libexec/kubernetes",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
)


def machine_folders() -> list[str]:
    """Those of FOLDERS that are there."""
    return [folder for folder in FOLDERS if Path(folder).exists()]


def traces(name: str) -> list[str]:
    """Everything that belongs to the cluster of this name."""
    link = Cluster(name).layout.link
    found = [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"*/selfheal-{name}")]
    found += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"selfheal-{name}")]
    found += [f"interface {path}" for path in Path("/sys/class/net").glob(link)]
    found += [f"folder {path}" for path in Path("/var/lib/selfheal").glob(f"{name}*")]
    found += [f"lock {path}" for path in Path("/run/lock").glob(f"selfheal-{name}*")]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [f"mount {line}" for line in mounts if f"selfheal/{name}" in line]
    return [*found, *processes_with(f"/var/lib/selfheal/{name}/", "cmdline", "mounts", "environ")]


def processes_with(text: str, *files: str) -> list[str]:
    """The other processes that have `text` in one of these files of theirs in /proc."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        try:
            told = [(folder / file).read_text(errors="replace") for file in files]
            command = (folder / "cmdline").read_text(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if any(text in one for one in told):
            found.append(f"process {folder.name}: {command}")
    return found
