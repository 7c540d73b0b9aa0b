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

# The shell joins first and becomes the program then. When the cgroup is gone (because `down` ran
# meanwhile) it ends, so no process is ever left outside.
_JOIN = 'set -e; for file in {files}; do echo 0 > "$file"; done; exec "$@"'

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
    cgroup = f"{layout.cgroup}/parts"
    files = " ".join(shlex.quote(str(file)) for file in cgroups.joining(cgroup))
    script = _JOIN.format(files=files)
    entered = [*(enter(layout, inside) if inside else []), *map(str, command)]
    with (layout.logs / f"{part}.log").open("ab") as log:
        process = subprocess.Popen(
            ["sh", "-c", script, "sh", *entered],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(environment),
            start_new_session=True,
            close_fds=True,
        )
    record = layout.processes / part
    record.write_text(f"{process.pid} {_start_time(process.pid)}\n")
    _forget(process)


def enter(layout: Layout, holder: str) -> list[str]:
    """The command prefix that runs a program in the namespaces of the part `holder`.

    Not `ip netns exec`: that mounts /sys anew, and kubelet and runc then find no cgroups.
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
    (layout.processes / part).unlink(missing_ok=True)


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


_children: list[subprocess.Popen[bytes]] = []


def _forget(process: subprocess.Popen[bytes]) -> None:
    """Keeps the object alive (it outlives this command) and reaps the children that have ended."""
    _children[:] = [child for child in _children if child.poll() is None]
    _children.append(process)
