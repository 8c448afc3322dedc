# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From data to a model, to Docker, to Kubernetes, and back by the log
#
# Every step is the command that you would type. `make notebook` executes this file from top to bottom and writes
# `build/notebook/walkthrough.ipynb`, with all output, for Jupyter, VS Code and Databricks. In VS Code, and in
# Jupyter with jupytext, this file opens as it is.
#
# A step that needs a container engine or a cluster says **skipped**, and why, where there is none.

# %%
from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display

ROOT = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "pyproject.toml").exists())
os.chdir(ROOT)
WORK = ROOT / "build/notebook"
DOCKER = os.environ.get("DOCKER", "docker")
IMAGE = os.environ.get("IMAGE", "closedloop:dev")
SKIPPED, SERVICES = [], []


def run(command: str, lines: int = 12) -> None:
    """Run a command as a terminal does, and show the last lines that it wrote."""
    print(f"$ {command}")
    done = subprocess.run(command, shell=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    print("\n".join(done.stdout.splitlines()[-lines:]))
    if done.returncode:
        raise RuntimeError(f"`{command}` ended with {done.returncode}; its last lines are above")


def skip(step: str, why: str) -> None:
    """Say that a step was skipped, where nobody can overlook it."""
    SKIPPED.append(step)
    display(Markdown(f"> **skipped: {step}**: {why}"))


def said(command: str) -> str:
    """What a command prints; empty where it fails or is not there."""
    done = subprocess.run(command, shell=True, text=True, capture_output=True)
    return "" if done.returncode else done.stdout.strip()


def ask(url: str, body: bytes | None = None, dry: bool = False) -> dict:
    """The JSON that an address answers; a dry run is scored, and never logged."""
    headers = {"Content-Type": "application/json"} | ({"Closed-Loop-Dry-Run": "1"} if dry else {})
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
        return json.load(answer)


def ready(url: str, seconds: float = 240) -> None:
    """Wait until a service is ready."""
    until = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def stop(process: subprocess.Popen) -> None:
    """Stop a program that was started here."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def free_port() -> int:
    """A port of this machine that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# %% [markdown]
# ## 1. Data
#
# A fleet is five tables: `telemetry`, `errors`, `maint`, `failures` and `machines`. A fresh copy simulates one;
# your own files take their place with `make adopt DATA=path`. One command reads and checks the tables, trains,
# judges and reports.

# %%
run("make run QUICK=1")

# %%
tables = {path.stem: pd.read_parquet(path) for path in sorted((ROOT / "build/data").glob("*.parquet"))}
named = {name.removeprefix("PdM_"): frame for name, frame in tables.items()}
{name: frame.shape for name, frame in named.items()}

# %%
telemetry = named["telemetry"]
sensors = [column for column in telemetry if column not in ("datetime", "machineID")]
if "failures" in named and len(named["failures"]):
    machine, moment = named["failures"].iloc[0][["machineID", "datetime"]]
else:  # a fleet that never failed
    machine, moment = telemetry.iloc[len(telemetry) // 2][["machineID", "datetime"]]
window = telemetry[telemetry["machineID"] == machine].set_index("datetime")
window = window.loc[moment - pd.Timedelta(days=10) : moment + pd.Timedelta(days=3), sensors]
axes = window.plot(subplots=True, figsize=(9, 1.6 * len(sensors)), legend=False, linewidth=0.8)
for axis, sensor in zip(axes, sensors, strict=True):
    axis.set_ylabel(sensor)
    axis.axvline(moment, color="red", linestyle="--")
axes[0].set_title(f"machine {machine}, and a moment at which it failed")
plt.show()

# %% [markdown]
# ## 2. The model
#
# Two heads: an anomaly detector without labels, and a calibrated probability of failure for each component. The
# verdict compares the model with the champion, or with trivial models where there is none.

# %%
decision = json.loads((ROOT / "build/decision.json").read_text())
metrics = json.loads((ROOT / "build/metrics.json").read_text())
display(Markdown(f"**{decision['verdict']}**: {decision['reason']}"))
figures = metrics.get("failure") or metrics["anomaly"]
pd.Series({name: value for name, value in figures.items() if isinstance(value, int | float)}, name="held-out machines")

# %%
predictions = pd.read_parquet(ROOT / "build/predictions.parquet")
alarms = predictions[predictions["alarm"]]
busiest = alarms["machineID"].value_counts().index[0] if len(alarms) else predictions["machineID"].iloc[0]
scores = predictions[predictions["machineID"] == busiest].pivot(index="datetime", columns="head", values="score")
scores = scores.iloc[-24 * 60 :]
figure, (above, below) = plt.subplots(2, figsize=(9, 4.5), sharex=True)
scores["anomaly"].plot(ax=above, linewidth=0.8, title=f"machine {busiest}, which no model was trained on")
above.set_ylabel("anomaly")
failure = scores.drop(columns="anomaly")
if failure.shape[1]:
    failure.plot(ax=below, linewidth=0.8)
    below.set_ylabel("probability of failure")
plt.show()

# %% [markdown]
# ## 3. The service
#
# It answers for each machine of a request, and sends an answer only after its record is durable. A request is a
# slice of the same tables. Its log lies in `build/notebook/log`.

# %%
if SERVICES:
    stop(SERVICES.pop())  # this cell was run before
shutil.rmtree(WORK / "log", ignore_errors=True)
WORK.mkdir(parents=True, exist_ok=True)
port = free_port()
settings = {"MODEL_DIR": "build/bundle", "LOG_DIR": str(WORK / "log"), "AUTH": "open", "PORT": str(port)}
with (WORK / "service.jsonl").open("w") as lines:
    service = subprocess.Popen([sys.executable, "-m", "score"], env=os.environ | settings, stderr=lines)
SERVICES.append(service)
atexit.register(stop, service)  # a cell after this one may fail
url = f"http://127.0.0.1:{port}"
ready(url)
ask(f"{url}/version")

# %%
example = ask(f"{url}/example")
answer = ask(f"{url}/score", json.dumps(example).encode())
pd.json_normalize(answer["results"])


# %%
def request(frame: pd.DataFrame) -> bytes:
    """A request with some rows of telemetry; a missing reading is null."""
    columns = {"datetime": frame["datetime"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"), "machineID": frame["machineID"]}
    readings = {sensor: frame[sensor].astype(object).where(frame[sensor].notna(), None) for sensor in sensors}
    return json.dumps({"telemetry": {name: list(values) for name, values in (columns | readings).items()}}).encode()


last = telemetry["datetime"].max()
recent = telemetry[telemetry["datetime"] > last - pd.Timedelta(hours=72)]
asked = recent[recent["machineID"].isin(recent["machineID"].unique()[:20])]
asked = asked.assign(machineID=asked["machineID"].map(lambda one: one if isinstance(one, str) else int(one)))
answer = ask(f"{url}/score", request(asked))
found = pd.json_normalize(answer["results"])
probability = found.filter(like=".probability").rename(columns=lambda name: name.split(".")[1])
if probability.shape[1]:
    probability.set_axis(found["machineID"]).plot.bar(stacked=True, figsize=(9, 3), title="20 machines, now")
    plt.ylabel("probability of failure")
    plt.show()
found.head()

# %% [markdown]
# What happened afterwards is reported to `/feedback`. Without `complete_until`, silence does not mean health.

# %%
until = last.strftime("%Y-%m-%dT%H:%M:%SZ")
ask(f"{url}/feedback", json.dumps({"complete_until": {"datetime": [until], "machineID": [None]}}).encode())

# %% [markdown]
# ## 4. Docker
#
# `make image` builds the image with the model inside: no package manager, no training library, and the same bytes
# wherever it is built. A release is this image, by its digest.

# %%
ENGINE = bool(said(f"{DOCKER} info --format '{{{{.ServerVersion}}}}'"))
if not ENGINE:
    skip("Docker", f"`{DOCKER} info` finds no container engine; start one, or set DOCKER")
else:
    run(f"make image IMAGE={IMAGE} DOCKER={DOCKER}", lines=4)

# %%
if not ENGINE:
    skip("the container", "there is no image to run")
else:
    where = free_port()
    name = f"closedloop-walkthrough-{where}"
    limits = "--read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /log:mode=1777"
    start = f"{DOCKER} run --rm --detach --name {name} {limits} --env AUTH=open"
    try:
        run(f"{start} --publish 127.0.0.1:{where}:8000 {IMAGE}")
        ready(f"http://127.0.0.1:{where}")
        inside = ask(f"http://127.0.0.1:{where}/score", request(asked), dry=True)
        assert inside["results"] == answer["results"], "the image answers otherwise than the service on this machine"
        display(Markdown("The image gives the same answers, to the last bit."))
    finally:
        said(f"{DOCKER} stop {name}")
        said(f"{DOCKER} rm --force {name}")  # one that never started is not removed by stopping it

# %% [markdown]
# ## 5. Kubernetes
#
# The overlay `local` runs one replica with that image. In a cluster of your own, each replica's log has a volume
# that outlives its pod. The cluster is that of kubectl's context, and it is used only if it is one of kind, or if
# `CONTEXT` repeats its name; `LOAD` is the command that brings an image to its nodes.

# %%
CONTEXT = said("kubectl config current-context")
allowed = CONTEXT.startswith("kind-") or (CONTEXT != "" and os.environ.get("CONTEXT") == CONTEXT)
LOAD = os.environ.get("LOAD") or f"kind load docker-image --name {CONTEXT.removeprefix('kind-')}"
if not (ENGINE and allowed and said("kubectl version --request-timeout=10s")):
    why = f"kubectl's context is {CONTEXT!r}" if CONTEXT else "kubectl has no context that answers"
    skip("Kubernetes", f"{why}; `make kind` makes a cluster. It also needs the image")
elif said("kubectl get namespace closedloop --ignore-not-found --output name"):
    skip("Kubernetes", "the cluster has a namespace closedloop already, and this would replace what is in it")
else:
    run(f"{LOAD} {IMAGE}", lines=2)
    try:  # in one cell, so that nothing is left in the cluster whatever fails, or is interrupted
        run("kubectl apply -k k8s/overlays/local")
        run("kubectl --namespace closedloop rollout status statefulset/score --timeout 5m", lines=2)
        where = free_port()
        command = ["kubectl", "--namespace", "closedloop", "port-forward", "service/score", f"{where}:80"]
        forward = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            ready(f"http://127.0.0.1:{where}", 60)
            there = ask(f"http://127.0.0.1:{where}/score", request(asked), dry=True)
        finally:
            stop(forward)
        assert there["results"] == answer["results"], "the cluster answers otherwise than the service on this machine"
        display(Markdown("The cluster gives the same answers, to the last bit."))
    finally:
        run("kubectl delete namespace closedloop --ignore-not-found --wait=true", lines=2)

# %% [markdown]
# ## 6. The log, and back
#
# The service stops: it seals its log, and the shipper moves it into Delta tables. Reading back gives the five
# tables again, which is why the log is training data.

# %%
stop(service)
sink = WORK / "log/delta"
run(f"LOG_SINK={sink} make log-status", lines=20)

# %%
from closedloop.data.frames import tables_to_frames  # noqa: E402 - the first five chapters need none of it
from closedloop.heads.bundle import load  # noqa: E402
from closedloop.log.read import read  # noqa: E402
from closedloop.log.sink import Sink  # noqa: E402

schema = load(ROOT / "build/bundle").schema
back = tables_to_frames(read(Sink.at(str(sink), os.environ), schema).tables, schema)["telemetry"]
keys = ["machineID", "datetime"]
both = back.merge(
    asked.assign(datetime=asked["datetime"].astype(back["datetime"].dtype)), on=keys, suffixes=("", " asked")
)
assert len(both) == len(asked), "a reading that was asked about is not in the log"
for sensor in sensors:
    assert both[sensor].equals(both[f"{sensor} asked"]), f"the log has other values of {sensor}"
display(Markdown(f"All **{len(asked):,}** rows that were asked about are in the log, to the last bit."))
back.groupby("machineID")[sensors].mean().plot(
    figsize=(9, 3), title="what the log says of the asked machines", marker="."
)
plt.show()

# %% [markdown]
# ## Where to go from here
#
# - `make retrain LOG_SINK=place` trains the next model on the pinned data and the log, and compares it with the
#   champion.
#   On GitHub `retrain.yml` does so each Monday, and opens a pull request with the better model.
# - `make loop` shows the whole loop in two minutes: the world moves, drift is seen, and the next model is
#   proposed and served.
# - [Azure ML](../platforms/azureml/README.md), [Kubernetes](../k8s/README.md), and [what takes the place of what
#   you know](../docs/platforms.md).

# %%
display(Markdown(f"**Done.** Skipped: {', '.join(SKIPPED) or 'nothing'}."))
