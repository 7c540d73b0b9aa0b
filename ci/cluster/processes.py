"""Starts and stops the processes of a cluster. Each joins the cluster's cgroup before it runs."""

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ci.cluster import cgroups
from ci.cluster.errors import ClusterError
from ci.cluster.layout import Layout

# A shell joins first and becomes the program then. When the cgroup is gone (because `down` ran
# meanwhile) it ends, so no process is ever left outside.
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0


def start(
    layout: Layout,
    part: str,
    command: Sequence[str | Path],
    *,
    inside: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Starts `command` as the part `part`, with a log of its own, in the namespaces of `inside`."""
    record = layout.processes / part
    record.unlink(missing_ok=True)
    entered = [*(enter(layout, inside) if inside else []), *map(str, command)]
    with (layout.logs / f"{part}.log").open("ab") as log:
        subprocess.run(
            ["setsid", "--fork", *_joined(layout, record), *entered],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(environment),
            check=True,
        )
    _complete(record, part)


def run(
    layout: Layout, command: Sequence[str], *, input: str | None = None, stdin: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `command` to its end, as one of the cluster's processes: `down` ends it if we cannot."""
    return subprocess.run(
        [*_joined(layout), *command],
        input=input,
        stdin=stdin,
        capture_output=True,
        text=True,
        env=local_environment(),
    )


def local_environment() -> dict[str, str]:
    """This environment for a client of the cluster: no proxy is between it and this machine."""
    return os.environ | {"NO_PROXY": "*", "no_proxy": "*"}


def enter(layout: Layout, holder: str) -> list[str]:
    """The command prefix that runs a program in the namespaces of the part `holder`.

    Not `ip netns exec`: that mounts /sys again, and kubelet and runc then find no cgroups.
    """
    return ["nsenter", f"--target={pid(layout, holder)}", "--net", "--mount", "--"]


def pid(layout: Layout, part: str) -> int:
    """The id of the running part; ClusterError when it does not run."""
    found = find(layout, part)
    if found is None:
        raise ClusterError(f"{part} is not running; see `python -m ci.cluster logs {part}`")
    return found


def find(layout: Layout, part: str) -> int | None:
    """The id of the part's process, or None when it does not run."""
    try:
        number, started = (layout.processes / part).read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(number) if _start_time(int(number)) == started else None


def names(layout: Layout) -> list[str]:
    """Every part that was started and not stopped, in the order of their names."""
    if not layout.processes.is_dir():
        return []
    return sorted(path.name for path in layout.processes.iterdir())


def stop(layout: Layout, part: str, *, kill: bool = False) -> None:
    """Ends the part: SIGTERM and, after 10 s or with `kill`, SIGKILL. Not running is fine."""
    found = find(layout, part)
    if found is not None:
        _signal(found, signal.SIGKILL if kill else signal.SIGTERM)
        if not _gone(layout, part, _STOP_SECONDS):
            _signal(found, signal.SIGKILL)
            if not _gone(layout, part, _STOP_SECONDS):
                raise ClusterError(f"{part} (process {found}) does not end")


def _joined(layout: Layout, record: Path | None = None) -> list[str]:
    """The command prefix that joins the cluster's cgroup, and then says its process id."""
    script = ["set -e"]
    for file in cgroups.joining(f"{layout.cgroup}/parts"):
        script.append(f"echo 0 > {shlex.quote(str(file))}")
    if record:
        script.append(f"echo $$ > {shlex.quote(str(record))}")
    return ["sh", "-c", "; ".join([*script, 'exec "$@"']), "sh"]


def _complete(record: Path, part: str) -> None:
    """Adds the start time to the process id, which the process itself has written."""
    deadline = time.monotonic() + _START_SECONDS
    while not (record.exists() and record.read_text().endswith("\n")):
        if time.monotonic() > deadline:
            raise ClusterError(f"{part} did not start within {_START_SECONDS:.0f} s")
        time.sleep(0.005)
    number = record.read_text().strip()
    record.write_text(f"{number} {_start_time(int(number))}\n")


def _gone(layout: Layout, part: str, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while find(layout, part) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _signal(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return


def _start_time(process: int) -> str | None:
    """The start time in clock ticks since boot, which tells a reused id; None when it is dead."""
    try:
        after_name = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[0] in "ZX" else after_name[19]


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return kept | dict(extra or {})
