"""Runs a program inside a root file system: own mounts, own processes, nothing of it written to.

The command made here starts `unshare` with a mount and a process namespace of their own, so that
the same root file system can serve several programs at once, and nothing survives the program: when
`unshare` dies, the kernel kills every process inside (a daemonised epmd too) and drops the mounts.
The network is the machine's own. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def command(
    root: Path,
    argv: Sequence[str],
    *,
    user: tuple[int, int] = (0, 0),
    binds: Mapping[str, Path] | None = None,
    tmpfs: Sequence[str] = ("/tmp",),
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
    read_only: bool = True,
    die_with_parent: bool = False,
) -> list[str]:
    """The command line that runs `argv` inside `root` as `user` (uid, gid).

    `binds` maps a path inside to a folder or file of the machine (writable, must exist on both
    sides); `tmpfs` are empty writable folders; everything else is read-only unless `read_only` is
    False. `env` is all the environment there is, with a PATH unless it has one. `die_with_parent`
    has everything killed when the thread that started the command ends, however it ends.
    """
    inside = {"PATH": PATH, **(env or {})}
    at = shlex.quote(str(root))
    steps = [f"mount --bind {at} {at}"]
    if read_only:
        steps += [f"mount -o remount,bind,ro {at}"]
    steps += [f"mount -t proc proc {at}/proc", f"mount --rbind /dev {at}/dev"]
    steps += [f"mount -t tmpfs -o mode=1777 tmpfs {at}{shlex.quote(path)}" for path in tmpfs]
    for path, source in (binds or {}).items():
        steps += [f"mount --bind {shlex.quote(str(source))} {at}{shlex.quote(path)}"]
    assignments = [f"{name}={value}" for name, value in inside.items()]
    # The change of user clears the death signal that unshare has set, so setpriv sets it again.
    program = ["chroot", str(root), "/usr/bin/setpriv", f"--reuid={user[0]}", f"--regid={user[1]}"]
    program += ["--clear-groups", "--no-new-privs", "--pdeathsig=KILL"]
    program += ["/usr/bin/env", "-i", "-C", cwd, *assignments, *argv]
    script = " && ".join([*steps, f"exec {shlex.join(program)}"])
    with_parent = ["setpriv", "--pdeathsig=KILL"] if die_with_parent else []
    return [
        *with_parent,
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child=KILL",
        "sh",
        "-c",
        script,
    ]


def send_signal(unshare_pid: int, number: signal.Signals) -> None:
    """Signals the program inside. `unshare` itself ignores SIGTERM and SIGINT while it waits.

    Does nothing when the program has already ended. To kill hard, SIGKILL `unshare_pid` itself.
    """
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        children = Path(f"/proc/{unshare_pid}/task/{unshare_pid}/children").read_text("ascii")
        for child in children.split():
            os.kill(int(child), number)
