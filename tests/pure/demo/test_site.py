"""Where the demo refuses to run, and what it says then."""

import errno
import json
import os
import signal
import sys
from pathlib import Path

import pytest

from ci.demo import __main__ as command
from ci.demo import site as sites
from ci.demo.kube import Kube
from ci.demo.site import NotReady, Site
from ci.images import ImagesError


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose `answer` is all that kubectl says; `calls` has what it was asked."""
    script = tmp_path / "kubectl"
    script.write_text(f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\ncat {tmp_path}/answer\n')
    script.chmod(0o755)
    (tmp_path / "helm").symlink_to("/bin/true")
    (tmp_path / "answer").touch()
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def site_of(api: Path) -> Site:
    return Site(Kube(str(api / "kubectl"), str(api / "helm")))


def namespace(**labels: str) -> str:
    return json.dumps({"metadata": {"name": "selfheal", "labels": labels}})


def test_without_root_it_says_at_once_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLUSTER", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotReady, match=r"needs root: sudo make demo; CLUSTER=current"):
        sites.check()


def test_on_another_system_it_names_the_cluster_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLUSTER", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(NotReady, match=r"needs Linux; CLUSTER=current"):
        sites.check()


def test_the_cluster_at_hand_needs_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTER", "current")
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    sites.check()


def test_a_namespace_that_no_demo_made_is_not_deleted(api: Path) -> None:
    (api / "answer").write_text(namespace(team="payments"))
    with pytest.raises(NotReady, match="the namespace selfheal of this cluster is not the demo's"):
        sites.clear(site_of(api), "selfheal", "selfheal")
    assert "delete" not in (api / "calls").read_text()


def test_the_demos_own_namespace_is(api: Path) -> None:
    (api / "answer").write_text(namespace(**{"selfheal.dev/demo": "true"}))
    sites.clear(site_of(api), "selfheal", "selfheal")
    assert "delete namespace selfheal" in (api / "calls").read_text()


def test_a_node_that_is_not_there_is_refused(api: Path) -> None:
    (api / "answer").write_text(json.dumps({"items": [{"metadata": {"name": "a"}}]}))
    sites.check_node(site_of(api), "a")
    sites.check_node(site_of(api), "")
    with pytest.raises(NotReady, match=r"--node b: the cluster has no such node; allowed: a"):
        sites.check_node(site_of(api), "b")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (NotReady("not here"), 2, "demo: not here\n"),
        (ImagesError("buildah was killed"), 1, "demo: buildah was killed\n"),
        (OSError(errno.ENOSPC, "No space left"), 1, "demo: [Errno 28] No space left\n"),
        (KeyboardInterrupt(), 130, "demo: stopped; `make demo-down` takes the cluster away\n"),
    ],
)
def test_what_can_be_foreseen_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    said: str,
) -> None:
    assert run(monkeypatch, error) == status
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "error", [KeyError("a mistake"), RuntimeError(), FileNotFoundError(errno.ENOENT, "a mistake")]
)
def test_a_mistake_in_the_demo_shows_where_it_is(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with pytest.raises(type(error)):
        run(monkeypatch, error)


def run(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def fail() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["demo"])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sites, "check", fail)
    return command.main()
