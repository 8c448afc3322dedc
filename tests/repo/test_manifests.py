"""The manifests: every overlay, each component on each overlay and each pair of components holds together."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import yaml

from closedloop.log.sink import PREFIXES
from pipeline import manifests, release
from score.endpoints import PATHS
from score.metrics import Metrics
from score.model_counts import ModelCounts

from . import manifest_custom as custom
from . import manifest_later as later
from . import manifest_strict as strict
from . import schemas
from .manifest_later import LATER
from .manifest_mistakes import BASE, FULL, SCHEMA, Plant
from .manifest_rules import OF_THE_CLUSTER, Facts, Object, applied
from .manifest_strict_mistakes import STRICT


def faults(objects: list[Object], facts: Facts) -> list[str]:
    """What every rule says of the objects, one line each."""
    return [*custom.faults(objects, facts), *applied(later.RULES | strict.RULES, objects, facts)]


WITHOUT = "neither kustomize nor kubectl is on PATH"


def metrics() -> dict[str, set[str]]:
    """The series of a service that ships its log and asks for tokens, with their labels."""
    status = MagicMock()  # each figure is 1; only their names count
    status.served, status.model = {"model_digest": "m"}, ModelCounts(["c"], ["s"], "2015-01-01T00:00:00Z")
    status.model.newest, status.shipping = "2015-01-01T00:00:00Z", lambda: {"oldest_unsent_us": 1}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    made = Metrics(status)
    made.answered("/score", 200, 0.1)
    made.feedback_taken({"failures": 1})
    return {
        family.name + suffix: {name for one in family.samples for name in one.labels}.union(
            getattr(family, "_labelnames", ()), {"le"} if suffix == "_bucket" else ()
        )
        for family in made.registry.collect()
        for suffix in suffixes[family.type]
    }


@pytest.fixture(scope="session")
def facts(root: Path) -> Facts:
    """What the service has, read from its code."""
    settings = set(re.findall(r'"([A-Z][A-Z_]+)"', (root / "score/settings.py").read_text(encoding="utf-8")))
    page = root / "k8s/components/monitoring/README.md"
    runbooks = set(re.findall(r"^### (\w+)$", page.read_text(encoding="utf-8").lower(), re.MULTILINE))
    return Facts(settings, PREFIXES, set(PATHS), metrics(), runbooks)


@pytest.fixture(scope="session")
def base(root: Path) -> list[Object]:
    """The base as it stands in its files: with an image, open, and with the labels that its kustomization adds."""
    folder = root / "k8s/base"
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    texts = [(folder / name).read_text(encoding="utf-8") for name in kustomization["resources"]]
    text = release.with_digest("\n---\n".join(texts), manifests.IMAGE)
    objects = list(yaml.safe_load_all(text))
    for one in objects:
        if one["kind"] == "StatefulSet":
            one["spec"]["template"]["metadata"]["labels"] |= kustomization["labels"][0]["pairs"]
            one["spec"]["template"]["spec"]["containers"][0]["env"].append({"name": "AUTH", "value": "open"})
    return objects


@pytest.fixture(scope="session")
def renderings() -> dict[str, list[Object]]:
    """The objects of everything that is checked, by name."""
    if manifests.renderer() is None:
        pytest.skip(WITHOUT)
    return {name: list(yaml.safe_load_all(text)) for name, text in manifests.checked().items()}


@pytest.fixture(scope="session")
def minors(locked: Callable[[str], Path]) -> dict[str, schemas.Schemas]:
    """The schemas of each minor of Kubernetes that the manifests are for."""
    interpreter = locked("schemas")
    folder = next(interpreter.parents[1].glob("**/kubernetes_validate/kubernetes-json-schema"))
    return {minor: schemas.Schemas(folder / f"v{minor}-local-strict") for minor in manifests.MINORS}


def test_every_file_is_in_a_kustomization(root: Path) -> None:
    """A file that none names would be checked by nothing and applied by nobody."""
    for path in sorted((root / "k8s").glob("**/kustomization.yaml")):
        text = path.read_text(encoding="utf-8")
        lost = [one.name for one in path.parent.iterdir() if one.suffix in (".yaml", ".json") and one != path]
        assert [name for name in lost if name not in text] == [], path.parent


def test_the_base_holds_together(base: list[Object], facts: Facts) -> None:
    assert faults(base, replace(facts, may_be_open=True)) == []


def test_everything_holds_together(renderings: dict[str, list[Object]], facts: Facts) -> None:
    found = {
        name: said
        for name, objects in renderings.items()
        if not name.startswith("cluster-")
        if (said := faults(objects, replace(facts, may_be_open=name.startswith("local"))))
    }
    assert found == {}


def test_there_is_an_overlay_for_each_environment_and_a_namespace_for_it(renderings: dict[str, list[Object]]) -> None:
    assert {"local", *release.ENVIRONMENTS} == {folder.name for folder in manifests.overlays()}
    for name in release.ENVIRONMENTS:
        spaces = {one["metadata"]["namespace"] for one in renderings[name]}
        cluster = {one["metadata"]["name"]: one for one in renderings[f"cluster-{name}"] if one["kind"] == "Namespace"}
        assert spaces == set(cluster)
        assert cluster[spaces.pop()]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert len({one["metadata"]["namespace"] for name in release.ENVIRONMENTS for one in renderings[name]}) == 2


def test_what_is_of_the_whole_cluster_is_for_an_administrator(
    renderings: dict[str, list[Object]], facts: Facts
) -> None:
    """A release that had it would be refused by `make deploy`; where it is, it is right and in force."""
    assert {name.partition("+")[0] for name in renderings if "admission" in name} == {
        f"cluster-{name}" for name in release.ENVIRONMENTS
    }
    for name, objects in renderings.items():
        wide = {one["kind"] for one in objects if one["kind"] in OF_THE_CLUSTER}
        if not name.startswith("cluster-"):
            assert wide <= {"Namespace"} if name.startswith("local") else wide == set(), name
        elif "admission" in name:
            assert wide == {"Namespace", "ClusterImagePolicy"}
            assert list(applied(custom.RULES, objects, facts)) == []
            (space,) = (one for one in objects if one["kind"] == "Namespace")
            assert space["metadata"]["labels"]["policy.sigstore.dev/include"] == "true"


def test_nobody_but_the_deployers_gets_a_right(renderings: dict[str, list[Object]]) -> None:
    """Nor any right outside the namespace."""
    for name, objects in renderings.items():
        if name.startswith("cluster-"):
            kinds = {one["kind"] for one in objects} - {"ClusterImagePolicy"}
            assert kinds == {"Namespace", "Role", "RoleBinding"}
            (binding,) = (one for one in objects if one["kind"] == "RoleBinding")
            assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", "deployer")
            (who,) = binding["subjects"]
            assert who["kind"] == "Group"
            assert who["name"].endswith("-deployers")  # `make rename` writes the beginning


PLURALS = {"PodDisruptionBudget": "poddisruptionbudgets", "NetworkPolicy": "networkpolicies"}


def test_the_role_of_the_deployer_covers_what_is_deployed_and_no_more(renderings: dict[str, list[Object]]) -> None:
    """A kind that the role lacks would fail the first release; one that nothing has would be a needless right."""
    role = next(one for one in renderings["cluster-production"] if one["kind"] == "Role")
    given = {
        (group, what)
        for rule in role["rules"]
        if "patch" in rule["verbs"]
        for group in rule["apiGroups"]
        for what in rule["resources"]
    }
    asked = {
        (one["apiVersion"].rpartition("/")[0], PLURALS.get(one["kind"], one["kind"].lower() + "s"))
        for name, objects in renderings.items()
        for one in objects
        if not name.startswith("cluster-") and one["kind"] != "Namespace"
        if manifests.ONLY_LOCAL not in name  # which no release deploys
    }
    assert given == asked
    verbs = {verb for rule in role["rules"] for verb in rule["verbs"]}
    assert verbs <= {"get", "list", "watch", "create", "patch"}
    assert "secrets" not in {what for rule in role["rules"] for what in rule["resources"]}


def test_the_parameters_are_those_that_components_ask_for(root: Path) -> None:
    known = set(yaml.safe_load((root / "k8s/components/parameters.yaml").read_text(encoding="utf-8"))["data"])
    asked = {
        folder: set(re.findall(r"fieldPath: data\.(\w+)", path.read_text(encoding="utf-8")))
        for path in (root / "k8s/components").glob("**/kustomization.yaml")
        for folder in [path.parent.relative_to(root / "k8s/components").as_posix()]
    }
    assert known == {name for names in asked.values() for name in names}
    for folder in manifests.overlays():
        named = re.findall(
            r"^  - \.\./\.\./components/(\S+)",
            (folder / "kustomization.yaml").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        given = yaml.safe_load((folder / "parameters.yaml").read_text(encoding="utf-8"))["data"] if named else {}
        assert {name for one in named for name in asked[one]} == set(given), folder.name


def test_every_component_has_a_page(root: Path) -> None:
    heads = {name.partition("/")[0] for name in manifests.components()}
    assert {name for name in heads if not (root / f"k8s/components/{name}/README.md").exists()} == set()
    page = (root / "k8s/components/README.md").read_text(encoding="utf-8")
    assert {name for name in heads if f"({name}/README.md)" not in page} == set()


@pytest.mark.parametrize("minor", manifests.MINORS)
def test_every_object_fits_the_strict_schema(
    renderings: dict[str, list[Object]], minors: dict[str, schemas.Schemas], minor: str
) -> None:
    different = {repr(one): one for objects in renderings.values() for one in objects}.values()
    known = [one for one in different if one["apiVersion"].partition("/")[0] not in OF_CUSTOM]
    assert len(known) > 20
    found = {f"{one['kind']} {one['metadata']['name']}": said for one in known if (said := minors[minor].errors(one))}
    assert found == {}


OF_CUSTOM = {"gateway.networking.k8s.io", "monitoring.coreos.com", "azmonitoring.coreos.com", "policy.sigstore.dev"}


def test_every_custom_object_fits_its_strict_schema(renderings: dict[str, list[Object]]) -> None:
    gone: list[str] = []
    known = schemas.custom(gone)
    different = {repr(one): one for objects in renderings.values() for one in objects}.values()
    for one in different:
        if one["apiVersion"].partition("/")[0] in OF_CUSTOM and not gone:
            validators = known[one["apiVersion"], one["kind"]]
            said = [schemas.said(error) for validator in validators for error in validator.iter_errors(one)]
            assert said == [], one["metadata"]["name"]
    if gone:
        pytest.skip("; ".join(gone))


# --- planted mistakes ---


@pytest.fixture(scope="session")
def full() -> list[Object]:
    """Production with each component that can be beside the others."""
    if manifests.renderer() is None:
        pytest.skip(WITHOUT)
    folder = next(one for one in manifests.overlays() if one.name == "production")
    own = (folder / "kustomization.yaml").read_text(encoding="utf-8")
    more: list[str] = []
    for name in sorted(manifests.components(), key=lambda name: name == "monitoring/azure"):  # alerts are in the other
        if name == manifests.ONLY_LOCAL or f"components/{name}\n" in own:
            continue
        if not any(manifests.rivals(name, other) for other in more):
            more.append(name)
    text = release.with_digest(manifests.combined(folder, tuple(more)), manifests.IMAGE)
    return list(yaml.safe_load_all(text))


def planted(objects: list[Object], plant: Plant) -> list[Object]:
    """A copy of the objects with the mistake in it; the mistake must change something."""
    changed = copy.deepcopy(objects)
    plant.make(changed)
    assert changed != objects
    return changed


@pytest.mark.parametrize("name", BASE)
def test_a_mistake_in_the_base_is_found(base: list[Object], facts: Facts, name: str) -> None:
    said = faults(planted(base, BASE[name]), replace(facts, may_be_open=True))
    assert any(BASE[name].says in one for one in said), said


@pytest.mark.parametrize("name", FULL)
def test_a_mistake_in_a_component_is_found(full: list[Object], facts: Facts, name: str) -> None:
    assert faults(full, facts) == []
    said = faults(planted(full, FULL[name]), facts)
    assert any(FULL[name].says in one for one in said), said


@pytest.mark.parametrize("name", LATER)
def test_a_mistake_that_shows_later_is_found(full: list[Object], facts: Facts, name: str) -> None:
    said = faults(planted(full, LATER[name]), facts)
    assert any(LATER[name].says in one for one in said), said


@pytest.mark.parametrize("name", STRICT)
def test_a_mistake_that_scanners_let_through_is_found(full: list[Object], facts: Facts, name: str) -> None:
    said = faults(planted(full, STRICT[name]), facts)
    assert any(STRICT[name].says in one for one in said), said


@pytest.mark.parametrize("name", SCHEMA)
def test_a_mistake_that_a_schema_knows_is_found(
    base: list[Object], minors: dict[str, schemas.Schemas], name: str
) -> None:
    for minor, known in minors.items():
        said = [error for one in planted(base, SCHEMA[name]) for error in known.errors(one)]
        assert any(SCHEMA[name].says in one for one in said), (minor, said)


def test_the_mistakes_are_many_and_different() -> None:
    every: dict[str, Any] = BASE | FULL | LATER | STRICT | SCHEMA
    assert len(every) == len(BASE) + len(FULL) + len(LATER) + len(STRICT) + len(SCHEMA)
    assert len(every) >= 200
