"""Archives, the list of images, and what the two Dockerfiles have in common."""

import hashlib
import json
import os
import re
import tarfile
from pathlib import Path

import pytest

from ci.images import archive, catalog
from ci.images.__main__ import main
from ci.images.archive import Config, File
from ci.images.tools import REPOSITORY
from selfheal_worker.model import provider


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    """A layer with one program that has a file capability, and a folder that all may write."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF")
    made = tmp_path / "layer.tar"
    file = File(program, 0o755, archive.NET_BIND_SERVICE)
    archive.layer_of_files({"/usr/bin/it": file}, made, {"/tmp": 0o1777})
    return made


def test_a_layer_has_every_parent_first_and_keeps_modes_and_capabilities(layer: Path) -> None:
    with tarfile.open(layer) as tar:
        entries = tar.getmembers()
    assert [entry.name for entry in entries] == ["tmp", "usr", "usr/bin", "usr/bin/it"]
    assert [entry.mode for entry in entries] == [0o1777, 0o755, 0o755, 0o755]
    assert {(entry.uid, entry.gid, entry.mtime) for entry in entries} == {(0, 0, 0)}
    stored = entries[-1].pax_headers["SCHILY.xattr.security.capability"].encode("ascii")
    # struct vfs_cap_data, revision 2 with the effective bit, CAP_NET_BIND_SERVICE permitted.
    assert stored == bytes.fromhex("0100000200040000000000000000000000000000")


def _installed(root: Path, at: int) -> Path:
    """A root file system with a package's source of the time 1000, and what installing it made."""
    source, made = root / "lib/it.py", root / "var/status"
    for path in (source, made):
        path.parent.mkdir(parents=True)
        path.write_text(path.name)
    os.utime(source, (1000, 1000))
    for path in (made, made.parent, source.parent, root):
        os.utime(path, (at, at))
    return root


def test_when_packages_were_installed_is_not_in_a_layer(tmp_path: Path) -> None:
    layers = []
    for name, at in (("today", 5000), ("tomorrow", 90000)):
        layers.append(tmp_path / f"{name}.tar")
        archive.layer_of_folder(_installed(tmp_path / name, at), layers[-1])
    assert layers[0].read_bytes() == layers[1].read_bytes()
    with tarfile.open(layers[0]) as tar:
        assert {entry.mtime for entry in tar} == {1000}


def test_a_source_keeps_its_time_by_which_its_bytecode_is_checked(tmp_path: Path) -> None:
    root = _installed(tmp_path / "root", 5000)
    older = root / "lib/older.py"
    older.touch()
    os.utime(older, (900, 900))
    archive.layer_of_folder(root, tmp_path / "layer.tar")
    with tarfile.open(tmp_path / "layer.tar") as tar:
        times = {entry.name: entry.mtime for entry in tar}
    assert (times["./lib/older.py"], times["./lib/it.py"], times["./var/status"]) == (
        900,
        1000,
        1000,
    )


def test_an_archive_names_the_image_and_its_parts_by_their_digests(
    tmp_path: Path, layer: Path
) -> None:
    target = tmp_path / "image.tar"
    config = Config(entrypoint=["/it"], user="65532:65532", env={"A": "b"}, exposed=["53/udp"])
    archive.write(target, "localhost/selfheal/it:1", [layer], config)
    with tarfile.open(target) as tar:
        read = {entry.name: tar.extractfile(entry).read() for entry in tar}  # type: ignore[union-attr]
    [image] = json.loads(read["manifest.json"])
    assert image["RepoTags"] == ["localhost/selfheal/it:1"]
    [name] = image["Layers"]
    assert read[name] == layer.read_bytes()
    assert image["Config"] == hashlib.sha256(read[image["Config"]]).hexdigest() + ".json"
    written = json.loads(read[image["Config"]])
    assert written["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(read[name]).hexdigest()]
    assert written["config"]["Entrypoint"] == ["/it"]
    assert written["config"]["User"] == "65532:65532"
    assert written["config"]["Env"] == ["A=b"]
    assert written["config"]["ExposedPorts"] == {"53/udp": {}}


def test_the_same_content_makes_the_same_archive(tmp_path: Path, layer: Path) -> None:
    for name in ("one", "two"):
        archive.write(tmp_path / name, "localhost/it:1", [layer], Config(cmd=["/it"]))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize(("machine", "named"), [("x86_64", "amd64"), ("aarch64", "arm64")])
def test_the_architecture_has_the_name_that_images_use(machine: str, named: str) -> None:
    assert archive.image_config(Config(), [], machine)["architecture"] == named


@pytest.mark.parametrize("name", catalog.NAMES)
def test_every_image_has_a_plan_with_a_name_that_engines_take(name: str) -> None:
    plan = catalog.plan(name)
    assert re.fullmatch(r"localhost/selfheal/[a-z-]+:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", plan.ref)
    assert plan.path.name == f"{name}-{plan.key}.tar"


def test_images_of_this_repository_are_tagged_by_content_and_others_by_version() -> None:
    for name in ("worker", "remediator"):
        plan = catalog.plan(name)
        assert plan.tag == plan.key
    assert catalog.plan("rabbitmq").tag == "4.0"
    assert re.fullmatch(r"\d+\.\d+\.\d+", catalog.plan("keda-operator").tag)


def test_unknown_names_end_the_command_with_all_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["build", "worker", "redis"]) == 1
    said = capsys.readouterr().err
    assert "no image 'redis'; there are pause, rabbitmq, worker, remediator" in said


def test_list_tells_what_is_not_built(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SELFHEAL_CACHE", str(tmp_path))
    assert main(["list", "rabbitmq", "-o", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    ref = "localhost/selfheal/rabbitmq:4.0"
    assert listed == {"rabbitmq": {"ref": ref, "archive": None, "size_bytes": None}}


def dockerfile(package: str) -> str:
    return (REPOSITORY / package / "Dockerfile").read_text(encoding="utf-8")


@pytest.mark.parametrize("package", ["worker", "remediator"])
def test_dockerfiles_pin_hashes_and_end_as_a_user_without_rights(package: str) -> None:
    text = dockerfile(package)
    assert "--require-hashes" in text
    final = text[text.rindex("\nFROM ") :]
    assert "pip install" not in final
    assert "\nUSER 65532:65532\n" in final
    assert f'\nENTRYPOINT ["selfheal-{package}"]\nCMD ["run"]\n' in final
    copied = re.findall(r"^COPY (?!--from)(\S+)", text, re.MULTILINE)
    locked = {"worker": "${REQUIREMENTS}", "remediator": "remediator"}[package]
    assert copied == [f"requirements/{locked}.txt", f"{package}/selfheal_{package}"]


def test_the_workers_image_has_the_workers_requirements_unless_set() -> None:
    assert re.findall(r"^ARG REQUIREMENTS=(\S+)$", dockerfile("worker"), re.MULTILINE) == ["worker"]


def test_the_client_half_that_the_image_leaves_out_is_imported_nowhere() -> None:
    assert "kubernetes/aio" in dockerfile("remediator")
    sources = (REPOSITORY / "remediator").rglob("*.py")
    users = [path for path in sources if re.search(r"kubernetes[. ]\S*\s*aio", path.read_text())]
    assert users == []


def test_a_build_sees_only_the_packages_and_their_requirements() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    locked = ["worker", *sorted(set(provider.REQUIREMENTS.values())), "remediator"]
    assert allowed == ["worker", "remediator"] + [f"requirements/{name}.txt" for name in locked]
