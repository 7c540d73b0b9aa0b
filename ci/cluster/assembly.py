"""Puts a cluster together, and takes it apart. Called with the cluster's lock held."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from ci.cluster import (
    addons,
    certificates,
    cgroups,
    control_plane,
    kubeconfig,
    kwok,
    monitoring,
    network,
    node,
    processes,
    state,
    volumes,
    waiting,
)
from ci.cluster.errors import ClusterError
from ci.cluster.layout import STATE_ROOT, Layout, Network
from ci.cluster.spec import MONITORING, Spec
from ci.cluster.state import READY, State

_CONTROL_PLANE_SECONDS = 90
_NODES_SECONDS = 120
_ADDONS_SECONDS = 300


@dataclass(frozen=True)
class Materials:
    """What a cluster is made of: paths of parts, and references and archives of images, by name."""

    parts: Mapping[str, Path]
    refs: Mapping[str, str]
    archives: Mapping[str, Path]

    def names(self) -> dict[str, str]:
        """As kept in the state file: a cluster of other materials is not the one asked for."""
        paths = {name: str(path) for name, path in sorted(self.parts.items())}
        return paths | {f"image {name}": ref for name, ref in sorted(self.refs.items())}


class Assembly:
    """One start of a cluster. `say` is notified how long each step took."""

    def __init__(
        self, layout: Layout, spec: Spec, materials: Materials, say: Callable[[str], None]
    ) -> None:
        self._layout = layout
        self._spec = spec
        self._materials = materials
        self._say = say

    def start(self) -> None:
        """Starts everything and returns when it serves; raises ClusterError."""
        with ThreadPoolExecutor(self._spec.nodes + 1) as pool:
            try:
                self._start(pool)
            except BaseException:
                # What the threads wait for ends at once, and so do they.
                cgroups.kill_all(self._layout.cgroup)
                raise

    def _start(self, pool: ThreadPoolExecutor) -> None:
        with self._step("network and certificates"):
            chosen = self._make_ground()
            self._issue_certificates(chosen)
        with self._step("control plane"):
            control_plane.start(self._layout, chosen, self._materials.parts)
            prepared = [pool.submit(self._prepare_node, chosen, i) for i in self._indexes]
            control_plane.wait_ready(self._layout, chosen, _CONTROL_PLANE_SECONDS)
            self._wait_service_accounts()
        self._start_kwok(chosen)
        self._start_monitoring(chosen)
        self._start_nodes(chosen, prepared)
        self._install_addons()
        self._wait_monitoring(chosen)
        state.save(self._layout, replace(self._state(chosen), phase=READY))

    @property
    def _indexes(self) -> range:
        return range(1, self._spec.nodes + 1)

    def _state(self, chosen: Network) -> State:
        return State(self._spec, chosen, self._materials.names())

    def _make_ground(self) -> Network:
        """Folders, cgroups, and the network namespace in which the control plane runs."""
        with state.allocation_lock():
            used = [*network.host_routes(), *network.reserved()]
            chosen = network.choose(network.candidates(), used)
            STATE_ROOT.mkdir(parents=True, exist_ok=True)
            self._layout.root.mkdir()
            state.save(self._layout, self._state(chosen))
            for folder in (self._layout.processes, self._layout.logs, self._layout.volumes):
                folder.mkdir()
            cgroups.create(f"{self._layout.cgroup}/parts")
            network.make_control_plane(self._layout, chosen)
        return chosen

    def _issue_certificates(self, chosen: Network) -> None:
        wanted = certificates.control_plane_certificates(chosen)
        for index in self._indexes:
            wanted += certificates.node_certificates(chosen, index)
        certificates.issue(self._layout, wanted)
        kubeconfig.write(self._layout, chosen, "admin", self._layout.kubeconfig)
        if self._spec.audit:
            control_plane.write_audit_policy(self._layout)

    def _prepare_node(self, chosen: Network, index: int) -> None:
        """While the control plane starts, the node takes its images."""
        name = self._layout.node_name(index)
        pause = self._materials.refs["pause"]
        node.prepare(self._layout, chosen, index, self._spec.nodes, pause)
        node.wait_containerd(self._layout, name)
        for archive in self._materials.archives.values():
            node.load(self._layout, name, archive)

    def _wait_service_accounts(self) -> None:
        """Until pods can be made in `default`: its account comes a moment after readiness."""

        def there() -> bool:
            asked = ["get", "serviceaccount", "default", "--namespace=default"]
            return self._kubectl(asked, check=False).returncode == 0

        waiting.until("the service account default", there, _CONTROL_PLANE_SECONDS)

    def _start_kwok(self, chosen: Network) -> None:
        if self._spec.kwok is None:
            return
        with self._step("KWOK"):
            kwok.start(self._layout, chosen, self._materials.parts)
            if self._spec.kwok:
                self._apply(kwok.nodes(self._spec.kwok))

    def _start_nodes(self, chosen: Network, prepared: list[Future[None]]) -> None:
        if not prepared:
            return
        with self._step("images on the nodes"):
            for future in prepared:
                future.result()
        with self._step("nodes"):
            for index in self._indexes:
                node.start(self._layout, chosen, self._materials.parts, index)
            for name in volumes.names():
                volumes.make_folder(self._layout, name)
            self._apply(volumes.manifests(self._layout))
            ready = "all nodes are Ready"
            waiting.until(ready, self._all_ready, _NODES_SECONDS, self._kubelets_words)

    def _kubelets_words(self) -> str:
        parts = [f"{self._layout.node_name(index)}-kubelet" for index in self._indexes]
        return "\n".join(f"{part}:\n{waiting.last_words(self._layout, part)}" for part in parts)

    def _all_ready(self) -> bool:
        listed = json.loads(self._kubectl(["get", "nodes", "-o", "json"]).stdout)["items"]
        ready = {
            item["metadata"]["name"]
            for item in listed
            for condition in item["status"].get("conditions", [])
            if condition["type"] == "Ready" and condition["status"] == "True"
        }
        return ready >= {self._layout.node_name(index) for index in self._indexes}

    def _start_monitoring(self, chosen: Network) -> None:
        """Before the nodes, so that it sees them come."""
        if MONITORING in self._spec.addons:
            self._apply(monitoring.rights())
            monitoring.start(self._layout, chosen, self._materials.parts)

    def _wait_monitoring(self, chosen: Network) -> None:
        if MONITORING in self._spec.addons:
            with self._step("Prometheus"):
                monitoring.wait_ready(self._layout, chosen)

    def _install_addons(self) -> None:
        if not self._spec.pods:
            return
        with self._step("addons"):
            for addon in self._spec.pods:
                parts, refs = self._materials.parts, self._materials.refs
                self._apply(addons.manifests(addon, parts, refs))
            for addon in self._spec.pods:
                for proof in addons.proofs(addon):
                    self._wait_addon(addon, proof)

    def _wait_addon(self, addon: str, proof: list[str]) -> None:
        try:
            self._kubectl(["wait", f"--timeout={_ADDONS_SECONDS}s", *proof])
        except ClusterError as error:
            pods = self._kubectl(["get", "pods", "--all-namespaces", "--output=wide"], check=False)
            raise ClusterError(f"{addon} does not serve: {error}\n{pods.stdout}") from error

    def _apply(self, manifests: str) -> None:
        # Server-side: KEDA's definitions are too large for the client's annotation.
        apply = ["apply", "--server-side", "--force-conflicts", "--filename=-"]
        self._kubectl(apply, input=manifests)

    def _kubectl(
        self, arguments: list[str], *, input: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        done = processes.run(self._layout, [*self._kubectl_prefix, *arguments], input=input)
        if check and done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done

    @cached_property
    def _kubectl_prefix(self) -> list[str]:
        return [str(self._materials.parts["kubectl"]), f"--kubeconfig={self._layout.kubeconfig}"]

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._say(f"{what}: {time.monotonic() - started:.1f} s")


def leftovers(layout: Layout) -> list[str]:
    """What this machine has of the cluster, running or not; empty after `remove`."""
    found = []
    if layout.root.exists():
        found.append(f"the folder {layout.root}")
    if network.exists(layout):
        found.append(f"the network interface {layout.link}")
    if cgroups.exists(layout.cgroup):
        found.append(f"the cgroup {layout.cgroup}")
    return found


def remove(layout: Layout) -> None:
    """Removes all of the cluster, whatever state it is in.

    Processes first: their namespaces end with them, and with those all mounts, interfaces and
    firewall rules inside.
    """
    cgroups.kill_all(layout.cgroup)
    network.remove(layout)
    cgroups.remove(layout.cgroup)
    if layout.root.exists():
        shutil.rmtree(layout.root)
    if STATE_ROOT.exists() and not any(STATE_ROOT.iterdir()):
        STATE_ROOT.rmdir()
