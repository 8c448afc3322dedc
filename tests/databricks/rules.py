"""What every file of platforms/databricks must hold, beyond what Databricks' own library refuses."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LONGEST_SECONDS = 4 * 3600
KEYS = {  # of databricks.yml, as the command line's own schema has them; the library knows resources alone
    "": {"bundle", "include", "sync", "artifacts", "variables", "targets"},
    "bundle": {"name", "databricks_cli_version"},
    "sync": {"paths", "include", "exclude"},
    "artifacts.*": {"type", "path", "build", "files"},
    "variables.*": {"description", "default", "type", "lookup"},
    "targets.*": {"mode", "default", "presets", "workspace", "run_as", "variables"},
    "targets.*.presets": {"source_linked_deployment", "name_prefix", "tags"},
}
LEVELS = 3


def faults_of_project(folder: Path, project: dict[str, Any]) -> Iterator[str]:
    """What is wrong with databricks.yml."""
    for way, known in KEYS.items():
        for where, found in at(project, way.split(".") if way else []):
            yield from (f"{where or 'databricks.yml'} has no field {key}" for key in found if key not in known)
    yield from (f"include: {one} is nowhere" for one in project["include"] if not list(folder.glob(one)))
    yield from (f"sync: {one} is nowhere" for one in project["sync"]["paths"] if not (folder / one).is_dir())
    makefile = (folder / "../../Makefile").read_text(encoding="utf-8")
    for name, one in project["artifacts"].items():
        target = one["build"].removeprefix("make ")
        if f"WHEEL := {target}\n" not in makefile:
            yield f"artifacts.{name}: no target of the Makefile is {target}"
    if project["targets"].get("production", {}).get("mode") != "production":
        yield "targets: production is not of mode production"
    if [name for name, one in project["targets"].items() if one.get("default")] != ["dev"]:
        yield "targets: a person's own target must be the default"


def at(tree: Any, way: list[str], where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each mapping at a way, where ``*`` is every key."""
    if not way:
        yield where, tree
        return
    for key in list(tree) if way[0] == "*" else [way[0]]:
        if key in tree:
            yield from at(tree[key], way[1:], f"{where}.{key}".lstrip("."))


def faults_of_job(
    name: str, job: dict[str, Any], folder: Path, policy: dict[str, Any], variables: Any
) -> Iterator[str]:
    """What is wrong with one job."""
    life = job.get("timeout_seconds")
    if not isinstance(life, int) or not 0 < life <= LONGEST_SECONDS:
        yield f"{name}: timeout_seconds is {life}, so that nothing bounds the life of its clusters"
    if job.get("max_concurrent_runs") != 1:
        yield f"{name}: two runs may be at work at once"
    yield from (f"{name}: {key} starts it by itself" for key in ("continuous", "schedule", "trigger") if key in job)
    clusters = {one["job_cluster_key"]: one["new_cluster"] for one in job.get("job_clusters", [])}
    environments = {one["environment_key"] for one in job.get("environments", [])}
    for key, cluster in clusters.items():
        yield from (f"{name}.{key}: {fault}" for fault in faults_of_cluster(cluster, policy, variables))
    for one in job.get("environments", []):
        yield from (f"{name}: {path} is nowhere" for path in lost(one["spec"]["dependencies"], folder))
        if hashed := with_hashes(one["spec"]["dependencies"], folder):
            yield f"{name}: pip refuses {hashed} beside a wheel, since it takes hashes for all lines or for none"
    known = {task["task_key"] for task in job["tasks"]}
    parameters = {one["name"]: one["default"] for one in job.get("parameters", [])}
    for task in job["tasks"]:
        where = f"{name}.{task['task_key']}"
        yield from (f"{where}: {fault}" for fault in faults_of_task(task, life or 0, folder, parameters))
        if (task.get("job_cluster_key") in clusters) == (task.get("environment_key") in environments):
            yield f"{where}: it has no cluster and no environment of the job, or both"
        yield from (f"{where}: waits for nobody" for on in task.get("depends_on", []) if on["task_key"] not in known)
    for key in ("model", "table"):
        if key in parameters and len(parameters[key].replace("${resources.", "").split("}.")) != LEVELS:
            dots = re.sub(r"\$\{[^}]*\}", "x", parameters[key]).count(".")
            if dots != LEVELS - 1:
                yield f"{name}: {key} is {parameters[key]}, and a name has three levels"


