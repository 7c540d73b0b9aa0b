"""kill -9 at each change that a ladder makes: each step runs once, and the next process continues.

The short form kills at a few seeded changes; SELFHEAL_LONG=1 kills at every one, in each of three
ways. The Jobs' controller is the real one and KWOK completes their pods; what the other systems
do, the test does.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import yaml

from ci.parts import ensure
from selfheal_remediator.kube.objects import Json
from selfheal_remediator.node.annotation import STEP_OBJECT_KEY
from tests.control_plane.conftest import Stages
from tests.control_plane.kill_at_call import LEASE, Story, kill_everywhere
from tests.control_plane.machines import CRDS, machine_type
from tests.control_plane.permissions import Rules, chart_permissions
from tests.control_plane.site import STATE, Site
from tests.control_plane.test_steps_of_others import (
    MACHINE,
    MACHINE_SET,
    REMEDIATE,
    SNR,
    collection,
    crd,
    machine_of,
    served,
)
from tests.control_plane.world import World
from tests.support.waiting import until

SHORT = 5
ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"
JOB = {"template": {"spec": {"containers": [{"name": "c", "image": "none"}]}}}


def test_killed_at_any_change_each_step_runs_once(stages: Stages) -> None:
    kill_everywhere(stages, _Ladder, "ladder", SHORT)


def _rule(namespace: str, url: str, secret: str) -> Json:
    """A rule with each kind of step, none of which waits for new evidence."""
    remediation = {
        "apiVersion": f"{SNR[0]}/{SNR[1]}",
        "kind": SNR[2],
        "metadata": {"name": "{node}", "namespace": namespace},
    }
    resource = {"template": remediation, "succeeded": {"condition": "Succeeded"}, "cleanUp": True}
    steps: list[Json] = [
        {"wait": "1s"},
        {"webhook": {"url": url, "secretFile": secret}},
        {"resource": resource},
        {"machine": {"mode": "remediate", "namespace": namespace}},
        {"job": JOB},
    ]
    return {
        "condition": "TestFault",
        "for": "50ms",
        "action": "drain",
        "heartbeat": None,
        "then": [{**step, "settle": "0s"} for step in steps],
        "verify": {"job": JOB},
    }


@cache
def _permissions() -> Rules:
    """What the chart grants for the rule."""
    place = "ladder"
    rule = _rule(place, "http://127.0.0.1:8080/", "/secret")
    with TemporaryDirectory() as folder:
        values = Path(folder) / "values.yaml"
        about = {"config": {"rules": [rule]}, "externalConditions": [rule["condition"]]}
        values.write_text(yaml.safe_dump({"remediator": about}))
        helm = ensure(["helm"])["helm"]
        return chart_permissions(helm, "--namespace", place, "--values", str(values))


class _Hook(BaseHTTPRequestHandler):
    server: "_HookServer"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.ids.append(self.headers["webhook-id"])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


class _HookServer(ThreadingHTTPServer):
    """Keeps the id of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Hook)
        self.ids: list[str] = []

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Its URL."""
        Thread(target=self.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{self.server_port}/"
        finally:
            self.shutdown()
            self.server_close()


class _Ladder(Story):
    """A node is drained, repaired by five steps, verified and uncordoned."""

    changes_only = True

    def __init__(self, site: Site, number: int, way: str) -> None:
        super().__init__(site, number, way)
        self.world = World(site, self._begun_while_attached, self._noted)
        self._bad = f"{site.name}-0"
        self._attached = True
        self._notes: dict[str, set[str]] = {}
        self._hook = _HookServer()

    # -- what must never be seen ----------------------------------------------------------

    def _begun_while_attached(self, nodes: dict[str, Json]) -> str:
        begun = self._attached and "steps" in _state(nodes[self._bad])
        return "a step was begun while a volume was attached" if begun else ""

    def _noted(self, nodes: dict[str, Json]) -> str:
        """A step of an occurrence has one object; others than Jobs are noted by stages."""
        note = _annotations(nodes[self._bad]).get(STEP_OBJECT_KEY, "")
        occurrence, _, uid = note.partition(" ")
        uids = self._notes.setdefault(occurrence, set())
        if "-" in uid:
            uids.add(uid)
        return f"two objects of one step: {uids}" if len(uids) > 1 else ""

    # -- the story ------------------------------------------------------------------------

    def tell(self) -> None:
        site = self.site
        with self._hook.serving() as url:
            config, machine, attachment = self._scene(url)
            try:
                self._repaired(config, machine, attachment)
                self._judge(machine)
            finally:
                site.patch(machine, {"metadata": {"finalizers": None}})
                site.delete(attachment)

    def _repaired(self, config: Path, machine: str, attachment: str) -> None:
        site, bad = self.site, self._bad
        with self.world.watched():
            self.start(config)
            site.condition(bad, "True")
            self.until(config, "it waits", lambda: "VolumesAttached" in site.events(bad))
            assert site.pods(bad) == []
            self._attached = False
            site.delete(attachment)
            self.until(config, "the Jobs' end", lambda: self._others_act(machine))
            site.condition(bad, "False")
            self.until(config, "in service", self._in_service)
        self.wrongs += self.world.wrongs

    def _scene(self, url: str) -> tuple[Path, str, str]:
        site = self.site
        _serve_types(site)
        _grant(site)
        for node in site.nodes(2):
            site.pod(f"pod-{node[-1]}", node)
        machine = machine_of(site, self._bad)
        source = {"persistentVolumeName": site.name}
        spec = {"attacher": "test.selfheal.dev", "nodeName": self._bad, "source": source}
        site.create(ATTACHMENTS, {"metadata": {"name": site.name}, "spec": spec})
        secret = site.folder / "secret"
        secret.write_text(f"whsec_{base64.b64encode(bytes(32)).decode()}\n")
        config = site.config(
            rules=[_rule(site.name, url, str(secret))],
            recovery={"stabilizationWindow": "50ms"},
            drain={"unmanagedPods": "evict"},
            signal={"enabled": False},
            lease=LEASE,
        )
        return config, machine, f"{ATTACHMENTS}/{site.name}"

    def _others_act(self, machine: str) -> bool:
        """What operators and Cluster API do; whether the step's Job is complete."""
        site = self.site
        path = collection(site, *SNR)
        for raw in site.api.get(path)["items"]:
            if "status" not in raw:
                fenced = {"type": "Succeeded", "status": "True"}
                one = f"{path}/{raw['metadata']['name']}"
                answer = site.api.send(
                    *("PATCH", f"{one}/status"),
                    body={"status": {"conditions": [fenced]}},
                    content_type="application/merge-patch+json",
                )
                assert answer.ok or answer.status == 404, answer.failure()
        if REMEDIATE in _annotations(site.api.get(machine)):
            booted = {"status": {"nodeInfo": {"bootID": "another"}}}
            site.patch(f"/api/v1/nodes/{self._bad}/status", booted)
        return any(map(_complete, _jobs(site)))

    def _in_service(self) -> bool:
        node = self.world.objects[self._bad]
        return not node["spec"].get("unschedulable") and _state(node)["phase"] == "healed"

    def _judge(self, machine: str) -> None:
        """What was done, and what is left of it."""
        site = self.site
        jobs = self._carried_out(f"POST /apis/batch/v1/namespaces/{site.name}/jobs")
        there = {job["metadata"]["uid"] for job in _jobs(site)}
        remediations = collection(site, *SNR)
        made = self._carried_out(f"POST {remediations}")
        marks = self._carried_out(f"PATCH {machine}")
        noted = {uid for uids in self._notes.values() for uid in uids}
        node = site.get_node(self._bad)
        wanted = {
            # One is the ladder's, one that of `verify`.
            f"Jobs: created {jobs}, there {there}": len(jobs) == 2 and set(jobs) == there,
            "a Job has not ended": all(map(_complete, _jobs(site))),
            f"noted {noted}, created {jobs}": noted <= set(jobs),
            f"remediations created: {made}": len(made) == 1,
            "a remediation is left": not site.api.get(remediations)["items"],
            f"not marked and unmarked once: {marks}": len(marks) == 2,
            "the Machine is marked": REMEDIATE not in _annotations(site.api.get(machine)),
            f"webhooks: {self._hook.ids}": len(set(self._hook.ids)) == 1,
            "the node has a step's note": STEP_OBJECT_KEY not in _annotations(node),
            f"steps are left in {_state(node)}": "steps" not in _state(node),
            "a pod of the other node was evicted": len(site.pods(f"{site.name}-1")) == 1,
        }
        self.wrongs += [text for text, holds in wanted.items() if not holds]

    def _carried_out(self, request: str) -> list[str]:
        """The uids of the objects in the answers."""
        version = request.replace("/v1beta2/", "/v1beta1/")  # whichever is preferred
        return [uid for done, uid in self.proxy.changed if done in (request, version)]


