"""Parts from official archives: what is used, what is refused, and when parts are built instead."""

import os
import random
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest

from ci.parts import PartsError, archives, build, ensure, official
from ci.parts.errors import Refused, Unreachable
from ci.parts.progress import Doing
from ci.parts.recipes import RECIPES
from ci.parts.toolchain import find
from ci.versions import pin
from tests.support.loopback import Handler, serving
from tests.support.release_host import TOKEN, ReleaseHost, release_host, sha256, tar

KUBERNETES = f"k8s.io/kubernetes {pin('go', 'kubernetes')}"
KWOK = f"sigs.k8s.io/kwok {pin('go', 'kwok')}"
KEDA = f"github.com/kedacore/keda/v2 {pin('go', 'keda')}"
PROGRAM = b"\x7fELF" + random.Random(1).randbytes(10_000)
SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")


class Seen:
    """Progress: what was done, in which way."""

    def __init__(self) -> None:
        self.worked: list[tuple[Doing, str]] = []

    def working(
        self, part: str, number: int = 1, total: int = 1, doing: Doing = "building"
    ) -> AbstractContextManager[None]:
        self.worked.append((doing, part))
        return nullcontext()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a `go` whose builds are recognised."""
    monkeypatch.setenv("SELFHEAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SELFHEAL_PARTS", raising=False)
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(
        f"""#!/bin/sh
case "$1 $2" in
  "env GOVERSION") echo go1.99.0 ;;
  "env GOCACHE") echo {tmp_path}; echo {tmp_path} ;;
  *) echo built > "$5" ;;
esac
"""
    )
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "parts"


@pytest.fixture(scope="module")
def _host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ReleaseHost, Path]]:
    with release_host(tmp_path_factory.mktemp("host")) as host:
        yield host


@pytest.fixture
def host(_host: tuple[ReleaseHost, Path], monkeypatch: pytest.MonkeyPatch) -> ReleaseHost:
    """A host of releases without releases, which is trusted."""
    host, certificate = _host
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    address = host.address
    vars(host).update(vars(ReleaseHost()))
    host.address = address
    return host


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The table of archives, empty. What was asked before is forgotten."""
    table: dict[str, dict[str, Any]] = {}
    monkeypatch.setattr(archives, "entries", lambda: table)
    monkeypatch.setattr(official, "_answers", {})
    monkeypatch.setattr(official, "ANSWER_SECONDS", 60.0)
    return table


Table = dict[str, dict[str, Any]]


def publish_file(host: ReleaseHost, table: Table) -> str:
    url = host.publish("/v1/kwok-linux-amd64", PROGRAM)
    table["kwok"] = {
        "requires": KWOK,
        "file": url.replace("amd64", "{arch}"),
        "amd64": sha256(PROGRAM),
        "programs": {"kwok": ""},
    }
    return "kwok"


def publish_tar(
    host: ReleaseHost, table: Table, content: bytes | None = None, program: str = ""
) -> str:
    inside = {f"kubernetes/server/bin/{name}": name.encode() + PROGRAM for name in SERVERS}
    content = content or tar({"kubernetes/LICENSES": b"x", **inside})
    url = host.publish("/v1/kubernetes-server-linux-amd64.tar.gz", content)
    table["kubernetes-server"] = {
        "requires": KUBERNETES,
        "tar": url.replace("amd64", "{arch}"),
        "amd64": sha256(content),
        "programs": {name: f"kubernetes/server/bin/{name}" for name in SERVERS},
    }
    if program:
        table["kubernetes-server"]["programs"] = {"kube-apiserver": program}
    return "kube-apiserver"


def publish_image(host: ReleaseHost, table: Table) -> str:
    host.asks_for_token = True
    mine = [tar({"keda": b"lower"}), tar({"keda": PROGRAM}), tar({"etc/passwd": b""})]
    image, digest = host.publish_image(
        "kedacore/keda", {"arm64": [tar({"keda": b"arm"})], "amd64": mine}
    )
    table["keda-operator"] = {
        "requires": KEDA,
        "image": image,
        "amd64": digest,
        "programs": {"keda-operator": "keda"},
    }
    return "keda-operator"


