"""The evaluation broker's passwords: stable without a cluster, made once, or the user's own."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chart.pod_security import violations
from tests.chart.rendering import (
    CASES,
    CHART,
    FIXED,
    Helm,
    Manifest,
    Rendering,
    by_kind,
    containers_of,
    environment,
    pod_specs,
    pod_templates,
    workloads,
)
from tests.support.loopback import Handler, serving

PROGRAM = CHART / "files" / "rabbitmq" / "passwords.py"
SCRIPT = CHART / "files" / "rabbitmq" / "definitions.sh"
#: Argo CD says which kinds the cluster has, and lets no template read it.
ARGO = tuple(
    f"--api-versions={name}"
    for name in ("v1", "v1/Secret", "apps/v1/Deployment", "keda.sh/v1alpha1/ScaledObject")
)


@pytest.mark.parametrize("flags", [(), ARGO], ids=["helm template", "Argo CD"])
@pytest.mark.parametrize("case", CASES)
def test_two_renderings_without_a_cluster_are_equal(
    helm: Helm, case: str, flags: tuple[str, ...]
) -> None:
    asked = Rendering(files=tuple(CASES[case]), flags=flags).arguments()
    first, second = (
        subprocess.run([helm.binary, *asked], capture_output=True, text=True) for _ in range(2)
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout
    assert first.stdout == second.stdout


def _job(manifests: list[Manifest]) -> Manifest:
    [job] = [j for n, j in by_kind(manifests, "Job").items() if "-rabbitmq-passwords-" in n]
    return job


def test_without_a_cluster_a_job_makes_them(helm: Helm) -> None:
    """No hook, which Argo CD would run at each sync or wait for; with rights on one Secret."""
    manifests = helm.template()
    data = by_kind(manifests, "Secret")["selfheal-rabbitmq"]["stringData"]
    assert data == {"username": "selfheal", "monitor-username": "selfheal-monitor"}
    job = _job(manifests)
    assert "annotations" not in job["metadata"]
    spec = job["spec"]["template"]["spec"]
    assert violations(spec) == []
    role = by_kind(manifests, "Role")["selfheal-rabbitmq-passwords"]
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["selfheal-rabbitmq"],
            "verbs": ["get", "patch"],
        }
    ]
    [subject] = by_kind(manifests, "RoleBinding")["selfheal-rabbitmq-passwords"]["subjects"]
    assert subject["name"] == spec["serviceAccountName"]
    assert subject["name"] in by_kind(manifests, "ServiceAccount")


@pytest.mark.parametrize(
    "sets",
    [
        FIXED,
        ("rabbitmq.auth.existingSecret=mine",),
        ("rabbitmq.enabled=false", "worker.enabled=false"),
    ],
)
def test_no_job_where_there_is_nothing_to_make(helm: Helm, sets: tuple[str, ...]) -> None:
    assert "rabbitmq-passwords" not in str(helm.template(*sets))


def test_a_password_that_is_given_is_kept_and_the_other_made(helm: Helm) -> None:
    manifests = helm.template("rabbitmq.auth.password=given")
    data = by_kind(manifests, "Secret")["selfheal-rabbitmq"]["stringData"]
    assert data["password"] == "given"
    assert "monitor-password" not in data
    other = _job(helm.template("rabbitmq.auth.password=another"))
    assert _job(manifests)["metadata"]["name"] != other["metadata"]["name"]


@pytest.mark.parametrize(
    ("sets", "image"),
    [
        ((), "selfheal-worker"),
        (("worker.enabled=false",), "selfheal-remediator"),
        (("worker.enabled=false", "remediator.enabled=false"), "selfheal-worker"),
    ],
)
def test_the_job_runs_in_an_image_that_the_release_has(
    helm: Helm, sets: tuple[str, ...], image: str
) -> None:
    [container] = _job(helm.template(*sets))["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith(image)


def test_with_network_policies_the_job_reaches_the_api_server(helm: Helm) -> None:
    policy = by_kind(helm.template("networkPolicy.enabled=true"), "NetworkPolicy")[
        "selfheal-rabbitmq-passwords"
    ]
    ports = [p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]]
    assert {443, 6443} <= set(ports)


class _Secrets(Handler):
    """An API server that has one Secret."""

    secret: dict[str, Any]
    refuses: int | None = None
    asked: list[str]

    def do_GET(self) -> None:
        self._answer()

    def do_PATCH(self) -> None:
        body = json.loads(self.body())
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        assert body["metadata"]["resourceVersion"] == self.secret["metadata"]["resourceVersion"]
        self.secret["data"] = {**self.secret.get("data", {}), **body["data"]}
        self._answer()

    def _answer(self) -> None:
        assert self.headers["Authorization"] == "Bearer token-1"
        self.asked.append(f"{self.command} {self.path}")
        self.reply(self.secret, self.refuses or 200)


@pytest.fixture
def api() -> Iterator[tuple[type[_Secrets], str]]:
    """The handler's class, and the server's URL."""
    handler = type("Handler", (_Secrets,), {"asked": []})
    with serving(handler) as server:
        yield handler, server.url


def _run(job: Manifest, server: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """The Job's program as its pod would run it."""
    (tmp_path / "token").write_text("token-1\n")
    [container] = job["spec"]["template"]["spec"]["containers"]
    more = {
        "KUBERNETES_SERVICE_HOST": "fd00::1",
        "KUBERNETES_SERVICE_PORT": "443",
        "ACCOUNT": str(tmp_path),
        "SERVER": server,
    }
    return subprocess.run(
        [sys.executable, PROGRAM],
        env={"PATH": os.environ["PATH"], **environment(container), **more},
        capture_output=True,
        text=True,
    )


