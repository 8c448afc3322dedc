"""Every kind of registry follows the verdicts: MLflow's server, and servers that refuse what it takes.

That of a database is in test_tracking.py.

The stand-ins are proxies on loopback in front of MLflow's own server. Each refuses what the real one refuses.
"""

from __future__ import annotations

import http.client
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from closedloop.data.schema import DataError
from model import mirror, register
from model.common import cli, registry
from recorded_run import write_run

pytestmark = pytest.mark.filterwarnings("ignore")  # mlflow's own, in this process
THREE = re.compile(r"[^.]+\.[^.]+\.[^.]+")


def nothing(path, body):
    """MLflow's own server."""


def no_logged_models(path, body):
    """Azure ML's tracking: MLflow's interface of version 2, so no models apart from runs, and no data sets."""
    if "logged-models" in path or path.endswith(("/runs/outputs", "/runs/log-inputs")):
        return 404, {"error": {"code": "UserError", "message": "No such route"}}
    return None


def no_aliases(path, body):
    """A registry from before aliases."""
    return (501, {"message": "not implemented"}) if path.endswith("/registered-models/alias") else None


def three_levels(path, body):
    """Unity Catalog: names of three levels alone, one condition in a search."""
    name = body.get("name", "")
    if ("/registered-models/" in path or "/model-versions/" in path) and name and not THREE.fullmatch(name):
        return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": f"{name} is not catalog.schema.model"}
    if " and " in body.get("filter", "").lower():
        return 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "one condition"}
    return None


SERVERS = {"server": nothing, "azureml": no_logged_models, "old": no_aliases, "unity": three_levels}


def proxy(port, refuse):
    """A server on loopback that passes on what ``refuse`` does not; the paths that it refused are its ``refused``."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = urlsplit(self.path)
            query = {k: unquote(v.replace("+", " ")) for k, _, v in (p.partition("=") for p in url.query.split("&"))}
            body = json.loads(content) if content[:1] == b"{" and "/artifacts/" not in url.path else query
            if refused := refuse(url.path, body):
                running.refused.append(url.path)
                status, text, headers = refused[0], json.dumps(refused[1]).encode(), {}
            else:
                asked = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
                headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
                asked.request(self.command, self.path, content or None, headers)
                said = asked.getresponse()
                status, text = said.status, said.read()
                headers = {k: v for k, v in said.getheaders() if k.lower() in ("content-type", "content-disposition")}
                if refuse is three_levels and url.path.endswith("/registered-models/get") and status == 200:
                    found = json.loads(text)
                    found["registered_model"].pop("aliases", None)  # Catalog does not say them there
                    text = json.dumps(found).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.refused = []
    threading.Thread(target=running.serve_forever, daemon=True).start()
    return running


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory):
    """The port of MLflow's own server."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=folder, start_new_session=True)
    try:
        deadline = time.monotonic() + 600  # on a busy machine
        while True:
            try:
                asked = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                asked.request("GET", "/health")
                if asked.getresponse().status == 200:
                    break
            except OSError:
                pass
            assert process.poll() is None, (folder / "said").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.3)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers outlive it; its store goes with the test's folder
        process.wait()


@pytest.fixture(scope="module")
def project(trained, tmp_path_factory):
    """A folder with the files of a run that CI made, but for its decision."""
    out = tmp_path_factory.mktemp("project") / "build"
    metrics = {"failure": {"pr_auc": 0.5, "by_component": {}}}
    write_run(out, trained.bundle, trained.params.schema, metrics)
    return out


@pytest.fixture
def at(project, tmp_path, monkeypatch):
    """Let the commands use a store, from a folder of this test's own."""
    shutil.copytree(project, tmp_path / "build")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # loading a model puts its code first on the path

    def use(address, name):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_MODEL_NAME", name)
        import mlflow

        mlflow.set_registry_uri(None)
        mlflow.set_tracking_uri(address)
        return mlflow

    yield use
    import mlflow

    mlflow.set_registry_uri(None)
    mlflow.set_tracking_uri(None)


def mirrored(verdict):
    """Mirror a run with a verdict, as the job of the release does."""
    decision = {"verdict": verdict, "reason": "So.", "becomes_champion": verdict in ("first", "better")}
    cli.write_json(Path("build/decision.json"), decision | {"inputs_digest": f"sha256:{verdict}"})
    mirror.main([])


def champion(mlflow, name, by_tag):
    found = mlflow.MlflowClient().get_registered_model(name)
    return (
        found.tags[registry.ALIAS]
        if by_tag
        else mlflow.MlflowClient().get_model_version_by_alias(name, "champion").version
    )


