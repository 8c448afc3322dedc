"""Releases of the overlay ``production`` on a cluster, deployed as release.yml does, with the deployer's rights.

The store is that of the component local-log. GitHub is the stand-in of tests/repo/gh, which knows the releases.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import deploy, manifests, release, release_facts, sealed

from .cluster import BEFORE, ROOT, Object, Space, kubectl, manifest_of, rendered

OVERLAY = "production"
TOKEN = "the-token-of-the-tests-1"  # noqa: S105 - opens nothing else
NEW_TOKEN = "the-token-of-the-tests-2"  # noqa: S105
WAIT = "45s"  # for a rollout that never ends


def tokens(space: Space, *known: str) -> None:
    """Set the tokens that the service takes."""
    callers = {f"caller-{n}": {"token": token, "scopes": ["score", "feedback"]} for n, token in enumerate(known)}
    one = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "score-tokens"}}
    space.apply([one | {"stringData": {"tokens.json": json.dumps(callers)}}])


def of_store(one: Object) -> bool:
    """Whether an object is the store's, which stands in for one outside the cluster: no release deploys it."""
    return one["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "local-log"


class Releases:
    """What release.yml and rollback.yml do, in a folder of their own and in a namespace of the tests."""

    def __init__(self, space: Space, folder: Path, patch: pytest.MonkeyPatch, manifest: dict[str, Any]) -> None:
        self._space, self._state = space, folder / "gh.json"
        self._manifest = manifest
        self.before = ""  # the image of the release before
        patch.chdir(folder)
        (folder / "bin").mkdir()
        program = folder / "bin/gh"
        program.write_text(f"#!{sys.executable}\n" + (ROOT / "tests/repo/gh").read_text(encoding="utf-8"))
        program.chmod(0o755)
        self._state.write_text(json.dumps({"calls": [], "api": {"releases": []}, "assets": {}}))
        as_deployer = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "--output", "json"))
        as_deployer["users"][0]["user"] |= {"as": "e2e", "as-groups": ["closedloop-deployers", "system:authenticated"]}
        (folder / "deployer.json").write_text(json.dumps(as_deployer))
        self.environment = {
            "KUBECONFIG": str(folder / "deployer.json"),
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "GH_STATE": str(self._state),
            "GITHUB_REPOSITORY": "someone/fleet",
            "PRIVATE": "false",  # the stand-in of gh says of everything that it is attested
            "OVERLAY": OVERLAY,
            "SMOKE_TOKEN": TOKEN,
        }

    def publish(self, tag: str, image: str, served: bool = True, k8s: Path = manifests.K8S) -> None:
        """Publish a release of an image: its manifests, by default this commit's, and the facts in its text."""
        shutil.rmtree(release.FILES, ignore_errors=True)
        release.FILES.mkdir(parents=True)
        every = self._space.moved(rendered(OVERLAY, ("local-log",), image, k8s))
        text = yaml.safe_dump_all([one for one in every if not of_store(one)])
        manifest = manifest_of(image) if image == BEFORE else self._manifest
        (release.FILES / f"manifests-{OVERLAY}.yaml").write_text(text, encoding="utf-8")
        facts = {
            "closedloop": release_facts.FORMAT,
            "tag": tag,
            "commit": manifest["provenance"]["commit"],
            "image": image,
            "bundle_digest": manifest["bundle_digest"],
            "model_digest": manifest["model_digest"],
            "files": sealed.digests(release.FILES),
            "served": release_facts.now() if served else None,
        }
        release.FACTS.write_text(json.dumps(facts), encoding="utf-8")
        state = json.loads(self._state.read_text())
        one = {"tag_name": tag, "body": release_facts.block(facts), "draft": False, "id": len(state["assets"])}
        state["api"]["releases"].insert(0, one)
        state["api"][f"git/ref/tags/{tag}"] = {"object": {"sha": facts["commit"], "type": "commit"}}
        state["assets"][tag] = {path.name: path.read_text(encoding="utf-8") for path in release.FILES.iterdir()}
        self._state.write_text(json.dumps(state))
        self.environment["RELEASE"] = tag

    def run(self, command: str, **environment: str) -> None:
        """Run a command of pipeline/deploy.py in this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**self.environment, **environment}.items():
                patch.setenv(name, value)
            patch.setattr(deploy, "TIMEOUT", WAIT if environment.get("GIVES_UP") else deploy.TIMEOUT)
            {"apply": deploy.apply, "fetch": deploy.fetch, "served": deploy.served, "smoke": deploy.smoke}[command]()


def prepare(space: Space) -> None:
    """Make what an administrator makes before the first release: the role, the tokens, and here the store."""
    right = yaml.safe_load_all(manifests.render(manifests.K8S / "cluster" / OVERLAY))
    space.apply(list(right))
    tokens(space, TOKEN)
    space.apply([one for one in rendered(OVERLAY, ("local-log",)) if of_store(one)])