Publish = Callable[[ReleaseHost, Table], str]
each_kind = pytest.mark.parametrize("publish", [publish_file, publish_tar, publish_image])
both_ways = pytest.mark.parametrize("setting", ["auto", "official"])


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def away() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def move_away(table: Table) -> str:
    """Nobody answers at the place of the archive."""
    nobody = away()
    for entry in table.values():
        for kind in ("file", "tar", "image"):
            if kind in entry:
                entry[kind] = re.sub(r"127\.0\.0\.1:\d+", nobody, entry[kind])
    return nobody


@each_kind
@both_ways
def test_what_has_its_checksum_is_used_and_nothing_is_built(
    host: ReleaseHost,
    pinned: Table,
    publish: Publish,
    setting: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SELFHEAL_PARTS", setting)
    part, seen = publish(host, pinned), Seen()
    path = ensure([part], seen)[part]
    assert path.read_bytes().endswith(PROGRAM)
    assert os.access(path, os.X_OK)
    (name,) = pinned
    assert seen.worked == [("downloading", f"{name} from {host.address}")]
    assert files(cache) == sorted([".lock", *pinned[name]["programs"]])
    host.files.clear()
    assert ensure([part], Seen()) == {part: path}


@each_kind
@both_ways
@pytest.mark.parametrize("change", [lambda whole: whole + b"!", lambda whole: whole[:-1]])
def test_a_wrong_checksum_is_refused_and_nothing_of_it_is_kept(
    host: ReleaseHost,
    pinned: Table,
    publish: Publish,
    setting: str,
    change: Callable[[bytes], bytes],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SELFHEAL_PARTS", setting)
    part = publish(host, pinned)
    for path in [name for name in host.files if "/manifests/" not in name]:
        host.files[path] = change(host.files[path])
    with pytest.raises(
        Refused, match=r"wrong checksum.*\n  expected sha256:\w{64}\n  got +sha256:"
    ):
        ensure([part], Seen())
    assert files(cache) == [".lock"]


@pytest.mark.parametrize("which", [0, 1])
def test_a_manifest_with_another_digest_is_refused(
    host: ReleaseHost, pinned: Table, which: int, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    monkeypatch.setenv("SELFHEAL_PARTS", "official")
    part = publish_image(host, pinned)
    index = f"/v2/kedacore/keda/manifests/{pinned[part]['amd64']}"
    others = [path for path in host.files if "/manifests/" in path and path != index]
    for path in [index] if which == 0 else others:
        host.files[path] += b" "
    with pytest.raises(Refused, match=r"wrong checksum.*/manifests/"):
        ensure([part], Seen())
    assert files(cache) == [".lock"]


@each_kind
def test_when_the_host_is_away_it_is_built_and_said(
    host: ReleaseHost, pinned: Table, publish: Publish, capsys: pytest.CaptureFixture[str]
) -> None:
    part, seen = publish(host, pinned), Seen()
    nobody = move_away(pinned)
    assert ensure([part], seen)[part].read_text() == "built\n"
    assert seen.worked == [("building", part)]
    said = capsys.readouterr().err
    assert said.startswith(f"building from source what cannot be had now from {nobody} (")
    assert said.count("\n") == 1


@each_kind
def test_official_alone_does_not_build_when_the_host_is_away(
    host: ReleaseHost, pinned: Table, publish: Publish, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFHEAL_PARTS", "official")
    part = publish(host, pinned)
    nobody = move_away(pinned)
    with pytest.raises(Unreachable, match=rf"{part}.*https://{nobody}.*cannot be reached"):
        ensure([part], Seen())
    assert files(cache) == [".lock"]


@each_kind
def test_what_the_host_does_not_have_is_built(
    host: ReleaseHost, pinned: Table, publish: Publish
) -> None:
    part = publish(host, pinned)
    host.files.clear()
    assert ensure([part], Seen())[part].read_text() == "built\n"


def test_hosts_that_say_nothing_cost_their_seconds_once_and_one_line_names_them(
    pinned: Table, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(official, "ANSWER_SECONDS", 0.05)
    with ExitStack() as stack:
        mutes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        addresses = [f"127.0.0.1:{mute.getsockname()[1]}" for mute in mutes]
        for part, address in zip(("kube-scheduler", "kube-proxy"), addresses, strict=True):
            pinned[part] = {
                "requires": KUBERNETES,
                "file": f"https://{address}/{part}",
                "amd64": sha256(PROGRAM),
                "programs": {part: ""},
            }
        for part in pinned:
            assert ensure([part], Seen())[part].read_text() == "built\n"
        for mute in mutes:
            mute.settimeout(60)
            mute.accept()[0].close()
            mute.settimeout(0.2)
            with pytest.raises(TimeoutError):
                mute.accept()
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(address in said for address in addresses)


def test_source_asks_nobody(
    host: ReleaseHost, pinned: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFHEAL_PARTS", "source")
    part = publish_file(host, pinned)
    assert ensure([part], Seen())[part].read_text() == "built\n"
    assert host.asked == []


def test_what_is_built_already_is_used_and_nobody_is_asked(
    host: ReleaseHost, pinned: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = publish_file(host, pinned)
    monkeypatch.setenv("SELFHEAL_PARTS", "source")
    built = ensure([part], Seen())
    monkeypatch.setenv("SELFHEAL_PARTS", "auto")
    assert ensure([part], Seen()) == built
    assert host.asked == []


def test_built_and_official_ones_are_kept_apart(
    host: ReleaseHost, pinned: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = publish_file(host, pinned)
    places, toolchain = {}, find(pin("go", "toolchain"))
    for setting in ("official", "source"):
        monkeypatch.setenv("SELFHEAL_PARTS", setting)
        places[setting] = ensure([part], Seen())[part]
        assert build.place(RECIPES[part], toolchain) == places[setting]
    assert places["official"].read_bytes() == PROGRAM
    assert places["source"].read_text() == "built\n"


def test_a_part_without_a_pinned_checksum_is_built(
    host: ReleaseHost, pinned: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFHEAL_PARTS", "official")
    part = publish_file(host, pinned)
    pinned[part]["requires"] = "sigs.k8s.io/kwok v0.0.1"
    assert ensure([part], Seen())[part].read_text() == "built\n"
    pinned[part] |= {"requires": KWOK, "arm64": pinned[part].pop("amd64")}
    assert archives.archive_of(RECIPES[part]) is None
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    found = archives.archive_of(RECIPES[part])
    assert found is not None
    assert found.location.endswith("/kwok-linux-arm64")


def test_one_archive_is_downloaded_once_for_all_its_programs(
    host: ReleaseHost, pinned: Table
) -> None:
    publish_tar(host, pinned)
    first = ensure(["kube-apiserver", "kube-proxy"], Seen())
    second = ensure(SERVERS, Seen())
    assert len(host.downloads()) == 1
    assert first.items() <= second.items()
    assert all(second[name].read_bytes() == name.encode() + PROGRAM for name in SERVERS)


@pytest.mark.parametrize("continues", [True, False])
def test_what_breaks_off_is_continued_or_begun_again(
    host: ReleaseHost, pinned: Table, continues: bool
) -> None:
    part = publish_file(host, pinned)
    (path,) = host.files
    host.continues, host.cuts[path] = continues, [1000, 2000]
    assert ensure([part], Seen())[part].read_bytes() == PROGRAM
    begun = ["", "bytes=1000-", "bytes=3000-" if continues else "bytes=2000-"]
    assert [range_ for _, range_ in host.downloads()] == begun


def test_what_breaks_off_again_and_again_fails_and_the_next_command_continues(
    host: ReleaseHost, pinned: Table, cache: Path
) -> None:
    part = publish_file(host, pinned)
    (path,) = host.files
    host.cuts[path] = [1000, 0, 0, 0, 0]
    with pytest.raises(Unreachable, match=r"kwok: .*broke off.*\n.*same command continues"):
        ensure([part], Seen())
    assert [name.rpartition(".")[2] for name in files(cache)] == ["lock", "part"]
    host.asked.clear()
    assert ensure([part], Seen())[part].read_bytes() == PROGRAM
    assert [range_ for _, range_ in host.downloads()] == ["bytes=1000-"]
    assert files(cache) == [".lock", "kwok"]


def test_an_image_whose_layer_breaks_off_is_continued(host: ReleaseHost, pinned: Table) -> None:
    part = publish_image(host, pinned)
    for path in [path for path in host.files if "/blobs/" in path]:
        host.cuts[path] = [20]
    assert ensure([part], Seen())[part].read_bytes() == PROGRAM


@each_kind
@both_ways
def test_a_redirect_to_http_is_refused(
    host: ReleaseHost,
    pinned: Table,
    publish: Publish,
    setting: str,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SELFHEAL_PARTS", setting)
    part = publish(host, pinned)
    host.redirects = dict.fromkeys(host.files, f"http://{host.address}/elsewhere")
    with pytest.raises(Refused, match=r"redirects to http://.*which is not https"):
        ensure([part], Seen())
    assert set(files(cache)) <= {".lock"}


def test_a_redirect_to_https_is_followed_and_a_token_stays_where_it_belongs(
    host: ReleaseHost, pinned: Table
) -> None:
    part = publish_image(host, pinned)
    other = host.address.replace("127.0.0.1", "localhost")
    for path in [path for path in host.files if "/blobs/" in path]:
        host.files[f"/storage{path}"] = host.files[path]
        host.redirects[path] = f"https://{other}/storage{path}"
    host.asks_for_token = False
    assert ensure([part], Seen())[part].read_bytes() == PROGRAM


def test_a_token_is_sent_to_its_registry_alone(host: ReleaseHost, pinned: Table) -> None:
    part = publish_image(host, pinned)
    other = host.address.replace("127.0.0.1", "localhost")
    blobs = [path for path in host.files if "/blobs/" in path]
    host.redirects = dict.fromkeys(blobs, f"https://{other}/storage")
    with pytest.raises(Unreachable, match="HTTP status 401"):
        ensure([part], Seen())
    sent = {(path, authorization) for path, _, authorization in host.asked}
    assert ("/storage", "") in sent
    assert ("/storage", f"Bearer {TOKEN}") not in sent
    assert any(path in blobs and authorization for path, authorization in sent)


def test_endless_redirects_are_refused(host: ReleaseHost, pinned: Table) -> None:
    part = publish_file(host, pinned)
    host.redirects = {path: f"https://{host.address}{path}" for path in host.files}
    with pytest.raises(Refused, match="redirects"):
        ensure([part], Seen())


BAD: dict[str, tuple[bytes, str]] = {
    "truncated": (tar({"bin/kube-apiserver": PROGRAM})[:-900], "cannot be read"),
    "no archive": (b"<html>not found</html>", "cannot be read"),
    "traversal": (tar({"bin/kube-apiserver": PROGRAM, "../evil": b"x"}), r"path '\.\./evil'"),
    "traversal inside": (tar({"bin/../../evil": b"x"}), r"path 'bin/\.\./\.\./evil'"),
    "absolute": (tar({"/evil": b"x", "bin/kube-apiserver": PROGRAM}), "path '/evil'"),
    "link": (tar({"bin/kube-apiserver": None}), "is no file"),
    "missing": (tar({"bin/kubelet": PROGRAM}), "does not have bin/kube-apiserver"),
}


@pytest.mark.parametrize(("content", "why"), BAD.values(), ids=BAD.keys())
def test_a_bad_archive_is_refused_even_with_its_checksum(
    host: ReleaseHost, pinned: Table, content: bytes, why: str, cache: Path
) -> None:
    part = publish_tar(host, pinned, content, "bin/kube-apiserver")
    with pytest.raises(Refused, match=f"is refused: .*{why}"):
        ensure([part], Seen())
    assert files(cache) == [".lock"]
    assert not (cache.parent / "evil").exists()


def test_a_link_in_an_archive_leads_nowhere(host: ReleaseHost, pinned: Table, cache: Path) -> None:
    content = tar({"bin": None, "bin/kube-apiserver": PROGRAM})
    part = publish_tar(host, pinned, content, "bin/kube-apiserver")
    path = ensure([part], Seen())[part]
    assert not path.is_symlink()
    assert path.read_bytes() == PROGRAM


def test_an_index_for_two_architectures_has_a_place_for_each(
    host: ReleaseHost, pinned: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = publish_image(host, pinned)
    pinned[part]["arm64"] = pinned[part]["amd64"]
    mine = ensure([part], Seen())[part]
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    others = ensure([part], Seen())[part]
    assert mine.read_bytes() == PROGRAM
    assert others.read_bytes() == b"arm"


def test_an_image_without_the_program_or_the_architecture_is_refused(
    host: ReleaseHost, pinned: Table, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = publish_image(host, pinned)
    pinned[part]["programs"] = {part: "other"}
    with pytest.raises(Refused, match="does not have other"):
        ensure([part], Seen())
    host.asks_for_token = False
    _, pinned[part]["amd64"] = host.publish_image("kedacore/keda", {"s390x": [tar({"keda": b""})]})
    with pytest.raises(Refused, match="has nothing for"):
        ensure([part], Seen())
    assert files(cache) == [".lock"]


def test_a_program_larger_than_any_is_refused(
    host: ReleaseHost, pinned: Table, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = publish_tar(host, pinned)
    monkeypatch.setattr("ci.parts.unpack.LARGEST_PROGRAM", 1000)
    with pytest.raises(Refused, match=r"has \d+ bytes"):
        ensure([part], Seen())
    assert files(cache) == [".lock"]


def test_a_download_larger_than_any_is_refused(
    host: ReleaseHost, pinned: Table, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = publish_file(host, pinned)
    monkeypatch.setattr("ci.parts.https.LARGEST_DOWNLOAD", 1000)
    with pytest.raises(Refused, match="larger than 1000 bytes"):
        ensure([part], Seen())
    assert files(cache) == [".lock"]


def test_the_usual_variables_name_the_proxy(
    host: ReleaseHost, pinned: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Proxy(Handler):
        def do_CONNECT(self) -> None:
            asked.append(self.path)
            self.reply(status=502)

    monkeypatch.setenv("SELFHEAL_PARTS", "official")
    part = publish_file(host, pinned)
    with serving(Proxy) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(Unreachable, match="502"):
            ensure([part], Seen())
        assert set(asked) == {host.address}
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert ensure([part], Seen())[part].read_bytes() == PROGRAM


def test_a_certificate_that_nobody_trusts_is_as_if_nobody_answered(
    host: ReleaseHost, pinned: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = publish_file(host, pinned)
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    assert ensure([part], Seen())[part].read_text() == "built\n"
    monkeypatch.setenv("SELFHEAL_PARTS", "official")
    with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
        ensure([part], Seen())


def test_an_unknown_setting_names_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFHEAL_PARTS", "never")
    with pytest.raises(PartsError, match="SELFHEAL_PARTS is 'never'; it must be auto, official"):
        ensure(["kwok"], Seen())


@pytest.mark.parametrize("name", sorted(archives.entries()))
def test_each_archive_is_pinned_for_the_version_that_is_built(name: str) -> None:
    entry = archives.entries()[name]
    allowed = {"requires", "file", "tar", "image", "amd64", "arm64", "source", "programs"}
    assert set(entry) <= allowed
    assert entry["source"]
    assert entry.keys() & {"amd64", "arm64"}
    for part in entry["programs"]:
        assert RECIPES[part].package
        assert archives.is_required(RECIPES[part].module, entry["requires"])
    for architecture in entry.keys() & {"amd64", "arm64"}:
        archive = archives.archive_from(name, entry, architecture)
        length = {"sha256": 64, "sha512": 128}[archive.checksum.partition(":")[0]]
        assert re.fullmatch(rf"sha\d+:[0-9a-f]{{{length}}}", archive.checksum)
        if archive.kind == "image":
            assert re.fullmatch(r"[a-z.0-9]+(/[a-z0-9-]+)+", archive.location)
        else:
            assert archive.location.startswith("https://")
            assert "{" not in archive.location


def test_no_part_has_two_archives() -> None:
    parts = [part for entry in archives.entries().values() for part in entry["programs"]]
    assert len(parts) == len(set(parts))


def test_the_page_says_of_each_program_who_has_it() -> None:
    page = (Path(__file__).parents[3] / "docs" / "install.md").read_text(encoding="utf-8")
    table = page.partition("| Official, from | Parts |\n|---|---|\n")[2].partition("\n\n")[0]
    said = {}
    for row in table.splitlines():
        host, parts = row.strip("| ").split(" | ")
        for part in re.sub(r" \(.*?\)", "", parts).split(", "):
            said[part] = host.split()[0]
    assert said == {
        name: archive.host if (archive := archives.archive_of(recipe)) else "always"
        for name, recipe in RECIPES.items()
        if recipe.package
    }
