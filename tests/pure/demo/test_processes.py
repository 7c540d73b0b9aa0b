"""The demo's helper processes: what they tell, and that none outlives it."""

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ci.demo import mailbox as mailboxes
from ci.demo.kube import Kube, ending_with_us
from ci.demo.mailbox import Mailbox
from ci.demo.world import World

SECONDS = 30.0


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def pod(name: str) -> dict[str, object]:
    return {"kind": "Pod", "metadata": {"namespace": "n", "name": name}}


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux'")
def test_a_helper_ends_with_the_demo_even_when_that_is_killed(tmp_path: Path) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    helper = ending_with_us(["sh", "-c", f"exec sleep 60 >{fifo}"])
    script = f"import subprocess; subprocess.run({helper!r})"
    with (
        subprocess.Popen([sys.executable, "-c", script]) as demo,
        fifo.open() as alive,  # the helper has opened its end
    ):
        demo.send_signal(signal.SIGKILL)
        # It is closed when nobody has it any more.
        assert select.select([alive], [], [], SECONDS / 2)[0]
        assert alive.read() == ""


def test_a_new_watch_keeps_what_is_there_and_drops_what_went(tmp_path: Path) -> None:
    added = [json.dumps({"type": "ADDED", "object": pod(name)}) for name in ("stays", "goes")]
    listed = json.dumps({"items": [pod("stays")]})
    first_seen = tmp_path / "first-seen"
    os.mkfifo(first_seen)
    kubectl = program(
        tmp_path / "kubectl",
        f"""case "$*" in
*--watch*)
  if [ -e {tmp_path}/second ]; then cat {first_seen}; echo '{added[0]}'; exec sleep 1000; fi
  touch {tmp_path}/second; echo '{added[0]}'; echo '{added[1]}' ;;
*) echo '{listed}' ;;
esac""",
    )
    seen: list[set[str]] = []
    with World(Kube(kubectl, "helm"), {"pods": ["pods"]}) as world:

        def shows(*names: str) -> Callable[[], bool]:
            def look() -> bool:
                seen.append(set(world["pods"]))
                return seen[-1] == set(names)

            return look

        world.until("both pods are there", shows("n/stays", "n/goes"), SECONDS)
        first = len(seen)
        first_seen.write_text("")  # the new watch has been opened, and continues
        world.until("the pod that went is dropped", shows("n/stays"), SECONDS)
    assert all("n/stays" in names for names in seen[first:])


def test_a_result_that_was_cut_off_is_left_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = {"data": {"username": "dQ==", "password": "cA=="}}
    kubectl = program(
        tmp_path / "kubectl",
        f"""case "$*" in
*port-forward*) echo 'Forwarding from 127.0.0.1:5 -> 5672'; exec sleep 1000 ;;
*) echo '{json.dumps(secret)}' ;;
esac""",
    )
    whole = json.dumps({"id": "first-1"})
    again = json.dumps({"id": "first-2"})
    worker = program(
        tmp_path / "worker",
        f"""if [ -e {tmp_path}/second ]; then echo '{again}'; exec sleep 1000; fi
touch {tmp_path}/second; echo '{whole}'; printf '{again[:9]}'""",
    )
    monkeypatch.setattr(mailboxes, "_WORKER", Path(worker))
    changed = threading.Condition()
    mailbox = Mailbox(Kube(kubectl, "helm"), "n", "selfheal", changed)
    with mailbox.reading(), changed:
        assert changed.wait_for(lambda: len(mailbox.results) == 2, SECONDS)
    assert [one["id"] for one in mailbox.results] == ["first-1", "first-2"]
    with mailbox.reading(), changed:  # and whoever reads once more gets what comes then
        assert changed.wait_for(lambda: len(mailbox.results) == 3, SECONDS)