@pytest.mark.parametrize("kind", SERVERS)
def test_the_champion_of_the_registry_follows_the_verdicts(kind, at, mlflow_server, capsys):
    name = "main.fleets.plant" if kind == "unity" else f"plant-{kind}"
    server = proxy(mlflow_server, SERVERS[kind])
    mlflow = at(f"http://127.0.0.1:{server.server_port}", name)
    try:
        mirrored("first")
        one = champion(mlflow, name, kind == "old")
        mirrored("inconclusive")
        assert "the alias champion stays where it is" in capsys.readouterr().out
        with pytest.raises(cli.RefusedError, match="is inconclusive"):
            register.main([])
        assert champion(mlflow, name, kind == "old") == one
        mirrored("better")
        two = champion(mlflow, name, kind == "old")
        assert two != one
        register.main([])
        assert "nothing to do" in capsys.readouterr().out
        found = mlflow.MlflowClient().get_model_version(name, two)
        assert str(found.run_id) == mlflow.search_runs(search_all_experiments=True, output_format="list")[0].info.run_id
        assert bool(server.refused) == (kind in ("azureml", "old"))
        if kind == "azureml":  # the files are with the run, and they are the whole model
            model = mlflow.pyfunc.load_model(f"models:/{name}@champion")
            manifest = json.loads(Path("build/bundle/manifest.json").read_text())
            assert model.unwrap_python_model().bundle.manifest.model_digest == manifest["model_digest"]
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def moved(at, tmp_path):
    """A registry with a champion, in a database: MLflow, the model's name and the champion's version."""
    mlflow = at(f"sqlite:///{tmp_path}/there.db", "plant")
    mirrored("first")
    return mlflow, "plant", champion(mlflow, "plant", by_tag=False)


@pytest.mark.parametrize("code", ["PERMISSION_DENIED", "INTERNAL_ERROR"])
def test_a_registry_that_refuses_the_alias_today_gets_no_tag_beside_it(moved, monkeypatch, code):
    """The alias would name one version as the champion and the tag another."""
    mlflow, name, one = moved

    def refuse(*_):
        raise mlflow.exceptions.MlflowException("not today", getattr(mlflow.protos.databricks_pb2, code))

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", refuse)
        with pytest.raises(DataError, match="not today"):
            mirrored("better")
    assert registry.ALIAS not in mlflow.MlflowClient().get_registered_model(name).tags
    assert champion(mlflow, name, by_tag=False) == one
    register.main([])
    assert champion(mlflow, name, by_tag=False) != one


def test_a_version_whose_registration_was_broken_off_is_no_champion(moved, monkeypatch):
    """Unity Catalog keeps it, pending and without files."""
    mlflow, name, one = moved
    real = mlflow.MlflowClient.create_model_version

    def broken_off(*words, **more):
        real(*words, **more)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "create_model_version", broken_off)
        with pytest.raises(KeyboardInterrupt):
            mirrored("better")
    search = mlflow.MlflowClient.search_model_versions

    def pending(*words):
        found = search(*words)
        for version in found:
            if str(version.version) == str(int(one) + 1):
                version._status = "PENDING_REGISTRATION"
        return found

    monkeypatch.setattr(mlflow.MlflowClient, "search_model_versions", pending)
    register.main([])
    assert int(champion(mlflow, name, by_tag=False)) == int(one) + 2


def test_two_runs_that_register_at_once_make_one_model(at, tmp_path, monkeypatch):
    mlflow = at(f"sqlite:///{tmp_path}/there.db", "plant")
    real = mlflow.MlflowClient.create_registered_model

    def second(client, name):
        real(client, name)  # the other run was faster
        return real(client, name)

    monkeypatch.setattr(mlflow.MlflowClient, "create_registered_model", second)
    mirrored("first")
    assert str(champion(mlflow, "plant", by_tag=False)) == "1"


@pytest.mark.parametrize("name", ["", "plant", "main.plant", "main..plant", "a.b.c.d"])
def test_a_name_that_unity_catalog_does_not_take_is_one_clear_line(name, at, monkeypatch, tmp_path):
    at(f"sqlite:///{tmp_path}/there.db", name)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "databricks-uc")
    with pytest.raises(DataError, match=r"takes names of three levels, .* set MLFLOW_MODEL_NAME=catalog.schema.plant"):
        mirrored("first")


def test_a_server_that_is_down_is_no_server_without_logged_models(at):
    """What it does not answer is not taken for a refusal."""
    at("http://127.0.0.1:9", "plant")
    with pytest.raises(DataError, match=r"MLflow \(MLFLOW_TRACKING_URI=http://127.0.0.1:9\)"):
        mirrored("first")