def _data(handler: type[_Secrets]) -> dict[str, str]:
    encoded = handler.secret["data"]
    return {key: base64.b64decode(value).decode() for key, value in encoded.items()}


def _rendered(manifests: list[Manifest]) -> dict[str, Any]:
    """The Secret as the API server keeps it."""
    given = by_kind(manifests, "Secret")["selfheal-rabbitmq"]["stringData"]
    data = {key: base64.b64encode(value.encode()).decode() for key, value in given.items()}
    return {"metadata": {"resourceVersion": "7"}, "data": data}


def test_generated_passwords_are_one_in_all_places_and_made_once(
    helm: Helm, api: tuple[type[_Secrets], str], tmp_path: Path
) -> None:
    """What a pod of a release that Helm installs itself finds is what one of Argo CD's finds."""
    handler, server = api
    manifests = helm.template("broker.vhost=a b")
    handler.secret = _rendered(manifests)
    done = _run(_job(manifests), server, tmp_path)
    assert done.returncode == 0, done.stderr
    data = _data(handler)
    assert len(data["password"]) == len(data["monitor-password"]) == 32
    assert data["password"] != data["monitor-password"]
    assert data["password"] not in done.stdout
    given = f"rabbitmq.auth.password={data['password']}"
    monitor = f"rabbitmq.auth.monitorPassword={data['monitor-password']}"
    helms = by_kind(helm.template("broker.vhost=a b", given, monitor), "Secret")
    wanted = helms["selfheal-rabbitmq"]["stringData"]
    assert data.keys() == wanted.keys()
    for key in wanted.keys() - {"definitions.json"}:
        assert data[key] == wanted[key]
    assert json.loads(data["definitions.json"]) == json.loads(wanted["definitions.json"])
    handler.secret, kept = _rendered(manifests), handler.secret
    assert _run(_job(manifests), server, tmp_path).returncode == 0
    assert _data(handler)["password"] != data["password"]
    handler.secret = kept
    again = _run(_job(manifests), server, tmp_path)
    assert "nothing changed" in again.stdout
    assert _data(handler) == data
    path = "/api/v1/namespaces/selfheal/secrets/selfheal-rabbitmq"
    assert handler.asked == [*(f"GET {path}", f"PATCH {path}") * 2, f"GET {path}"]


def test_a_given_password_with_odd_characters_is_escaped_by_the_job_too(
    helm: Helm, api: tuple[type[_Secrets], str], tmp_path: Path
) -> None:
    handler, server = api
    manifests = helm.template(values={"rabbitmq": {"auth": {"password": 'a/b c@d+%"{'}}})
    handler.secret = _rendered(manifests)
    assert _run(_job(manifests), server, tmp_path).returncode == 0
    data = _data(handler)
    assert data["password"] == 'a/b c@d+%"{'
    assert "selfheal:a%2Fb%20c%40d%2B%25%22%7B@" in data["amqp-uri"]


@pytest.mark.parametrize("status", [403, 404, 409, 500])
def test_a_refusal_fails_the_job_with_the_reason(
    helm: Helm, api: tuple[type[_Secrets], str], tmp_path: Path, status: int
) -> None:
    handler, server = api
    manifests = helm.template()
    handler.secret, handler.refuses = _rendered(manifests), status
    done = _run(_job(manifests), server, tmp_path)
    assert done.returncode == 1
    assert "Secret selfheal/selfheal-rabbitmq: HTTP Error" in done.stderr
    assert "Traceback" not in done.stderr


EXISTING = {
    "rabbitmq": {
        "auth": {"existingSecret": "mine", "secretKeys": {"password": "pw", "monitorUsername": "m"}}
    }
}


