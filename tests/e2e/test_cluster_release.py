"""Releases on a real cluster under load, deployed as release.yml does: two replicas whose logs go to one store.

The overlay is ``production`` with local-log for the store. The first release is what this change would replace, which
`make before` got: the served release, or the base of the change. Each test leaves two ready replicas. What was
acknowledged in all of them is in the store's table exactly once, which the last test looks at.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import github, manifests

from . import alerts
from .cluster import (
    BEFORE,
    IMAGE,
    PATIENCE_S,
    ROOT,
    Space,
    client,
    derived,
    kubectl,
    load,
    namespace,
    nodes,
    rendered,
    start_client,
    until,
)
from .releases import NEW_TOKEN, TOKEN, Releases, prepare, tokens

BEARER = {"Authorization": f"Bearer {TOKEN}"}
DRAINS = int(os.environ.get("DRAINS", "5"))  # daily.yml drains more often
OLD = ROOT / "build/before"


@pytest.fixture(scope="module")
def space(cluster: None) -> Iterator[Space]:
    """A namespace with what stands there before the first release, and a client."""
    with namespace("release") as made:
        prepare(made)
        start_client(made)
        try:
            made.rolled_out("deployment/azurite")
        except AssertionError as error:
            if "ErrImagePull" in str(error) or "ImagePullBackOff" in str(error):
                pytest.skip("Azurite's image can neither be pulled nor is it in the nodes")
            raise
        yield made


@pytest.fixture(scope="module")
def releases(space: Space, tmp_path_factory: pytest.TempPathFactory, manifest: dict[str, Any]) -> Iterator[Releases]:
    """The release before this one, deployed; its smoke test is fine."""
    file = OLD / "before.json"
    if not file.exists() and os.environ.get("CI"):
        pytest.fail("make before has not run")
    found = json.loads(file.read_text()) if file.exists() else {"what": "make before has not run", "commit": ""}
    if found["commit"]:
        what, image, k8s = found["what"], BEFORE, OLD / "k8s"
        load(image)
        store = "components/local-log"  # of this commit, since it only stands in for a store
        shutil.copytree(manifests.K8S / store, k8s / store, dirs_exist_ok=True)
    else:
        what, k8s = f"the image under test itself ({found['what']})", manifests.K8S
        image = derived("closedloop:e2e-before", "LABEL e2e=before")
    print(f"\nthe release before is {what}")
    with pytest.MonkeyPatch.context() as patch:
        made = Releases(space, tmp_path_factory.mktemp("release"), patch, manifest)
        made.before = image
        made.publish("r0", image, k8s=k8s)
        made.run("apply")
        made.run("smoke")
        yield made


def images(space: Space) -> set[str]:
    """What each replica says of its image."""
    names = [f"http://{name}.score-replicas:8000/version" for name in space.ready()]
    return {space.ask(name)[1]["image"] for name in names}


MAY = ["patch statefulsets.apps", "create services", "list pods", "create pods/portforward", "watch statefulsets.apps"]
MAY_NOT = [
    "get secrets",
    "create pods",
    "create pods/exec",
    "get pods/log",
    "delete statefulsets.apps",
    "delete persistentvolumeclaims",
    "patch persistentvolumeclaims",
    "create rolebindings.rbac.authorization.k8s.io",
    "patch roles.rbac.authorization.k8s.io",
    "patch namespaces",
    "create serviceaccounts/token",
    "patch nodes",
]


def test_the_deployer_may_deploy_and_nothing_more(space: Space, releases: Releases) -> None:
    """In its namespace; and nothing at all in another."""

    def may(what: str, namespace: str) -> bool:
        who = ("--as", "e2e", "--as-group", "closedloop-deployers", "--namespace", namespace)
        words = what.replace("/", " --subresource ").split()
        done = subprocess.run(["kubectl", "auth", "can-i", *words, *who], capture_output=True, text=True, check=False)
        assert done.stdout.strip() in ("yes", "no"), done.stderr
        return done.stdout.strip() == "yes"

    assert [what for what in MAY if not may(what, space.name)] == []
    assert [what for what in MAY_NOT if may(what, space.name)] == []
    assert [what for what in MAY if may(what, "default")] == []


def test_the_smoke_test_leaves_no_row(space: Space, releases: Releases) -> None:
    assert len(space.ready()) == 2
    assert images(space) == {releases.before}
    counts = [space.ask(f"http://{name}.score-replicas:8000/metrics")[1] for name in space.ready()]
    assert any("closedloop_log_dry_run_total 1.0" in text for text in counts)
    assert all("closedloop_log_records_total 0.0" in text for text in counts)


def test_an_upgrade_fails_no_request(space: Space, releases: Releases) -> None:
    releases.publish("r1", IMAGE)
    with space.load("upgrade", BEARER):
        releases.run("apply")
    releases.run("smoke")
    assert images(space) == {IMAGE}


def test_a_broken_bundle_is_held_and_taken_back(space: Space, releases: Releases) -> None:
    """It is never ready, so the rollout stops at the first replica, and what was served is applied again."""
    broken = derived("closedloop:e2e-broken", "USER 0", "RUN echo broken >> /model/manifest.json", "USER 65532:65532")
    releases.publish("r3", broken, served=False)
    with space.load("broken", BEARER):
        with pytest.raises(github.PipelineError, match="rollout status"):
            releases.run("apply", GIVES_UP="1")
        ready = space.ready()
        assert len(ready) == 1, ready
        assert images(space) == {IMAGE}
        releases.run("served")
    releases.run("smoke")
    assert images(space) == {IMAGE}


@pytest.mark.parametrize("tag", ["r0", "r1"])
def test_two_releases_by_turns_fail_no_request(space: Space, releases: Releases, tag: str) -> None:
    """A forced rollback to what was there before, as rollback.yml does it, and the newer release again.

    So the older service goes on with a log that the newer one wrote, and the newer one with both.
    """
    with space.load(f"turn-{tag}", BEARER):
        releases.run("fetch", RELEASE=tag)
        releases.run("apply", RELEASE=tag)
    releases.run("smoke")
    assert images(space) == {releases.before if tag == "r0" else IMAGE}


def test_drains_in_a_row_fail_no_request(space: Space, releases: Releases) -> None:
    """Nodes are drained and taken back in turns; a volume stays with its node, so its replica waits for that."""
    if len(nodes()) < 2:
        pytest.skip("a drain with a gap for nobody takes two nodes")
    with space.load("drains", BEARER):
        for turn in range(DRAINS):
            node = nodes()[turn % len(nodes())]
            try:
                selector = "--pod-selector=app.kubernetes.io/component=score"
                kubectl("drain", node, selector, "--delete-emptydir-data", "--timeout=120s")
            finally:
                kubectl("uncordon", node)
            until(lambda: len(space.ready()) == 2, PATIENCE_S, space.logs)


# --- the network ---


@pytest.fixture(scope="module")
def outside(cluster: None) -> Iterator[Space]:
    """Another namespace with a client, one that looks like a proxy of the Gateway, and a server."""
    with namespace("outside") as made:
        start_client(made)
        proxy = client("proxy")
        proxy["metadata"]["labels"] = {"gateway.networking.k8s.io/gateway-name": "score"}
        made.apply([proxy, listener()])
        made("wait", "pod/proxy", "pod/listener", "--for=condition=Ready", "--timeout=120s")
        yield made


def listener() -> dict[str, Any]:
    """A pod that anyone may call at port 8080."""
    made = client("listener")
    made["spec"]["containers"][0]["command"] = ["python", "-m", "http.server", "8080", "--directory", "/scratch"]
    return made


def address(space: Space, pod: str) -> str:
    """The address of a pod."""
    found: str = json.loads(space("get", "pod", pod, "--output", "json"))["status"]["podIP"]
    return found


def test_the_policies_allow_what_is_needed_and_nothing_else(space: Space, releases: Releases, outside: Space) -> None:
    gateway = [one for one in rendered("local", ("gateway", "monitoring/prometheus")) if one["kind"] == "NetworkPolicy"]
    space.apply([one for one in gateway if one["metadata"]["name"] == "gateway"])
    space.apply([listener()])
    space("wait", "pod/listener", "--for=condition=Ready", "--timeout=120s")
    first, second = (address(space, name) for name in ("score-0", "score-1"))
    azurite = f"azurite.{space.name}:10000"
    here, there = address(space, "listener"), address(outside, "listener")
    server = "kubernetes.default:443"
    tries = {
        (space, "client"): {
            "score:80": True, f"{first}:8000": True, f"{here}:8080": True, f"{there}:8080": True, server: True,
            azurite: False,
        },
        (outside, "client"): {
            f"{there}:8080": True, f"score.{space.name}:80": False, f"{first}:8000": False, f"{second}:8000": False,
            azurite: False,
        },
        (outside, "proxy"): {f"score.{space.name}:80": True, f"{first}:8000": True, azurite: False},
        (space, "score-0"): {
            azurite: True, f"{here}:8080": False, f"{there}:8080": False, f"{second}:8000": False, server: False,
        },
    }  # fmt: skip
    wrong: dict[tuple[str, str, Any], Any] = {}
    for (where, pod), expected in tries.items():
        found = json.loads(where.python(pod, "connect.py", *expected))
        wrong |= {(where.name, pod, place): fine for place, fine in found.items() if fine != expected[place]}
    assert wrong == {}
    count = sum(map(len, tries.values()))
    print(f"\n{count} connections tried")
    assert count >= 16


# --- the end ---


FLOOD = """
import urllib.error, urllib.request
for _ in range(200):
    asked = urllib.request.Request("http://score/score", b"{}", {"Authorization": "Bearer of-nobody"})
    try:
        urllib.request.urlopen(asked, timeout=10)
    except urllib.error.HTTPError as error:
        assert error.code == 401, error
    else:
        raise SystemExit("a token of nobody was taken")
