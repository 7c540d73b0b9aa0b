"""The cluster as one object: `up`, `down`, `status`, and what tests do to it in between."""

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ci import parts
from ci.cluster import (
    assembly,
    control_plane,
    kwok,
    machine,
    monitoring,
    node,
    processes,
    state,
    volumes,
)
from ci.cluster.assembly import Assembly, Materials
from ci.cluster.errors import ClusterError
from ci.cluster.layout import Layout
from ci.cluster.prometheus import Prometheus
from ci.cluster.spec import MONITORING, Spec
from ci.cluster.state import READY, State

DEFAULT_NAME = "main"


@dataclass(frozen=True)
class Status:
    """`phase` is absent, starting, ready or broken; `parts` tells which of its processes run."""

    name: str
    phase: str
    parts: dict[str, bool]
    kubeconfig: str | None


class Cluster:
    """A local Kubernetes cluster of this name; making the object starts nothing.

    As a context manager it is brought up, and taken down at the end. Without a `spec` it is what is
    up under this name, else the default (two nodes, all addons).
    """

    def __init__(
        self,
        name: str = DEFAULT_NAME,
        spec: Spec | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.layout = Layout(name)
        found = state.load(self.layout)
        self.spec = spec or (found.spec if found else Spec())
        self._say = say or (lambda _: None)

    def __enter__(self) -> "Cluster":
        self.up()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.down()

    @property
    def name(self) -> str:
        """Its name; clusters of different names run side by side."""
        return self.layout.name

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, usable from the host."""
        return self.layout.kubeconfig

    @property
    def nodes(self) -> list[str]:
        """The names of the real nodes."""
        return [self.layout.node_name(index) for index in range(1, self.spec.nodes + 1)]

    def up(self) -> None:
        """Starts what is asked for; nothing to do when it runs already.

        What an interrupted start left, or what was started from other parts, is removed first. When
        this start fails, all is removed again. Raises ClusterError or ci.parts.PartsError.
        """
        machine.prepare(self.spec, self._say)
        materials = self._materials()
        with state.lock(self.layout):
            if self._runs(materials):
                self._say(f"cluster {self.name} is up already")
                return
            if assembly.leftovers(self.layout):
                self._say(f"removing what is left of an earlier cluster {self.name}")
                assembly.remove(self.layout)
            try:
                Assembly(self.layout, self.spec, materials, self._say).start()
            except BaseException:
                assembly.remove(self.layout)
                raise

    def down(self) -> None:
        """Removes all that the cluster of this name has on this machine. Nothing there is fine."""
        machine.check_root()
        with state.lock(self.layout):
            assembly.remove(self.layout)
            self.layout.lock.unlink(missing_ok=True)

    def status(self) -> Status:
        """What is there now, without changing or waiting for anything."""
        found = state.load(self.layout)
        running = {
            part: processes.find(self.layout, part) is not None
            for part in processes.names(self.layout)
        }
        if found is None:
            phase = "broken" if assembly.leftovers(self.layout) else "absent"
        elif found.phase != READY:
            phase = "starting" if state.is_locked(self.layout) else "broken"
        else:
            phase = "ready" if all(running.values()) else "broken"
        config = str(self.kubeconfig) if self.kubeconfig.exists() else None
        return Status(self.name, phase, running, config)

    def kubectl(self, *arguments: str, input: str | None = None, seconds: float = 120) -> str:
        """What kubectl prints; ClusterError with its words when it fails or takes longer."""
        command = [*self.kubectl_command(), *arguments]
        try:
            done = subprocess.run(
                command,
                input=input,
                capture_output=True,
                text=True,
                timeout=seconds,
                env=processes.local_environment(),
            )
        except subprocess.TimeoutExpired as error:
            words = f"kubectl {' '.join(arguments)}: no end after {seconds} s"
            raise ClusterError(words) from error
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def kubectl_command(self) -> list[str]:
        """How to call kubectl for this cluster; it never reads the user's own kubeconfig."""
        return [self._require().builds["kubectl"], f"--kubeconfig={self.kubeconfig}"]

    def load(self, archive: Path) -> None:
        """Imports the images of a docker archive into every real node."""
        self._require()
        if not archive.is_file():
            raise ClusterError(f"no such image archive: {archive}")
        with ThreadPoolExecutor(max(1, len(self.nodes))) as pool:
            list(pool.map(lambda name: node.load(self.layout, name, archive), self.nodes))

    def stop(self, part: str, *, kill: bool = False) -> None:
        """Stops one process (a name that `status` lists), for a fault on purpose."""
        processes.stop(self.layout, part, kill=kill)

    def start(self, part: str) -> None:
        """Starts a stopped part again, without waiting for it."""
        found = self._require()
        programs = found.programs()
        if part in control_plane.PARTS:
            control_plane.start_part(self.layout, found.network, programs, part)
        elif part in monitoring.PARTS:
            monitoring.start_part(self.layout, programs, part)
        elif part == kwok.PART:
            kwok.start(self.layout, found.network, programs)
        else:
            index, program = self._node_part(part)
            node.start_part(self.layout, found.network, programs, index, program)

    @property
    def prometheus(self) -> Prometheus:
        """The Prometheus of a cluster that has the addon `monitoring`; ClusterError without."""
        found = self._require()
        if MONITORING not in found.spec.addons:
            raise ClusterError(f"the cluster {self.name} has no Prometheus: --with {MONITORING}")
        at = monitoring.urls(found.network)
        rules = monitoring.rules_folder(self.layout)
        return Prometheus(at["prometheus"], at["alertmanager"], rules)

    def wait_api(self, seconds: float = 60) -> None:
        """Until the API server is ready, for example after `start`."""
        control_plane.wait_ready(self.layout, self._require().network, seconds)

    def reboot(self, name: str) -> None:
        """Kills all containers of the node and starts its kubelet with another boot id."""
        found = self._require()
        if name not in self.nodes:
            raise ClusterError(f"no such node: {name}; there are {', '.join(self.nodes)}")
        index = self.nodes.index(name) + 1
        node.reboot(self.layout, found.network, found.programs(), index)

    def reset_volumes(self) -> None:
        """Makes the volumes whose claims were deleted empty and free again."""
        listed = self.kubectl("get", "persistentvolumes", "-o", "json")
        for name in volumes.released(listed):
            self.kubectl("delete", "persistentvolume", name)
            volumes.make_folder(self.layout, name)
        self.kubectl("apply", "--filename=-", input=volumes.manifests(self.layout))

    def _require(self) -> State:
        return state.require(self.layout)

    def _node_part(self, part: str) -> tuple[int, str]:
        for index, name in enumerate(self.nodes, start=1):
            program = part.removeprefix(f"{name}-")
            if program != part and program in node.PROGRAMS:
                return index, program
        there = ", ".join(processes.names(self.layout))
        raise ClusterError(f"no such part: {part}; there are {there}")

    def _materials(self) -> Materials:
        built = parts.ensure(self.spec.parts)
        if not self.spec.images:
            return Materials(built, {}, {})
        # Only clusters with real nodes need images, and the tools that build them.
        from ci import images
        from ci.images.errors import ImagesError

        try:
            made = images.ensure(self.spec.images)
        except ImagesError as error:
            raise ClusterError(str(error)) from error
        refs = {name: image.ref for name, image in made.items()}
        return Materials(built, refs, {name: image.archive for name, image in made.items()})

    def _runs(self, materials: Materials) -> bool:
        found = state.load(self.layout)
        if found is None or found.phase != READY:
            return False
        same = found.spec == self.spec and found.builds == materials.names()
        return same and self.status().phase == "ready"


def control_plane_only(
    name: str, kwok_nodes: int | None = None, say: Callable[[str], None] | None = None
) -> Cluster:
    """A cluster without real nodes, ready in seconds; with `kwok_nodes`, KWOK runs beside it."""
    return Cluster(name, Spec(nodes=0, addons=(), kwok=kwok_nodes), say)