def faults_of_cluster(cluster: dict[str, Any], policy: dict[str, Any], variables: Any) -> Iterator[str]:
    """What is wrong with a cluster: it must grow and shrink within the bounds of the policy."""
    if "autoscale" not in cluster:
        yield "it does not scale"
    flat = {**cluster, **{f"autoscale.{key}": value for key, value in cluster.get("autoscale", {}).items()}}
    for field, rule in policy.items():
        value = flat.get(field)
        if isinstance(value, str) and (found := re.fullmatch(r"\$\{var\.(\w+)\}", value)):
            value = variables[found[1]]["default"]
        if value is None or field == "cluster_type":
            continue
        if rule["type"] == "forbidden" or (rule["type"] == "fixed" and value != rule["value"]):
            yield f"the policy forbids {field}: {value}"
        if rule["type"] == "range" and not rule.get("minValue", 0) <= value <= rule["maxValue"]:
            yield f"the policy bounds {field}, and it is {value}"


def faults_of_task(task: dict[str, Any], life: int, folder: Path, parameters: dict[str, str]) -> Iterator[str]:
    """What is wrong with a task: it runs one of our programs, with the flags that it has, and ends."""
    seconds, tries = task.get("timeout_seconds"), task.get("max_retries", 0)
    if not isinstance(seconds, int) or not 0 < seconds < life:
        yield f"timeout_seconds is {seconds}"
    if not 0 <= tries <= 1:
        yield f"max_retries is {tries}, and a run ends"
    yield from (
        f"{key}: a cluster that outlives the run" for key in ("existing_cluster_id", "new_cluster") if key in task
    )
    program = task.get("spark_python_task")
    if program is None:
        yield "it runs something other than a program of this folder"
        return
    path = (folder / "resources" / program["python_file"]).resolve()
    if path.parent != folder.resolve() or not path.is_file():
        yield f"{program['python_file']} is nowhere"
        return
    name, *words = program["parameters"]
    given = [one.removeprefix("--").partition("=") for one in words]
    takes = set(runpy.run_path(str(path))["TASKS"].get(name, ((), ()))[1])
    if {flag for flag, _, _ in given} != takes:
        yield f"{path.name} {name} takes {sorted(takes)}"
    for _, _, value in given:
        asked = re.findall(r"\{\{job\.parameters\.(\w+)\}\}", value)
        yield from (f"the job has no parameter {one}" for one in asked if one not in parameters)
    paths = [library.get("whl") or library.get("requirements") for library in task.get("libraries", [])]
    yield from (f"{one} is nowhere" for one in lost([str(path) for path in paths], folder))


def lost(paths: list[str], folder: Path) -> Iterator[str]:
    """Which libraries are not there; the wheel is what the artifact builds."""
    for path in paths:
        plain = path.removeprefix("-r ")
        if plain != "../../../build/wheel/*.whl" and not (folder / "resources" / plain).is_file():
            yield path


def with_hashes(paths: list[str], folder: Path) -> str:
    """The lock with hashes that is installed with a wheel; empty where there is none."""
    locks = [folder / "resources" / path.removeprefix("-r ") for path in paths if path.startswith("-r ")]
    hashed = [lock.name for lock in locks if lock.is_file() and "--hash=" in lock.read_text(encoding="utf-8")]
    return ", ".join(hashed) if len(locks) < len(paths) else ""


def unknown_references(text: str, project: dict[str, Any], resources: dict[str, Any]) -> Iterator[str]:
    """The references of a file that name nothing."""
    for kind, rest in re.findall(r"\$\{(\w+)\.([\w.]+)\}", text):
        steps = rest.split(".")
        if kind == "var" and steps[0] not in project["variables"]:
            yield f"there is no variable {steps[0]}"
        if kind == "resources" and steps[-1] not in resources.get(steps[0], {}).get(steps[1], {}):
            yield f"there is no {rest}"
        if kind == "bundle" and rest not in ("name", "git.commit"):
            yield f"there is no bundle.{rest}"
        if kind == "workspace" and rest not in ("file_path", "root_path"):
            yield f"there is no workspace.{rest}"