"""


def test_who_tries_tokens_fires_an_alert(space: Space, releases: Releases, tmp_path: Path) -> None:
    """By what the replicas' own /metrics say before and after."""

    def tried() -> None:
        space("exec", "client", "--", "python", "-c", FLOOD)

    alerts.check(space, "ScoreUnauthorized", tmp_path, tried, "closedloop_auth_failures_total")


def test_a_store_that_is_gone_fires_an_alert(space: Space, releases: Releases, tmp_path: Path) -> None:
    """What is acknowledged then stays on the volumes, and goes to the store afterwards."""

    def gone() -> None:
        space("scale", "deployment/azurite", "--replicas=0")

    try:
        with space.load("store", BEARER, rate=20):
            alerts.check(space, "LogHalted", tmp_path, gone, "closedloop_log_ship_failures_total")
    finally:
        space("scale", "deployment/azurite", "--replicas=1")
        space.rolled_out("deployment/azurite")


def test_scaled_up_and_down_with_the_store_down_nothing_is_lost(space: Space, releases: Releases) -> None:
    """The replica that goes cannot reach the store: its log stays on its volume."""
    space("delete", "horizontalpodautoscaler", "score")
    with space.load("scaling", BEARER):
        space("scale", "statefulset/score", "--replicas=3")
        until(lambda: len(space.ready()) == 3, PATIENCE_S, space.logs)
        space("scale", "deployment/azurite", "--replicas=0")
        until(lambda: not json.loads(space("get", "endpoints", "azurite", "--output", "json")).get("subsets"), 60, "")
        space("scale", "statefulset/score", "--replicas=2")
        until(lambda: len(space.replicas()) == 2, PATIENCE_S, space.logs)
        space("scale", "deployment/azurite", "--replicas=1")
        space.rolled_out("deployment/azurite")


