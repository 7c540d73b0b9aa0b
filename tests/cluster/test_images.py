"""The built images as a node would run them: unpacked, root read-only, as their own user."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ci import images
from ci.images import chroot
from ci.images.tools import MissingTools

pytestmark = pytest.mark.cluster

OURS = ("worker", "remediator")


@dataclass(frozen=True)
class Unpacked:
    """An image's root directory and its configuration."""

    root: Path
    config: dict[str, Any]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a command inside with the image's user and environment, its root read-only."""
        uid, gid = str(self.config["User"]).split(":")
        pairs = [str(pair).partition("=") for pair in self.config["Env"]]
        environment = {name: value for name, _, value in pairs}
        command = chroot.command(
            self.root, arguments, user=(int(uid), int(gid)), env=environment, die_with_parent=True
        )
        return subprocess.run(command, capture_output=True, text=True, timeout=120)


def _json(archive: tarfile.TarFile, name: str) -> Any:
    content = archive.extractfile(name)
    assert content is not None, name
    return json.load(content)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def unpack(image: images.Image, root: Path) -> Unpacked:
    """Applies the layers in order, whiteouts included (image-spec, layer.md)."""
    with tarfile.open(image.archive) as outer:
        manifest = _json(outer, "manifest.json")[0]
        assert manifest["RepoTags"] == [image.ref]
        config = _json(outer, manifest["Config"])["config"]
        for name in manifest["Layers"]:
            with tarfile.open(fileobj=outer.extractfile(name)) as layer:
                for entry in layer:
                    path = root / entry.name
                    if path.name.startswith(".wh."):
                        gone = path.with_name(path.name.removeprefix(".wh."))
                        shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
                    else:
                        layer.extract(entry, root, filter="fully_trusted")
    return Unpacked(root, config)


@pytest.fixture(scope="module")
def unpacked(
    tmp_path_factory: pytest.TempPathFactory, unavailable: Callable[[str], None]
) -> Iterator[Callable[[str], Unpacked]]:
    """Unpacks an image by name, once each."""
    if os.geteuid() != 0:
        unavailable("building and unpacking images needs root")
    made: dict[str, Unpacked] = {}

    def get(name: str) -> Unpacked:
        if name not in made:
            try:
                image = images.ensure([name])[name]
            except MissingTools as error:
                unavailable(str(error))
            made[name] = unpack(image, tmp_path_factory.mktemp(name))
        return made[name]

    yield get
    for image in made.values():
        shutil.rmtree(image.root)


@pytest.mark.skipif(
    os.environ.get("SELFHEAL_LONG") != "1", reason="two cold builds, five minutes (make test-long)"
)
def test_two_cold_builds_give_the_same_images(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    unavailable: Callable[[str], None],
) -> None:
    """From empty caches, Debian's packages included; the bytes of the whole archives."""
    if os.geteuid() != 0:
        unavailable("building images needs root")
    sums = []
    for name in ("first", "second"):
        cache = tmp_path_factory.mktemp(name)
        monkeypatch.setenv("SELFHEAL_CACHE", str(cache))
        try:
            built = images.ensure(OURS)
        except MissingTools as error:
            unavailable(str(error))
        sums.append({each: digest_of(built[each].archive) for each in OURS})
        shutil.rmtree(cache)
    assert sums[0] == sums[1]


@pytest.mark.parametrize("name", OURS)
def test_command_starts_as_65532_on_a_read_only_root(
    unpacked: Callable[[str], Unpacked], name: str
) -> None:
    image = unpacked(name)
    assert image.config["User"] == "65532:65532"
    assert image.config["Cmd"] == ["run"]
    entrypoint = image.config["Entrypoint"]
    assert entrypoint == [f"selfheal-{name}"]
    helped = image.run(*entrypoint, "--help")
    assert helped.returncode == 0, helped.stderr
    assert "run" in helped.stdout
    assert helped.stderr == ""
    refused = image.run("touch", "/opt/selfheal/x")
    assert "Read-only file system" in refused.stderr
    assert image.run("touch", "/tmp/x").returncode == 0


@pytest.mark.parametrize("name", OURS)
def test_image_can_run_but_not_install_or_build(
    unpacked: Callable[[str], Unpacked], name: str
) -> None:
    image = unpacked(name)
    tools = ["pip", "pip3", "gcc", "cc", "make", "wheel", "git", "curl"]
    found = image.run("sh", "-c", f"for tool in {' '.join(tools)}; do command -v $tool; done; true")
    assert found.stdout == ""
    for module in ("pip", "setuptools", "ensurepip", "pytest"):
        imported = image.run("python3", "-c", f"import {module}")
        assert "ModuleNotFoundError" in imported.stderr, module


