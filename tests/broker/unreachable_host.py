"""A machine of its own for a server of a test, which can vanish: no packet of it arrives any more.

Not as when a program ends, whose kernel still says so (FIN, RST): as when a node loses its power.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x40000000


class Elsewhere:
    """A network namespace, joined to ours by a pair of interfaces."""

    def __init__(self) -> None:
        number = os.getpid() % 250
        self.name = f"sfvanish{number}"
        self._near, self._far = f"sfn{number}", f"sff{number}"
        # From a block that is set aside for tests of this kind (RFC 2544).
        self._here, self.address = f"198.19.{number}.1", f"198.19.{number}.2"

    def make(self) -> None:
        self.remove()
        _ip("netns", "add", self.name)
        pair = ("type", "veth", "peer", "name", self._far, "netns", self.name)
        _ip("link", "add", self._near, *pair)
        _ip("addr", "add", f"{self._here}/30", "dev", self._near)
        _ip("link", "set", self._near, "up")
        _ip("-n", self.name, "addr", "add", f"{self.address}/30", "dev", self._far)
        _ip("-n", self.name, "link", "set", self._far, "up")

    def remove(self) -> None:
        for command in (("link", "delete", self._near), ("netns", "delete", self.name)):
            subprocess.run(["ip", *command], capture_output=True, check=False)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets that this thread makes here are there, and stay there."""
        libc = ctypes.CDLL(None, use_errno=True)
        ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        theirs = os.open(Path("/run/netns") / self.name, os.O_RDONLY)
        try:
            if libc.setns(theirs, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            yield
        finally:
            libc.setns(ours, CLONE_NEWNET)
            os.close(ours)
            os.close(theirs)

    def vanish(self) -> None:
        """From now on nothing that it sends leaves it."""
        _ip("-n", self.name, "route", "add", "blackhole", f"{self._here}/32")

    def come_back(self) -> None:
        _ip("-n", self.name, "route", "delete", "blackhole", f"{self._here}/32")


def _ip(*argv: str) -> None:
    subprocess.run(["ip", *argv], check=True, capture_output=True)


def available() -> str | None:
    """Why there can be none here, or None."""
    return None if shutil.which("ip") and os.geteuid() == 0 else "a network needs root and `ip`"