def test_a_secret_of_the_users_is_used_by_all_who_log_in(helm: Helm) -> None:
    manifests = helm.template(values=EXISTING)
    assert "selfheal-rabbitmq" not in by_kind(manifests, "Secret")
    templates = pod_templates(manifests)
    for name, template in templates.items():
        for volume in template["spec"]["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["secretName"] == "mine", name
    read = {
        item["path"]: item["key"]
        for volume in templates["StatefulSet/selfheal-rabbitmq"]["spec"]["volumes"]
        if "secret" in volume
        for item in volume["secret"]["items"]
    }
    assert read == {
        "username": "username",
        "password": "pw",
        "monitor-username": "m",
        "monitor-password": "monitor-password",
    }
    worker = templates["Deployment/selfheal-worker"]["spec"]["volumes"]
    [items] = [volume["secret"]["items"] for volume in worker if "secret" in volume]
    assert {item["path"]: item["key"] for item in items} == {
        "username": "username",
        "password": "pw",
    }
    keda = by_kind(manifests, "TriggerAuthentication")["selfheal-worker"]["spec"]
    assert {r["parameter"]: (r["name"], r["key"]) for r in keda["secretTargetRef"]} == {
        "username": ("mine", "m"),
        "password": ("mine", "monitor-password"),
    }


def test_a_secret_of_the_users_restarts_the_broker_when_it_is_another(helm: Helm) -> None:
    one, other = (
        pod_templates(helm.template(f"rabbitmq.auth.existingSecret={name}"))
        for name in ("mine", "yours")
    )
    assert one["StatefulSet/selfheal-rabbitmq"] != other["StatefulSet/selfheal-rabbitmq"]


def _definitions(helm: Helm, tmp_path: Path, secret: dict[str, str]) -> tuple[int, str, Any]:
    """Exit status, what was said, and the definitions that the init container writes."""
    manifests = helm.template(values=EXISTING)
    [broker] = [m for m in workloads(manifests) if m["kind"] == "StatefulSet"]
    spec = broker["spec"]["template"]["spec"]
    assert violations(spec) == []
    [container] = spec["initContainers"]
    script = by_kind(manifests, "ConfigMap")["selfheal-rabbitmq"]["data"]["definitions.sh"]
    assert script.strip() == SCRIPT.read_text(encoding="utf-8").strip()
    for path, value in secret.items():
        (tmp_path / path).write_text(value, encoding="utf-8")
    target = tmp_path / "definitions.json"
    done = subprocess.run(
        ["/bin/sh", SCRIPT, target],
        env={
            "PATH": os.environ["PATH"],
            **environment(container),
            "CREDENTIALS": str(tmp_path),
        },
        capture_output=True,
        text=True,
    )
    written = json.loads(target.read_text(encoding="utf-8")) if target.exists() else None
    return done.returncode, done.stderr, written


SECRET = {
    "username": "user",
    "password": "p",
    "monitor-username": "monitor",
    "monitor-password": "m",
}


@pytest.mark.parametrize(
    "password", ["plain", 'a"b\\c', "$(id) `x` * ? &", "ünï", "%s\\n", "line\n"]
)
def test_the_broker_gets_the_users_of_the_secret(helm: Helm, tmp_path: Path, password: str) -> None:
    status, said, written = _definitions(helm, tmp_path, {**SECRET, "password": password})
    assert status == 0, said
    users = {u["name"]: (u["password"], tuple(u["tags"])) for u in written["users"]}
    assert users == {
        # Workers read a file without the line break at its end, too.
        "user": (password.rstrip("\n"), ("management",)),
        "monitor": ("m", ("monitoring",)),
    }
    assert {p["user"]: p["configure"] for p in written["permissions"]} == {
        "user": ".*",
        "monitor": "^$",
    }


@pytest.mark.parametrize(
    ("value", "problem"), [("", "is empty"), ("a\nb", "line break"), ("a\tb", "control character")]
)
def test_a_secret_that_cannot_be_is_refused_by_its_key(
    helm: Helm, tmp_path: Path, value: str, problem: str
) -> None:
    status, said, written = _definitions(helm, tmp_path, {**SECRET, "monitor-password": value})
    assert status == 1
    assert "monitor-password" in said
    assert problem in said
    assert written is None


def test_the_broker_reads_the_definitions_where_they_are(helm: Helm) -> None:
    for values in ({}, EXISTING):
        manifests = helm.template(*(FIXED if not values else ()), values=values)
        text = by_kind(manifests, "ConfigMap")["selfheal-rabbitmq"]["data"]["rabbitmq.conf"]
        [path] = [
            line.partition(" = ")[2]
            for line in text.splitlines()
            if line.startswith("definitions.local.path")
        ]
        [spec] = [s for owner, s in pod_specs(manifests) if owner["kind"] == "StatefulSet"]
        broker = containers_of(spec)[-1]
        places = [mount["mountPath"] for mount in broker["volumeMounts"]]
        assert path.rpartition("/")[0] in places


def test_passwords_in_two_places_are_refused(helm: Helm) -> None:
    said = helm.refusal("rabbitmq.auth.existingSecret=mine", "rabbitmq.auth.monitorPassword=x")
    assert "rabbitmq.auth.existingSecret names a Secret with the passwords" in said
    assert "leave existingSecret empty" in said
