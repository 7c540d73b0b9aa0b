"""Where root file systems and packages come from: the machine's own settings, in both formats."""

import configparser
from pathlib import Path

import pytest

from ci.images import aptsource, secrets
from ci.images.aptsource import Source

ONE_LINE = """
# deb http://commented.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] http://mirror.example/debian/ bookworm main
deb http://mirror.example/debian-security bookworm-security main
"""

DEB822 = """Types: deb
URIs: http://security.example/debian-security
Suites: bookworm-security
Components: main

# A comment between
Types: deb deb-src
URIs: http://first.example/debian
  http://second.example/debian
Suites: trixie
 trixie-updates
Components: main

Types: deb
URIs: http://off.example/debian
Suites: trixie
Enabled: no
"""


def test_one_line_entries_keep_uri_and_suite_and_lose_options() -> None:
    assert list(aptsource.parse_one_line(ONE_LINE)) == [
        Source("http://mirror.example/debian/", ("bookworm",)),
        Source("http://mirror.example/debian-security", ("bookworm-security",)),
    ]


def test_deb822_stanzas_give_every_uri_of_every_enabled_one() -> None:
    assert list(aptsource.parse_deb822(DEB822)) == [
        Source("http://security.example/debian-security", ("bookworm-security",)),
        Source("http://first.example/debian", ("trixie", "trixie-updates")),
        Source("http://second.example/debian", ("trixie", "trixie-updates")),
    ]


def test_mirror_is_an_archive_of_whole_suites_not_the_security_one() -> None:
    assert aptsource.debian_mirror(list(aptsource.parse_deb822(DEB822))) == (
        "http://first.example/debian"
    )


def test_a_machine_of_another_distribution_has_no_debian_mirror() -> None:
    sources = [Source("http://archive.example/ubuntu", ("noble", "noble-updates"))]
    assert aptsource.debian_mirror(sources) is None


def test_both_folders_of_apt_are_read_in_order(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://one.example/debian sid main\n")
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "b.list").write_text("deb http://three.example/debian sid main\n")
    (folder / "a.sources").write_text("Types: deb\nURIs: http://two.example/d\nSuites: sid\n")
    (folder / "c.save").write_text("deb http://never.example/debian sid main\n")
    uris = [source.uri for source in aptsource.machine_sources(tmp_path)]
    assert [uri.split(".")[0] for uri in uris] == ["http://one", "http://two", "http://three"]


def test_no_apt_at_all_is_no_source(tmp_path: Path) -> None:
    assert aptsource.machine_sources(tmp_path / "absent") == []


CONFIG_LIST = """:env:.index-url='https://from.example/env?a=%20b'
:env:.find-links='/opt/wheels'
global.index-url='https://from.example/file'
global.timeout='20'
global.cert='/etc/ca.crt'
install.timeout='30'
install.extra-index-url='\\nhttps://a.example\\nhttps://b.example'
freeze.timeout='99'
"""


def test_environment_wins_over_install_wins_over_global() -> None:
    settings = secrets.effective(CONFIG_LIST)
    assert settings["index-url"] == "https://from.example/env?a=%20b"
    assert settings["timeout"] == "30"


@pytest.mark.parametrize(
    ("with_authorities", "cert"), [(True, "/run/secrets/ca.pem"), (False, None)]
)
def test_only_what_means_the_same_inside_a_build_is_carried(
    with_authorities: bool, cert: str | None
) -> None:
    settings = secrets.effective(CONFIG_LIST)
    parser = configparser.RawConfigParser()
    parser.read_string(secrets.pip_conf(settings, with_authorities=with_authorities))
    carried = dict(parser["global"])
    assert carried.pop("cert", None) == cert
    assert carried == {
        "index-url": "https://from.example/env?a=%20b",
        "timeout": "30",
        "extra-index-url": "\nhttps://a.example\nhttps://b.example",
    }


def test_no_settings_make_an_empty_file() -> None:
    assert secrets.pip_conf(secrets.effective(""), with_authorities=False) == "[global]\n"
