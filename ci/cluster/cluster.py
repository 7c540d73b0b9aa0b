"""The cluster as one object: `up`, `down`, `status`, and what tests do to it in between."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from ci import parts
from ci.cluster import (
    cgroups,
    certificates,
    control_plane,
    kubeconfig,
    kwok,
    machine,
    network,
    processes,
    state,
    waiting,
)
from ci.cluster.errors import ClusterError
from ci.cluster.layout import STATE_ROOT, Layout, Network
from ci.cluster.spec import Spec
from ci.cluster.state import READY, State

DEFAULT_NAME = "main"
_CONTROL_PLANE_SECONDS = 60


@dataclass(frozen=True)
class Status:
    """`phase` is absent, starting, ready or broken; `parts` tells which of its processes run."""

    name: str
    phase: str
    parts: dict[str, bool]
    kubeconfig: str | None


class Cluster:
    """A local Kubernetes cluster of this name; making the object starts nothing.

    As a context manager it is brought up, and taken down at the end.
    """

    def __init__(
        self,
        name: str = DEFAULT_NAME,
        spec: Spec | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.layout = Layout(name)
        self.spec = spec or Spec()
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

    def up(self) -> None:
        """Starts what is asked for; nothing to do when it runs already.

        What an interrupted start left is removed first. When this start fails, all is removed again
        but the logs, whose place the error names. Raises ClusterError or ci.parts.PartsError.
        """
        machine.prepare(self.spec, self._say)
        builds = parts.ensure(self.spec.parts)
        with state.lock(self.layout):
            if self._runs(builds):
                self._say(f"cluster {self.name} is up already")
                return
            if self._leftovers():
                self._say(f"removing what is left of an earlier cluster {self.name}")
                self._remove()
            try:
                self._start(builds)
            except BaseException as error:
                self._give_up(error)
                raise

    def down(self) -> None:
        """Removes all that the cluster of this name has on this machine. Nothing there is fine."""
        machine.check_root()
        with state.lock(self.layout):
            self._remove()
            self.layout.lock.unlink(missing_ok=True)

    def status(self) -> Status:
        """What is there now, without changing or waiting for anything."""
        found = state.load(self.layout)
        running = {
            part: processes.find(self.layout, part) is not None
            for part in processes.names(self.layout)
        }
        if found is None:
            phase = "broken" if self._leftovers() else "absent"
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
                command, input=input, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(
                f"kubectl {' '.join(arguments)}: no end after {seconds} s"
            ) from error
        if done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout

    def kubectl_command(self) -> list[str]:
        """How to call kubectl for this cluster; it never looks at the user's own kubeconfig."""
        builds = state.require(self.layout).builds
        return [builds["kubectl"], f"--kubeconfig={self.kubeconfig}"]

    def stop(self, part: str, *, kill: bool = False) -> None:
        """Stops one process, for a fault on purpose."""
        processes.stop(self.layout, part, kill=kill)

    def start(self, part: str) -> None:
        """Starts a stopped part again, without waiting for it."""
        found = state.require(self.layout)
        programs = {name: Path(path) for name, path in found.builds.items()}
        if part in control_plane.PARTS:
            control_plane.start_part(self.layout, found.network, programs, part)
        elif part == kwok.PART:
            kwok.start(self.layout, found.network, programs)
        else:
            raise ClusterError(f"no such part: {part}")

    def wait_api(self, seconds: float = _CONTROL_PLANE_SECONDS) -> None:
        """Until the API server is ready, for example after `start`."""
        control_plane.wait_ready(self.layout, state.require(self.layout).network, seconds)

    def _runs(self, builds: dict[str, Path]) -> bool:
        found = state.load(self.layout)
        if found is None or found.phase != READY:
            return False
        same = found.spec == self.spec and found.builds == _texts(builds)
        return same and self.status().phase == "ready"

    def _leftovers(self) -> bool:
        return (
            self.layout.root.exists()
            or network.exists(self.layout)
            or cgroups.exists(self.layout.cgroup)
        )

    def _start(self, builds: dict[str, Path]) -> None:
        with state.allocation_lock():
            chosen = network.choose(network.host_routes(), network.reserved())
            self._prepare_folders(State(self.spec, chosen, _texts(builds)))
            network.make_control_plane(self.layout, chosen)
        with self._step("certificates"):
            self._certificates(chosen)
        with self._step("control plane"):
            control_plane.start(self.layout, chosen, builds)
            control_plane.wait_ready(self.layout, chosen, _CONTROL_PLANE_SECONDS)
            self._wait_defaults(builds)
        if self.spec.kwok is not None:
            with self._step("KWOK"):
                self._start_kwok(chosen, builds)
        state.save(self.layout, replace(State(self.spec, chosen, _texts(builds)), phase=READY))

    def _prepare_folders(self, first: State) -> None:
        STATE_ROOT.mkdir(parents=True, exist_ok=True)
        self.layout.root.mkdir()
        state.save(self.layout, first)
        for folder in (self.layout.processes, self.layout.logs, self.layout.volumes):
            folder.mkdir()
        cgroups.create(f"{self.layout.cgroup}/parts")

    def _certificates(self, chosen: Network) -> None:
        wanted = certificates.control_plane_certificates(chosen)
        for index in range(1, self.spec.nodes + 1):
            wanted += certificates.node_certificates(chosen, index)
        certificates.issue(self.layout.certificates, wanted)
        kubeconfig.write(self.layout, chosen, "admin", self.kubeconfig)

    def _wait_defaults(self, builds: dict[str, Path]) -> None:
        """Until pods can be made in `default`: its service account comes a moment after readiness."""
        command = [builds["kubectl"], f"--kubeconfig={self.kubeconfig}"]
        asked = [*map(str, command), "get", "serviceaccount", "default", "--namespace=default"]

        def there() -> bool:
            return subprocess.run(asked, capture_output=True).returncode == 0

        waiting.until("the service account default", there, _CONTROL_PLANE_SECONDS)

    def _start_kwok(self, chosen: Network, builds: dict[str, Path]) -> None:
        kwok.start(self.layout, chosen, builds)
        if self.spec.kwok:
            self._apply(builds, kwok.nodes(self.spec.kwok))

    def _apply(self, builds: dict[str, Path], manifests: str) -> None:
        command = [str(builds["kubectl"]), f"--kubeconfig={self.kubeconfig}"]
        apply = [*command, "apply", "--server-side", "--force-conflicts", "--filename=-"]
        done = subprocess.run(apply, input=manifests, capture_output=True, text=True)
        if done.returncode != 0:
            raise ClusterError(f"kubectl apply: {done.stderr.strip()}")

    def _remove(self) -> None:
        cgroups.kill_all(self.layout.cgroup)
        network.remove(self.layout)
        cgroups.remove(self.layout.cgroup)
        shutil.rmtree(self.layout.root, ignore_errors=False) if self.layout.root.exists() else None

    def _give_up(self, error: BaseException) -> None:
        self._remove()

    @contextmanager
    def _step(self, what: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._say(f"{what}: {time.monotonic() - started:.1f} s")


def control_plane_only(name: str, kwok_nodes: int | None = None) -> Cluster:
    """A cluster without real nodes, ready in seconds; with `kwok_nodes`, KWOK runs beside it."""
    return Cluster(name, Spec(nodes=0, addons=(), kwok=kwok_nodes))


def _texts(builds: dict[str, Path]) -> dict[str, str]:
    return {name: str(path) for name, path in sorted(builds.items())}


def existing(name: str, commands: Sequence[str] = ()) -> Cluster:
    """The cluster of this name as it was brought up; ClusterError when it is not up."""
    layout = Layout(name)
    return Cluster(name, state.require(layout).spec)
