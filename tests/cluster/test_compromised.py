"""A worker's pod in the hands of somebody else: what it reaches of the cluster: nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ci.cluster import Cluster
from tests.cluster.conftest import DemoRun

pytestmark = pytest.mark.cluster

NAMESPACE = "selfheal"
#: Run by the image's own Python: asks for everything that an account could be used for.
ATTACK = """
import json, os, socket, ssl, urllib.error, urllib.request
unchecked = ssl.create_default_context()
unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
def ask(url, method="GET", data=None):
    request = urllib.request.Request(url, method=method, data=data)
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=10, context=unchecked) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return type(error).__name__
api = "https://kubernetes.default.svc.cluster.local"
found = {
    "token": os.path.exists("/var/run/secrets/kubernetes.io"),
    "service links": [name for name in os.environ if name.startswith("SELFHEAL_RABBITMQ_")],
    "uid": os.getuid(),
}
for path in ("/api/v1/namespaces/selfheal/secrets", "/api/v1/nodes", "/api/v1/pods", "/apis"):
    found["GET " + path] = ask(api + path)
found["POST pods"] = ask(api + "/api/v1/namespaces/selfheal/pods", "POST", b"{}")
found["POST review"] = ask(
    api + "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", "POST", b"{}")
for place in ("/opt/selfheal/x", "/etc/x", "/usr/local/bin/x"):
    try:
        open(place, "w").close()
        found["writes " + place] = True
    except OSError:
        found["writes " + place] = False
node = os.environ.get("NODE_ADDRESS")
kubelet = f"https://{node}:10250"
found["kubelet"] = ask(kubelet + "/pods")
found["kubelet exec"] = ask(kubelet + "/run/selfheal/selfheal-rabbitmq-0/rabbitmq", "POST")
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def attacked(demo: DemoRun) -> dict[str, Any]:
    """What a pod with exactly the worker's template finds when it runs the attack instead."""
    return attack(demo.cluster)


def attack(cluster: Cluster) -> dict[str, Any]:
    """See `attacked`; the pod is removed again."""
    deployment = json.loads(
        cluster.kubectl("-n", NAMESPACE, "get", "deployment", "selfheal-worker", "-o", "json")
    )
    template = deployment["spec"]["template"]
    container = template["spec"]["containers"][0]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        container.pop(probe, None)
    container |= {"command": ["python3", "-c", ATTACK], "args": []}
    address = {"fieldRef": {"fieldPath": "status.hostIP"}}
    container["env"].append({"name": "NODE_ADDRESS", "valueFrom": address})
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        # No label of the worker: nobody's replica, so that no controller takes it.
        "metadata": {"name": "intruder", "namespace": NAMESPACE},
        "spec": {**template["spec"], "restartPolicy": "Never"},
    }
    cluster.kubectl("create", "-f", "-", input=json.dumps(pod))
    try:
        done = "--for=jsonpath={.status.phase}=Succeeded"
        cluster.kubectl("-n", NAMESPACE, "wait", "pod/intruder", done, "--timeout=120s")
        said = cluster.kubectl("-n", NAMESPACE, "logs", "intruder")
    finally:
        cluster.kubectl("-n", NAMESPACE, "delete", "pod", "intruder", "--wait=true")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def test_no_token_is_there(attacked: dict[str, Any]) -> None:
    assert attacked["token"] is False


def test_the_api_server_answers_nothing_but_no(attacked: dict[str, Any]) -> None:
    answers = {k: v for k, v in attacked.items() if k.startswith(("GET ", "POST "))}
    assert len(answers) == 6
    assert set(answers.values()) <= {401, 403}


def test_the_node_s_kubelet_answers_nothing_but_no(attacked: dict[str, Any]) -> None:
    assert {attacked["kubelet"], attacked["kubelet exec"]} <= {401, 403}


def test_it_is_nobody_and_can_change_nothing_of_its_image(attacked: dict[str, Any]) -> None:
    assert attacked["uid"] == 65532
    assert not any(could for name, could in attacked.items() if name.startswith("writes "))


def test_no_log_of_the_whole_story_holds_a_password(demo: DemoRun) -> None:
    kubectl = demo.cluster.kubectl
    secret = json.loads(
        kubectl("-n", NAMESPACE, "get", "secret", "selfheal-rabbitmq", "-o", "json")
    )
    words = [
        base64.b64decode(secret["data"][key]).decode() for key in ("password", "monitor-password")
    ]
    pods = json.loads(kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]
    logs = {
        pod["metadata"]["name"]: kubectl(
            *("-n", NAMESPACE, "logs", pod["metadata"]["name"], "--all-containers")
        )
        for pod in pods
        # One that the autoscaler makes or takes away at this moment may have no log.
        if pod["status"]["phase"] != "Pending" and "deletionTimestamp" not in pod["metadata"]
    }
    assert any(logs.values())
    assert [name for name, log in logs.items() if any(word in log for word in words)] == []
    events = kubectl("get", "events", "--all-namespaces", "-o", "json")
    assert not any(word in events for word in (*words, *map(_encoded, words)))


def _encoded(word: str) -> str:
    return base64.b64encode(word.encode()).decode()
