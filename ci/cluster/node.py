"""One real node: containerd, kubelet and kube-proxy in namespaces and folders of their own.

In its mount namespace a node has /var/lib, /run and /var/log to itself, so everything is where it
would be on a machine of its own, host paths in pods included, and two nodes never meet. The mounts
end with the node's processes.
"""

import hashlib
import json
import os
import re
import shlex
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ci.cluster import cgroups, kubeconfig, machine, network, processes, waiting
from ci.cluster.errors import ClusterError
from ci.cluster.layout import (
    DNS_ADDRESS,
    DOMAIN,
    POD_NETWORK,
    STATE_ROOT,
    Layout,
    Network,
)
from ci.versions import cache_root

PROGRAMS = ("containerd", "kubelet", "kube-proxy")
_SOCKET = "unix:///run/containerd/containerd.sock"
_CONTAINERD_SECONDS = 60
_ARCHIVE_LABEL = "selfheal.dev/archive"
# For the machine itself, etcd and the API server.
_SYSTEM_MEMORY = 3 << 30

# The kubelet sets these for the whole machine when they differ. It is shown files that agree, so
# that the machine keeps its own.
_KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def prepare(layout: Layout, chosen: Network, index: int, nodes: int, pause: str) -> None:
    """Makes the node's folders, configuration, cgroup and namespaces, and starts its containerd.

    `pause` is the name of the image that holds a pod's namespaces.
    """
    node = layout.node_name(index)
    folder = layout.node_root(node)
    for name in ("run", "log", "lib", "lib/selfheal", "lib/kubelet", "cni", "sys"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    write_boot_id(layout, node)
    (folder / "resolv.conf").write_text("# nothing outside the cluster is looked up\n")
    (folder / "containerd.toml").write_text(containerd_config(folder, pause))
    (folder / "cni" / "10-pods.conflist").write_text(cni_config(layout, chosen, index))
    (folder / "kubelet.yaml").write_text(
        yaml.safe_dump(kubelet_config(layout, node, reservation(nodes, *_machine())))
    )
    for setting, value in _KERNEL_SETTINGS.items():
        (folder / "sys" / setting.replace("/", ".")).write_text(f"{value}\n")
    cgroups.create(f"{layout.cgroup}/{node}")
    network.make_node(layout, chosen, index, nodes, _binds(folder))
    start_part(layout, chosen, {}, index, "containerd")


def start_part(
    layout: Layout, chosen: Network, programs: Mapping[str, Path], index: int, part: str
) -> None:
    """Starts one of PROGRAMS on the node, as the part `NODE-PROGRAM`."""
    node = layout.node_name(index)
    folder = layout.node_root(node)
    if part == "containerd":
        command: list[str | Path] = ["containerd", f"--config={folder / 'containerd.toml'}"]
    elif part == "kubelet":
        command = [programs[part], *_kubelet_arguments(layout, chosen, index)]
    else:
        command = [programs[part], *_kube_proxy_arguments(layout, node)]
    processes.start(layout, f"{node}-{part}", command, inside=node)


def start(layout: Layout, chosen: Network, programs: Mapping[str, Path], index: int) -> None:
    """Starts kubelet and kube-proxy; the API server is ready."""
    node = layout.node_name(index)
    for part in ("kubelet", "kube-proxy"):
        target = layout.certificates / f"{part}-{node}.kubeconfig"
        kubeconfig.write(layout, chosen, f"{part}-{node}", target)
        start_part(layout, chosen, programs, index, part)


def reboot(layout: Layout, chosen: Network, programs: Mapping[str, Path], index: int) -> None:
    """What a reboot looks like from outside: all containers die, and the boot id is another.

    Returns when the kubelet runs again, before it has started the containers again.
    """
    node = layout.node_name(index)
    processes.stop(layout, f"{node}-kubelet")
    cgroups.kill_all(f"{layout.cgroup}/{node}")
    write_boot_id(layout, node)
    start_part(layout, chosen, programs, index, "kubelet")


def wait_containerd(layout: Layout, node: str) -> None:
    """Until the node's containerd takes images."""
    part = f"{node}-containerd"

    def answers() -> bool:
        if processes.find(layout, part) is None:
            raise ClusterError(
                f"{part} has ended; its last words:\n{waiting.last_words(layout, part)}"
            )
        return processes.run(layout, ctr(layout, node, "version")).returncode == 0

    waiting.until(f"{part} answers", answers, _CONTAINERD_SECONDS)


def load(layout: Layout, node: str, archive: Path) -> None:
    """Imports the images of a docker archive into the node's containerd, unless it has them: they
    are labelled with the archive's digest."""
    with archive.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    same = f'labels."{_ARCHIVE_LABEL}"=={digest}'
    if processes.run(layout, ctr(layout, node, "images", "list", "--quiet", same)).stdout.strip():
        return
    with archive.open("rb") as content:
        importing = ctr(layout, node, "images", "import", "-")
        done = processes.run(layout, importing, stdin=content.fileno())
    if done.returncode != 0:
        raise ClusterError(f"cannot import {archive} into {node}: {done.stderr.strip()}")
    for ref in imported(done.stdout):
        label = ctr(layout, node, "images", "label", ref, f"{_ARCHIVE_LABEL}={digest}")
        processes.run(layout, label)  # without it, the next time imports it again


def imported(said: str) -> list[str]:
    """The names of the images, from what `ctr images import` prints."""
    return re.findall(r"^unpacking (\S+) \(sha256:", said, re.MULTILINE)


def ctr(layout: Layout, node: str, *arguments: str) -> list[str]:
    """The command that calls the node's containerd, in the namespace of Kubernetes' containers."""
    return [*processes.enter(layout, node), "ctr", "--namespace=k8s.io", *arguments]


def write_boot_id(layout: Layout, node: str) -> None:
    """Gives the node a new boot id, as a reboot would; the kubelet reads it when it starts."""
    (layout.node_root(node) / "boot_id").write_text(f"{uuid.uuid4()}\n")


def reservation(nodes: int, cores: int, memory: int) -> dict[str, str]:
    """What each of `nodes` kubelets sets aside, so that together they promise what there is.

    `memory` is in bytes. Each kubelet sees the whole machine.
    """
    share = (
        (memory - _SYSTEM_MEMORY) // nodes if memory > 2 * _SYSTEM_MEMORY else memory // 2 // nodes
    )
    milli_cores = cores * 1000 - cores * 1000 // nodes
    return {"cpu": f"{milli_cores}m", "memory": f"{(memory - share) >> 20}Mi"}


def kubelet_config(layout: Layout, node: str, reserved: Mapping[str, str]) -> dict[str, Any]:
    """The KubeletConfiguration of a node."""
    pki = layout.certificates
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / f"kubelet-{node}.crt"),
        "tlsPrivateKeyFile": str(pki / f"kubelet-{node}.key"),
        "clusterDomain": DOMAIN,
        "clusterDNS": [str(DNS_ADDRESS)],
        "resolvConf": str(layout.node_root(node) / "resolv.conf"),
        "containerRuntimeEndpoint": _SOCKET,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}/{node}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "kubeReserved": dict(reserved),
        # The machine's disk is not the cluster's to judge: a developer's is often nearly full.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "500Mi"},
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": False,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        "nodeStatusUpdateFrequency": "5s",
        "featureGates": {},
    }


