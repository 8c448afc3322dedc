"""A proxy that serves a Gateway: Traefik, built from the locked Go modules of ``gateway_proxy``.

It runs in a namespace of its own, as the proxies of most Gateway controllers do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from .cluster import DOCKER, MANAGER, Object, Space, kubectl, load, namespace

MODULE = Path(__file__).parent / "gateway_proxy"
PROGRAM = "github.com/traefik/traefik/v3/cmd/traefik"
NAME = "closedloop-e2e-gateway:1"
CONTROLLER = "traefik.io/gateway-controller"
PORTS = {"http": 80, "https": 443}
BUILT_S = 900  # on two cores, of which others may be using one


def missing() -> str:
    """Why the proxy cannot be built here, or nothing."""
    gone = [name for name in ("go", "openssl") if shutil.which(name) is None]
    return f"{' and '.join(gone)} not on PATH" if gone else ""


def _run(words: list[str], seconds: float, **more: Any) -> None:
    """Run a command; its error is the test's."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds, **more)
    assert done.returncode == 0, f"{' '.join(words[:3])}: {done.stderr.strip()}"


def image() -> str:
    """Build the proxy's image, and load it into the cluster; its name."""
    with tempfile.TemporaryDirectory() as folder:
        build = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", f"{folder}/traefik", PROGRAM]
        _run(build, BUILT_S, cwd=MODULE, env=os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly"})
        Path(folder, "Dockerfile").write_text("FROM scratch\nCOPY traefik /traefik\n", encoding="utf-8")
        _run([DOCKER, "build", "--quiet", "--tag", NAME, folder], 300)
    load(NAME)
    return NAME


def certificate(host: str) -> tuple[str, str]:
    """A certificate of its own signing for one name, and its key, as PEM."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, "certificate.pem"), Path(folder, "key.pem")]
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", f"/CN={host}"]
        words += ["-addext", f"subjectAltName=DNS:{host}", "-out", str(files[0]), "-keyout", str(files[1])]
        _run(words, 60)
        return files[0].read_text(encoding="utf-8"), files[1].read_text(encoding="utf-8")


def rights(space: Space, class_name: str) -> list[Object]:
    """What the proxy may read of the cluster, and the class by which it takes Gateways; objects of no namespace."""
    read = ["get", "list", "watch"]
    rules = [
        {"apiGroups": [""], "resources": ["namespaces", "services", "secrets", "configmaps"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        {"apiGroups": ["gateway.networking.k8s.io"], "resources": ["*"], "verbs": [*read, "update"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    named = {"metadata": {"name": space.name}}
    return [
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", **named, "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            **named,
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": space.name},
            "subjects": [{"kind": "ServiceAccount", "name": "proxy", "namespace": space.name}],
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "GatewayClass",
            "metadata": {"name": class_name},
            "spec": {"controllerName": CONTROLLER},
        },
    ]


def proxy(watched: str) -> list[Object]:
    """The proxy with the label that the Gateway API gives to the pods of a Gateway, its account and its service."""
    labels = {"app": "proxy", "gateway.networking.k8s.io/gateway-name": "score"}
    container = {
        "name": "traefik",
        "image": NAME,
        "command": ["/traefik"],
        "args": [
            *(f"--entrypoints.{name}.address=:{port}" for name, port in PORTS.items()),
            "--providers.kubernetesgateway=true",
            f"--providers.kubernetesgateway.namespaces={watched}",
            "--global.checknewversion=false",
            "--ping=true",
            "--entrypoints.traefik.address=:8080",
            "--log.level=INFO",
        ],
        "readinessProbe": {"httpGet": {"path": "/ping", "port": 8080}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
    }
    pod = {
        "serviceAccountName": "proxy",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
        },
        "containers": [container],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    selector = {"matchLabels": {"app": "proxy"}}
    ports = [{"name": name, "port": port} for name, port in PORTS.items()]
    named = {"metadata": {"name": "proxy"}}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", **named},
        {"apiVersion": "v1", "kind": "Service", **named, "spec": {"selector": {"app": "proxy"}, "ports": ports}},
        {"apiVersion": "apps/v1", "kind": "Deployment", **named, "spec": {"selector": selector, "template": template}},
    ]


@contextmanager
def running(served: Space, class_name: str) -> Iterator[Space]:
    """Run a proxy for the Gateways of one namespace; its own namespace."""
    image()
    with namespace("gateway") as space:
        own = rights(space, class_name)
        names = [f"{one['kind'].lower()}/{one['metadata']['name']}" for one in own]
        try:
            words = ("apply", "--server-side", f"--field-manager={MANAGER}", "--validate=strict", "--filename", "-")
            kubectl(*words, stdin=yaml.safe_dump_all(own))
            space.apply(proxy(served.name))
            space.rolled_out("deployment/proxy")
            yield space
        finally:
            kubectl("delete", "--ignore-not-found", *names)