def test_a_job_ships_the_log_of_a_replica_that_is_gone(space: Space, releases: Releases) -> None:
    """Under the lock of the replica that wrote it, with its image and its rights."""
    said = space("get", "statefulset", "score", "--output", "json")
    program = [sys.executable, str(ROOT / "k8s/orphaned_log.py"), "log-score-2"]
    made = subprocess.run(program, input=said, capture_output=True, text=True, check=True).stdout
    before = len(space.rows())
    space("create", "--filename", "-", stdin=made)
    job = ("--selector", "app.kubernetes.io/component=orphaned-log")
    space("wait", "job", *job, "--for=condition=complete", "--timeout=120s")
    assert len(space.rows()) > before, space("logs", *job)


def test_tokens_change_without_a_restart(space: Space, releases: Releases) -> None:
    """The new token beside the old one first; then the old one goes. No request with a token that holds is refused."""
    _, body = space.ask("/example")

    def status(token: str) -> set[int]:
        places = [f"http://{name}.score-replicas:8000/score" for name in sorted(space.replicas())]
        headers = {"Authorization": f"Bearer {token}", "Closed_Loop_Dry_Run": "1"}
        return {space.ask(place, body, **headers)[0] for place in places}

    assert (status(TOKEN), status(NEW_TOKEN)) == ({200}, {401})
    with space.load("tokens", BEARER, rate=50):
        tokens(space, TOKEN, NEW_TOKEN)
        until(lambda: status(NEW_TOKEN) == {200}, 150, "the new token is not taken")
    tokens(space, NEW_TOKEN)
    until(lambda: status(TOKEN) == {401}, 150, "the old token is still taken")
    assert status(NEW_TOKEN) == {200}


def test_every_acknowledged_request_is_in_the_table_once(space: Space, releases: Releases) -> None:
    space.accounted(*space.reports)
    print(f"\n{sum(len(report['acknowledged']) for report in space.reports.values())} requests")