def _serve_types(site: Site) -> None:
    for definition in (crd(*SNR), crd(*MACHINE_SET), machine_type()):
        answer = site.api.send("POST", CRDS, body=definition)
        assert answer.ok or answer.status == 409, answer.failure()
    for kind in (SNR, MACHINE_SET, MACHINE):
        path = collection(site, *kind)
        until(f"{kind[2]} is served", partial(served, site, path))


def _grant(site: Site) -> None:
    """What the chart grants for the rule, instead of what it grants without."""
    group = "/apis/rbac.authorization.k8s.io/v1"
    for kind, place in (("ClusterRole", group), ("Role", f"{group}/namespaces/{site.name}")):
        path = f"{place}/{kind.lower()}s/{site.name}-remediator"
        site.patch(path, {"rules": _permissions()[kind]})


def _jobs(site: Site) -> list[Json]:
    found: list[Json] = site.api.get(f"/apis/batch/v1/namespaces/{site.name}/jobs")["items"]
    return found


def _complete(job: Json) -> bool:
    conditions = (job.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Complete" and one["status"] == "True" for one in conditions)


def _annotations(raw: Json) -> dict[str, Any]:
    found: dict[str, Any] = raw["metadata"].get("annotations") or {}
    return found


def _state(node: Json) -> Json:
    text = _annotations(node).get(STATE)
    return json.loads(text) if text else {}