@pytest.mark.parametrize(("name", "other"), [OURS, OURS[::-1]])
def test_image_holds_one_package_and_nothing_of_the_repository_besides(
    unpacked: Callable[[str], Unpacked], name: str, other: str
) -> None:
    application = unpacked(name).root / "opt/selfheal/application"
    assert [path.name for path in application.iterdir()] == [f"selfheal_{name}"]
    assert list(application.rglob("Dockerfile")) == []
    for module in (other, f"selfheal_{other}"):
        missing = unpacked(name).run("python3", "-c", f"import {module}")
        assert "ModuleNotFoundError" in missing.stderr, module


@pytest.mark.parametrize("name", OURS)
def test_nothing_of_this_machine_is_in_the_image(
    unpacked: Callable[[str], Unpacked], name: str
) -> None:
    image = unpacked(name)
    for path in ("etc/pip.conf", "run/secrets", "root/.cache"):
        assert not (image.root / path).exists(), path
    for path in ("etc/hostname", "etc/resolv.conf", "etc/hosts"):
        # An engine may leave the empty file over which it mounts its own.
        assert not (image.root / path).exists() or not (image.root / path).read_bytes(), path
    assert not [pair for pair in image.config["Env"] if pair.startswith(("PIP_", "http"))]
    with_ours = (image.root / "etc/ssl/certs/ca-certificates.crt").read_bytes()
    public = sorted((image.root / "usr/share/ca-certificates/mozilla").iterdir())
    assert with_ours.count(b"BEGIN CERTIFICATE") == len(public)


@pytest.mark.parametrize("name", OURS)
def test_every_module_has_bytecode_that_is_never_checked(
    unpacked: Callable[[str], Unpacked], name: str
) -> None:
    root = unpacked(name).root / "opt/selfheal"
    sources = list(root.rglob("*.py"))
    assert sources
    for source in sources:
        compiled = list((source.parent / "__pycache__").glob(f"{source.stem}.cpython-*.pyc"))
        assert compiled, source
        # The flags of PEP 552: hash-based, not checked against the source.
        assert compiled[0].read_bytes()[4:8] == b"\x01\x00\x00\x00", source


def test_the_broker_runs_as_the_public_image_does(unpacked: Callable[[str], Unpacked]) -> None:
    image = unpacked("rabbitmq")
    assert image.config["User"] == "999:999"
    for tool in ("rabbitmq-server", "rabbitmqctl", "rabbitmq-diagnostics"):
        found = image.run("sh", "-c", f"command -v {tool}")
        assert found.stdout.strip() == f"/usr/lib/rabbitmq/bin/{tool}"
    folder = (image.root / "var/lib/rabbitmq").stat()
    assert (folder.st_uid, folder.st_gid) == (999, 999)
    assert not (image.root / "var/lib/rabbitmq/.erlang.cookie").exists()


def test_the_detector_has_its_settings_and_a_shell_for_plugins(
    unpacked: Callable[[str], Unpacked],
) -> None:
    image = unpacked("node-problem-detector")
    root = image.root
    assert image.config["Entrypoint"][0] == "/node-problem-detector"
    for monitor in ("kernel-monitor-filelog.json", "custom-plugin-monitor.json"):
        assert json.loads((root / "config" / monitor).read_text())["source"]
    assert os.access(root / "config/plugin/network_problem.sh", os.X_OK)
    command = chroot.command(root, ["bash", "-c", "/node-problem-detector --help 2>&1"])
    helped = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "--config.custom-plugin-monitor" in helped.stdout


SECRET = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b"
    rb"|\bglpat-[\w-]{20}|//[^/\s:@]{1,64}:[^/\s:@]{6,64}@(?!host|localhost|example)"
)


@pytest.mark.parametrize("name", OURS)
def test_no_key_or_password_is_in_what_we_put_into_an_image(
    unpacked: Callable[[str], Unpacked], name: str
) -> None:
    image = unpacked(name)
    files = list((image.root / "opt/selfheal/application").rglob("*.py"))
    assert files
    assert [path for path in files if SECRET.search(path.read_bytes())] == []
    assert not SECRET.search(json.dumps(image.config).encode())
