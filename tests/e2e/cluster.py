"""A Kubernetes cluster that tests may change: kubectl, a namespace of their own, and this repository's manifests in it.

The tests use the cluster of kubectl's current context, and only where nobody can be harmed: its name begins with
``kind-``, or CONTEXT repeats it. LOAD is the command that brings an image into the nodes (of kind it is known).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from pipeline import manifests, release

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = Path(__file__).parent / "in_pod"
IMAGE = os.environ.get("IMAGE", "closedloop:dev")
BEFORE = "closedloop:before"  # what `make before` made, with build/before beside it
DOCKER = os.environ.get("DOCKER", "docker")
MANAGER = "closedloop-e2e"
RATE = 200  # requests a second of every load
PATIENCE_S = 180  # for a rollout, on a busy machine
STORED_S = 90  # until all that was acknowledged is in the tables


def kubectl(*words: str, stdin: str | None = None, timeout: float = 300) -> str:
    """Standard output of kubectl; its error is the test's."""
    done = subprocess.run(
        ["kubectl", *words], input=stdin, capture_output=True, text=True, check=False, timeout=timeout
    )
    assert done.returncode == 0, f"kubectl {' '.join(words[:6])}: {done.stderr.strip() or done.stdout.strip()}"
    return done.stdout


def unusable() -> tuple[str, str]:
    """Why there is no cluster to test on, and why the one there is must not be used; empty where it is fine."""
    if os.environ.get("E2E") != "1":
        return "it changes a cluster, so it runs by `make e2e` only", ""
    if shutil.which("kubectl") is None:
        return "kubectl is not on PATH", ""
    done = subprocess.run(["kubectl", "config", "current-context"], capture_output=True, text=True, check=False)
    name = done.stdout.strip()
    if not name:
        return "kubectl has no current context", ""
    if not name.startswith("kind-") and os.environ.get("CONTEXT") != name:
        return (
            "",
            f"kubectl's context is {name!r}, not one of kind: to change that cluster, say make e2e CONTEXT={name}",
        )
    done = subprocess.run(["kubectl", "version", "--request-timeout=10s"], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"the cluster of the context {name!r} does not answer: {done.stderr.strip().splitlines()[-1]}", ""
    return "", ""


def load(*images: str) -> None:
    """Bring images into the cluster's nodes."""
    name = kubectl("config", "current-context").strip()
    if command := os.environ.get("LOAD"):
        words = shlex.split(command)
    elif name.startswith("kind-"):
        words = ["kind", "load", "docker-image", "--name", name.removeprefix("kind-")]
    else:
        return  # its nodes have them, or pull them
    done = subprocess.run([*words, *images], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"


def derived(name: str, *lines: str) -> str:
    """Build an image upon IMAGE by lines of a Dockerfile, and load it; its name."""
    text = "\n".join([f"FROM {IMAGE}", *lines, ""])
    words = [DOCKER, "build", "--quiet", "--tag", name, "-"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    load(name)
    return name


def until(fine: Callable[[], Any], seconds: float, what: Callable[[], Any] | str) -> None:
    """Wait until something holds; fail with what there is instead."""
    deadline = time.monotonic() + seconds
    while not fine():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s: {what() if callable(what) else what}")
        time.sleep(0.5)


def nodes() -> list[str]:
    """The names of the nodes that take pods."""
    found = json.loads(kubectl("get", "nodes", "--output", "json"))["items"]
    return [one["metadata"]["name"] for one in found if not one["spec"].get("taints")]


def storage_class() -> str:
    """The class of volumes for the tests: one that shows a missing fsGroup, where the cluster has it."""
    found = kubectl("get", "storageclasses", "--output", "jsonpath={.items[*].metadata.name}").split()
    return "strict" if "strict" in found else "standard"


def manifest_of(image: str) -> Object:
    """The manifest of the bundle in an image."""
    words = [DOCKER, "run", "--rm", "--network", "none", "--entrypoint", "cat", image, "/model/manifest.json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    found: Object = json.loads(done.stdout)
    return found


def rendered(
    overlay: str, components: tuple[str, ...] = (), image: str = IMAGE, k8s: Path = manifests.K8S
) -> list[Object]:
    """The objects of an overlay with an image, as a release renders them, on volumes of this cluster."""
    folder = k8s / "overlays" / overlay
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifests, "K8S", k8s)
        text = manifests.combined(folder, components) if components else manifests.render(folder)
    objects: list[Object] = list(yaml.safe_load_all(release.with_digest(text, image)))
    for one in objects:
        for claim in one.get("spec", {}).get("volumeClaimTemplates", []):
            claim["spec"]["storageClassName"] = storage_class()
    return objects


@dataclass(eq=False)
class Space:
    """A namespace of the tests' own, with Pod Security as k8s/cluster has it."""

    name: str
    reports: dict[str, Any] = field(default_factory=dict)

    def __call__(self, *words: str, stdin: str | None = None, timeout: float = 300) -> str:
        """Standard output of kubectl in this namespace."""
        return kubectl("--namespace", self.name, *words, stdin=stdin, timeout=timeout)

    def moved(self, objects: list[Object]) -> list[Object]:
        """The objects in this namespace; a Namespace among them is left out."""
        kept = [one for one in objects if one["kind"] != "Namespace"]
        return [one | {"metadata": one["metadata"] | {"namespace": self.name}} for one in kept]

    def apply(self, objects: list[Object], *words: str) -> str:
        """Apply objects on the server's side; what kubectl says."""
        text = yaml.safe_dump_all(self.moved(objects))
        force = ("--server-side", "--force-conflicts", f"--field-manager={MANAGER}", "--validate=strict")
        return self("apply", *force, *words, "--filename", "-", stdin=text)

    def rolled_out(self, workload: str = "statefulset/score") -> None:
        """Wait until a workload has rolled out; fail with the pods' state."""
        try:
            self("rollout", "status", workload, f"--timeout={PATIENCE_S}s", timeout=PATIENCE_S + 30)
        except AssertionError as error:
            said = self("get", "events,pods", "--output", "wide")
            raise AssertionError(f"{error}\n{said}\n{self.logs()}") from None

    def logs(self) -> str:
        """The last lines of every replica."""
        return self("logs", "--selector", "app.kubernetes.io/component=score", "--tail=20", "--prefix")

    def replicas(self) -> dict[str, Object]:
        """The pods of the service, by name."""
        found = json.loads(self("get", "pods", "--selector", "app.kubernetes.io/component=score", "--output", "json"))
        return {one["metadata"]["name"]: one for one in found["items"]}

    def ready(self) -> list[str]:
        """The names of the replicas that are ready."""
        return [
            name
            for name, one in self.replicas().items()
            if any(c["type"] == "Ready" and c["status"] == "True" for c in one.get("status", {}).get("conditions", []))
            and "deletionTimestamp" not in one["metadata"]
        ]

    def python(self, pod: str, script: str, *words: str, timeout: float = 120) -> str:
        """What a script of ``in_pod`` prints in a pod, which gets it over standard input."""
        text = (SCRIPTS / script).read_text(encoding="utf-8")
        return self("exec", "--stdin", pod, "--", "python", "-", *words, stdin=text, timeout=timeout)

    def ask(self, path: str, body: Any = None, pod: str = "client", **headers: str) -> tuple[int, Any]:
        """Status and body of an answer of ``http://score`` (or of a URL) to the client's pod; status 0: no answer."""
        url = path if "://" in path else f"http://score{path}"
        asked = json.dumps({"url": url, "body": body, "headers": {k.replace("_", "-"): v for k, v in headers.items()}})
        status, text = json.loads(self.python(pod, "ask.py", asked))
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def rows(self, table: str = "requests") -> Counter[str]:
        """How often each request id is in a table of the log; any replica reads it."""
        pod = self.ready()[0]
        return Counter(self.python(pod, "rows.py", table, timeout=300).split())

    @contextmanager
    def load(
        self, name: str, headers: dict[str, str] | None = None, rate: float = RATE, may_fail: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Score at a steady rate while the block runs. Then the report is filled; nothing may have failed."""
        said = json.dumps({"name": name, "rate": rate, "headers": headers or {}})
        words = ["kubectl", "--namespace", self.name, "exec", "client", "--", "python", "/in_pod/load.py", said]
        report: dict[str, Any] = {}
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            try:
                time.sleep(3)  # some requests before, and some after what is done to the service
                yield report
                time.sleep(3)
            finally:
                self("exec", "client", "--", "touch", f"/scratch/{name}.stop")
                output, _ = process.communicate(timeout=120)
        report |= json.loads(output)
        self.reports[name] = report
        counts = {key: len(value) if isinstance(value, list) else value for key, value in report.items()}
        print(f"\n{name}: {counts}")
        assert may_fail or report["failed"] == [], report["failed"][:5]
        assert report["acknowledged"], report

    def accounted(self, *names: str) -> None:
        """Check that every acknowledged request of some loads is in the table exactly once, and no other twice."""
        sent = [one for name in names for one in self.reports[name]["acknowledged"]]
        until(
            lambda: not set(sent) - set(self.rows()), STORED_S, lambda: f"{len(set(sent) - set(self.rows()))} missing"
        )
        twice = {one: count for one, count in self.rows().items() if count != 1}
        assert twice == {}


def start_client(space: Space) -> None:
    """Start the pod of the client: IMAGE's Python with the scripts of ``in_pod``."""
    scripts = {path.name: path.read_text(encoding="utf-8") for path in SCRIPTS.glob("*.py")}
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "in-pod"}, "data": scripts},
        client("client"),
    ]
    space.apply(objects)
    space("wait", "pod/client", "--for=condition=Ready", "--timeout=120s")


def client(name: str) -> Object:
    """A pod with IMAGE's Python that waits to be told what to do."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "client",
                    "image": IMAGE,
                    "command": ["python", "-c", "import signal; signal.pause()"],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                    "volumeMounts": [
                        {"name": "in-pod", "mountPath": "/in_pod"},
                        {"name": "scratch", "mountPath": "/scratch"},
                    ],
                }
            ],
            "volumes": [
                {"name": "in-pod", "configMap": {"name": "in-pod", "optional": True}},
                {"name": "scratch", "emptyDir": {"sizeLimit": "16Mi"}},
            ],
        },
    }


@contextmanager
def namespace(suffix: str) -> Iterator[Space]:
    """Make a namespace with the labels of k8s/cluster, and remove it with all that is in it."""
    name = f"closedloop-e2e-{suffix}-{uuid4().hex[:6]}"
    one = yaml.safe_load((manifests.K8S / "cluster/namespace/namespace.yaml").read_text(encoding="utf-8"))
    one["metadata"]["name"] = name
    kubectl("create", "--filename", "-", stdin=yaml.safe_dump(one))
    try:
        yield Space(name)
    finally:
        kubectl("delete", "namespace", name, "--wait=false")
