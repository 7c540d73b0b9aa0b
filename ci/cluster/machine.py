"""Whether this machine can hold the cluster; installs what it lacks, or says what to do instead."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ci.cluster.errors import ClusterError
from ci.cluster.layout import STATE_ROOT
from ci.cluster.spec import Spec

CNI_PLUGINS = Path("/usr/lib/cni")

# Program (or file) -> the Debian and Ubuntu package that brings it.
_CONTROL_PLANE_TOOLS: Mapping[str, str] = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "openssl": "openssl",
    "sysctl": "procps",
}
_NODE_TOOLS: Mapping[str, str] = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "mount": "mount",
    str(CNI_PLUGINS / "bridge"): "containernetworking-plugins",
}
_INSTEAD = (
    "Use any other cluster instead: CLUSTER=current takes the one of your kubeconfig"
    " (`kind create cluster` makes one where there is Docker)."
)
_GIB = 1 << 30
_MEMORY_PER_NODE = 2 * _GIB
# etcd and logs; and on each node its own copy of every image, packed and unpacked.
_SPACE = _GIB // 2
_SPACE_PER_NODE = 2 * _GIB


def prepare(spec: Spec, say: Callable[[str], None]) -> None:
    """Returns when the machine can hold a cluster of this spec; else raises ClusterError."""
    check_system(sys.platform, os.geteuid())
    missing = missing_packages(spec)
    if missing:
        install(missing, say)
        still = missing_packages(spec)
        if still:
            raise ClusterError(
                f"installed {', '.join(missing)}, but {', '.join(still)} is still missing"
            )
    _check_namespaces()
    _check_memory(spec)
    check_space(spec, shutil.disk_usage(_existing(STATE_ROOT)).free)


def check_system(system: str, user: int) -> None:
    """Raises ClusterError on a system, or for a user, that cannot make namespaces."""
    if system != "linux":
        raise ClusterError(f"the local cluster needs Linux, and this is {system}. {_INSTEAD}")
    if user != 0:
        raise ClusterError(
            "the local cluster makes network namespaces and cgroups, for which it must be root:"
            f" run the same command as root (for example `sudo -E …`). {_INSTEAD}"
        )
    if platform.machine() not in ("x86_64", "aarch64"):
        raise ClusterError(f"no parts are built for {platform.machine()}. {_INSTEAD}")


def check_space(spec: Spec, free: int) -> None:
    """Raises ClusterError when `free` bytes are too few for the cluster's own files."""
    needed = _SPACE + spec.nodes * _SPACE_PER_NODE
    if free < needed:
        raise ClusterError(
            f"not enough disk space for the cluster under {STATE_ROOT}: needs about"
            f" {needed / _GIB:.1f} GiB, has {free / _GIB:.1f} GiB"
        )


def check_root() -> None:
    """Raises ClusterError unless this is Linux and the user is root."""
    check_system(sys.platform, os.geteuid())


def missing_packages(spec: Spec, present: Callable[[str], bool] | None = None) -> list[str]:
    """The packages that bring the programs which this machine lacks for `spec`."""
    has = present or _present
    tools = {**_CONTROL_PLANE_TOOLS, **(_NODE_TOOLS if spec.nodes else {})}
    return sorted({package for program, package in tools.items() if not has(program)})


def install(packages: Sequence[str], say: Callable[[str], None]) -> None:
    """Installs Debian packages; ClusterError naming all of them where that cannot be done."""
    wanted = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"this machine lacks what these Debian packages bring: {wanted}."
            f" Install them with your system's package manager. {_INSTEAD}"
        )
    say(f"installing {wanted}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise ClusterError(
                f"`{' '.join(command)}` failed; install by hand: {wanted}\n{done.stderr.strip()}"
            )


def _present(program: str) -> bool:
    if program.startswith("/"):
        return Path(program).exists()
    return shutil.which(program) is not None


def _check_namespaces() -> None:
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "--propagation", "private", "true"],
        capture_output=True,
        text=True,
    )
    if tried.returncode != 0:
        raise ClusterError(f"this machine allows no namespaces: {tried.stderr.strip()}. {_INSTEAD}")


def _check_memory(spec: Spec) -> None:
    needed = spec.nodes * _MEMORY_PER_NODE
    has = total_memory()
    if has < needed:
        raise ClusterError(
            f"{spec.nodes} nodes need {needed // _GIB} GiB of memory, and this machine has"
            f" {has / _GIB:.1f} GiB. {_INSTEAD}"
        )


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def total_memory() -> int:
    """The machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
