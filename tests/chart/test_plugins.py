"""The check scripts of chart/ci/ do what their comments say."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.chart.rendering import CHART
from tests.support.loopback import Handler, serving


@pytest.fixture
def check(tmp_path: Path) -> Path:
    """The kubelet's check as the detector gets it."""
    values = yaml.safe_load((CHART / "ci" / "kubelet-health-values.yaml").read_text("utf-8"))
    script = tmp_path / "check.sh"
    script.write_text(
        values["nodeProblemDetector"]["customPlugins"]["kubelet"]["scripts"]["check.sh"]
    )
    return script


@contextmanager
def health_page(status: int) -> Iterator[int]:
    """A server that answers with this status; its port."""

    class Page(Handler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

    with serving(Page) as server:
        yield server.port


def run(script: Path, port: int) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", script],
        env={"KUBELET_HEALTH_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize(
    ("status", "expected"),
    [(200, (0, "the kubelet answers")), (500, (1, "the health page says 500"))],
)
def test_the_kubelet_check_reads_the_health_page(
    check: Path, status: int, expected: tuple[int, str]
) -> None:
    with health_page(status) as port:
        assert run(check, port) == expected


def test_the_kubelet_check_sees_that_nothing_listens(check: Path) -> None:
    with health_page(200) as port:
        pass
    assert run(check, port) == (1, f"nothing listens on port {port}")
