"""Helm 3 and Helm 4 make the same of the chart, so that what is tested with 4 holds for 3."""

from __future__ import annotations

import pytest

from tests.chart.rendering import (
    CASES,
    GROUPS,
    LONG,
    OPERATORS,
    PARTS,
    VERSIONS,
    Helm,
    on_cluster,
)

#: Every case on the oldest and the newest, with and without operators; all of it at full length.
CLUSTERS = (
    [(version, groups) for version in VERSIONS for groups in GROUPS]
    if LONG
    else [(VERSIONS[0], "no API groups"), (VERSIONS[-1], OPERATORS)]
)


@pytest.fixture(scope="module")
def both(helm: Helm, helm3: Helm) -> tuple[Helm, Helm]:
    """Both Helms, which have begun to render it all."""
    for case in CASES:
        for each in (helm, helm3):
            each.ahead(on_cluster(case, version, groups) for version, groups in CLUSTERS)
    return helm, helm3


@pytest.mark.parametrize(("version", "groups"), CLUSTERS)
@pytest.mark.parametrize("case", CASES)
def test_both_render_the_same(
    both: tuple[Helm, Helm], case: str, version: str, groups: str
) -> None:
    new, old = (helm.render(on_cluster(case, version, groups)) for helm in both)
    assert new
    assert old == new


@pytest.mark.parametrize("case", PARTS)
def test_helm_3_lints_without_a_warning(helm3: Helm, case: str) -> None:
    done = helm3.lint(CASES[case])
    assert done.returncode == 0, done.stdout + done.stderr


def test_both_refuse_an_unknown_key_by_name(helm: Helm, helm3: Helm) -> None:
    for each in (helm, helm3):
        message = each.refusal("worker.replica=2")
        assert "replica" in message
        assert "worker" in message


def test_an_old_kubernetes_is_refused(helm: Helm, helm3: Helm) -> None:
    for each in (helm, helm3):
        message = each.refusal(flags=["--kube-version=1.30.0"])
        assert "1.31" in message
        assert "1.30" in message