def containerd_config(folder: Path, pause: str) -> str:
    """containerd's configuration (TOML, version 2)."""
    return f"""\
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {json.dumps(pause)}
  # Without CAP_SYS_RESOURCE a process cannot lower its score, and runc would die trying.
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = {json.dumps(str(machine.CNI_PLUGINS))}
  conf_dir = {json.dumps(str(folder / "cni"))}

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def cni_config(layout: Layout, chosen: Network, index: int) -> str:
    """A bridge inside the node, with the node's own range of pod addresses."""
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(chosen.pods(index))}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    document = {"cniVersion": "0.4.0", "name": layout.cgroup, "plugins": [bridge, ports]}
    return json.dumps(document, indent=1)


def _binds(folder: Path) -> list[str]:
    """Shell commands, run in the node's mount namespace, that give it its own folders."""
    root = shlex.quote(str(folder))
    cache = cache_root()
    state = shlex.quote(str(STATE_ROOT))
    commands = [f"mount --bind {state} {root}/lib/selfheal"]
    for place, own in (("/var/lib", "lib"), ("/run", "run"), ("/var/log", "log")):
        if cache.is_relative_to(place):
            kept = shlex.quote(str(folder / own / cache.relative_to(place)))
            commands += [f"mkdir -p {kept}", f"mount --bind {shlex.quote(str(cache))} {kept}"]
        commands.append(f"mount --rbind {root}/{own} {place}")
    for setting in _KERNEL_SETTINGS:
        fake = shlex.quote(str(folder / "sys" / setting.replace("/", ".")))
        commands.append(f"mount --bind {fake} /proc/sys/{setting}")
    # A boot id of its own in the place that every kubelet reads; 1.37 has no flag for another.
    commands.append(f"mount --bind {root}/boot_id /proc/sys/kernel/random/boot_id")
    # Pods may ask for mounts to be propagated; this shares with them, and not with the host.
    return [*commands, "mount --make-rshared /"]


def _kubelet_arguments(layout: Layout, chosen: Network, index: int) -> list[str]:
    node = layout.node_name(index)
    return [
        f"--config={layout.node_root(node) / 'kubelet.yaml'}",
        f"--kubeconfig={layout.certificates / f'kubelet-{node}.kubeconfig'}",
        f"--hostname-override={node}",
        f"--node-ip={chosen.node(index)}",
    ]


def _kube_proxy_arguments(layout: Layout, node: str) -> list[str]:
    return [
        f"--kubeconfig={layout.certificates / f'kube-proxy-{node}.kubeconfig'}",
        f"--hostname-override={node}",
        f"--cluster-cidr={POD_NETWORK}",
        "--proxy-mode=iptables",
        # These limits are the whole machine's, not the namespace's.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
    ]


def _machine() -> tuple[int, int]:
    return os.cpu_count() or 1, machine.total_memory()
