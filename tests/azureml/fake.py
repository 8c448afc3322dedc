"""Azure Resource Manager, a store of blobs and deployed endpoints, in memory, for what the SDK sends with requests.

It refuses what Azure refuses: traffic for a deployment that is not there, the removal of one that has traffic, other
content under a version that exists, and a second change of what is still being changed.
"""

from __future__ import annotations

import io
import json
import re
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from urllib3 import HTTPResponse

ROOT = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"


class Killed(BaseException):
    """The machine that deploys is gone; nothing of the program runs after that."""


@dataclass
class Azure:
    """What is there, and what was called. ``dies`` at a call and at every later one; ``refuses`` one call."""

    there: dict[str, dict[str, Any]] = field(default_factory=dict)
    blobs: dict[str, dict[str, str]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)  # the model that each request of the traffic met
    dies: int = 0
    after: bool = False  # it dies after the call was carried out
    refuses: int = 0
    bad: set[str] = field(default_factory=set)  # models that answer wrongly
    broken: set[str] = field(default_factory=set)  # models that do not start
    one_route: bool = False  # the gateway passes on the scoring route alone

    def again(self) -> None:
        """Forget which calls were made, for the next run of the program."""
        self.calls, self.dies, self.refuses = [], 0, 0

    @property
    def dead(self) -> bool:
        """Whether the program was killed."""
        return bool(self.dies) and len(self.calls) >= self.dies

    def counted(self, what: str, carry_out: Callable[[], Any], refuse: Callable[[], Any]) -> Any:
        """Carry out a call, unless it is refused or the program is dead by then."""
        self.calls.append(what)
        if self.dead and not (self.after and len(self.calls) == self.dies):
            raise Killed
        answer = refuse() if len(self.calls) == self.refuses else carry_out()
        if self.dead:
            raise Killed
        return answer

    # --- what the SDK asks ---

    def send(self, request: requests.PreparedRequest) -> requests.Response:
        """Answer a request of the SDK."""
        method, url = request.method or "", urlsplit(request.url or "")
        path = unquote(str(url.path))
        headers = {name.lower(): str(value) for name, value in request.headers.items()}
        if str(url.netloc).endswith(".blob.core.windows.net"):
            query = str(url.query)
            status, body, more = self.counted(
                f"{method} blob", lambda: self.blob(method, path, query, headers), lambda: (403, None, {})
            )
        else:
            body = json.loads(request.body) if request.body else None
            place = path.removeprefix(ROOT).strip("/")
            assert path.startswith((ROOT, "/operations/", ROOT[:-1])), path
            refused = (403, {"error": {"code": "AuthorizationFailed", "message": "not allowed now"}}, {})
            status, body, more = self.counted(
                f"{method} {place or 'workspace'}", lambda: self.arm(method, place, body), lambda: refused
            )
        content = b"" if body is None else json.dumps(body).encode()
        answer = requests.Response()
        answer.status_code, answer.url, answer.request = status, str(request.url), request
        answer.headers.update({"Content-Type": "application/json", **more})
        answer.raw = HTTPResponse(io.BytesIO(content), headers=answer.headers, status=status, preload_content=False)
        answer.reason = "because"
        return answer

    def blob(self, method: str, path: str, query: str, headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        """Answer for a blob: its metadata say whether an upload was ended."""
        metadata = {name: value for name, value in headers.items() if name.startswith("x-ms-meta-")}
        if method == "HEAD":
            found = self.blobs.get(path)
            return (404, None, {"x-ms-error-code": "BlobNotFound"}) if found is None else (200, None, found)
        if method == "PUT":
            self.blobs[path] = metadata if "comp=metadata" in query else self.blobs.get(path, {})
            return (
                201 if "comp" not in query else 200,
                None,
                {"ETag": "1", "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
            )
        raise AssertionError(f"{method} {path}?{query}")

    def arm(self, method: str, place: str, body: Any) -> tuple[int, Any, dict[str, str]]:  # long: one route each
        """Answer for a resource of the workspace."""
        missing = (404, {"error": {"code": "ResourceNotFound", "message": f"{place} is not there"}}, {})
        if place.startswith("subscriptions/"):  # another workspace
            return missing
        if place.startswith("operations/"):
            one = self.there[place.removeprefix("operations/")]
            self.end(place.removeprefix("operations/"))
            return 200, {"status": one["properties"]["provisioningState"]}, {}
        if not place:
            tracking = {"mlFlowTrackingUri": f"azureml://westeurope.api.azureml.ms/mlflow/v1.0{ROOT}"}
            return 200, {"id": ROOT, "name": "w", "location": "westeurope", "properties": tracking}, {}
        if place.startswith("datastores"):
            return 200, self.datastore(place), {}
        if place.lower().endswith("/listkeys"):
            return 200, {"primaryKey": "key", "secondaryKey": "other"}, {}
        if place.lower().endswith("/getlogs"):
            return 200, {"content": "bundle: refused"}, {}
        if method == "GET" and place.endswith("/versions"):
            names = [name for name in self.there if name.startswith(place + "/")]
            return 200, {"value": [self.there[name] for name in sorted(names)]}, {}
        if place.endswith("/startPendingUpload"):
            store = {"blobUri": "https://store.blob.core.windows.net/code", "credential": {"credentialType": "SAS"}}
            store["credential"]["sasUri"] = f"https://store.blob.core.windows.net/{place.split('/')[1]}?sig=1"
            return 200, {"blobReferenceForConsumption": store, "pendingUploadType": "TemporaryBlobReference"}, {}
        if method == "GET" and place.endswith("/deployments"):
            names = [name for name in self.there if name.startswith(place + "/")]
            return 200, {"value": [self.there[name] for name in sorted(names)]}, {}
        if method == "GET":
            if place not in self.there:
                return missing
            shown = json.loads(json.dumps(self.there[place]))
            self.end(place)
            return 200, shown, {}
        if method == "DELETE":
            if place not in self.there:
                return 204, None, {}
            endpoint, _, name = place.partition("/deployments/")
            if self.traffic(endpoint).get(name):
                return 400, {"error": {"code": "UserError", "message": f"{name} has traffic"}}, {}
            del self.there[place]
            return 200, None, {}
        assert method == "PUT", method
        return self.put(place, body)

    def put(self, place: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        """Make or change a resource, where Azure would."""
        properties = body["properties"]
        known = self.there.get(place)
        if known and known["properties"].get("provisioningState") in ("Creating", "Updating"):
            return 409, {"error": {"code": "Conflict", "message": f"{place} is being changed"}}, {}
        if re.search(r"/versions/[^/]+$", place):
            if known and {**known["properties"], "flavors": 0} != {**properties, "flavors": 0}:
                return 409, {"error": {"code": "UserError", "message": f"{place} has other content"}}, {}
            self.there[place] = self.shown(place, body)
            return 201, self.there[place], {}
        endpoint, _, name = place.partition("/deployments/")
        if name:
            if endpoint not in self.there:
                return 404, {"error": {"code": "ResourceNotFound", "message": endpoint}}, {}
            for key in ("model", "environmentId"):
                asset = str(properties[key]).removeprefix(ROOT + "/")
                if asset not in self.there:
                    return 400, {"error": {"code": "UserError", "message": f"{properties[key]} is not there"}}, {}
        for each in properties.get("traffic") or {}:
            if f"{place}/deployments/{each}" not in self.there:
                return 400, {"error": {"code": "UserError", "message": f"traffic for {each}"}}, {}
        self.there[place] = self.shown(place, body)
        made = self.there[place]["properties"]
        made["provisioningState"] = "Updating" if known else "Creating"
        if name:  # what Azure fills in
            made.setdefault("scaleSettings", {"scaleType": "Default"})
        else:
            made["scoringUri"] = f"https://{place.rpartition('/')[2]}.inference.ml.azure.com/score"
            made["properties"] = properties.get("properties") or {}
        operation = {"Azure-AsyncOperation": f"https://management.azure.com/operations/{place}", "Retry-After": "1"}
        return 201, json.loads(json.dumps(self.there[place])), operation

    def shown(self, place: str, body: Any) -> dict[str, Any]:
        """A resource as Azure shows it."""
        found = {"id": f"{ROOT}/{place}", "name": place.rpartition("/")[2], **json.loads(json.dumps(body))}
        if place.startswith("models/"):
            found["properties"].setdefault("flavors", {})
        return found

    def end(self, place: str) -> None:
        """End what Azure does to a resource: seen once on its way, it is there the next time."""
        made = self.there[place]["properties"]
        if made.get("provisioningState") in ("Creating", "Updating"):
            broken = "/deployments/" in place and self.model(place) in self.broken
            made["provisioningState"] = "Failed" if broken else "Succeeded"

    def datastore(self, place: str) -> dict[str, Any]:
        """The workspace's store, or a key to it."""
        if place.endswith("listSecrets"):
            return {"secretsType": "Sas", "sasToken": "sig=1"}
        store = {"datastoreType": "AzureBlob", "accountName": "store", "containerName": "blobs", "isDefault": True}
        store |= {"endpoint": "core.windows.net", "protocol": "https", "credentials": {"credentialsType": "Sas"}}
        found = {"id": f"{ROOT}/datastores/workspaceblobstore", "name": "workspaceblobstore", "properties": store}
        return found if "workspaceblobstore" in place else {"value": [found]}

    # --- what is deployed ---

    def traffic(self, endpoint: str) -> dict[str, int]:
        """Who gets the traffic of an endpoint."""
        return self.there.get(endpoint, {}).get("properties", {}).get("traffic") or {}

    def model(self, place: str) -> str:
        """The model of a deployment, by the commit that it is tagged with."""
        return f"model {self.there[place]['tags']['commit'][0]}"

    def open(self, request: Any, timeout: float) -> Any:
        """Answer a request to an endpoint, as urllib would."""
        name = urlsplit(request.full_url).netloc.partition(".")[0]
        path = urlsplit(request.full_url).path
        headers = {key.lower(): value for key, value in request.header_items()}

        def fail(status: int, text: str) -> Any:
            raise urllib.error.HTTPError(request.full_url, status, text, Message(), io.BytesIO(text.encode()))

        return self.counted(
            f"ask {name}{path}", lambda: self.answer(name, path, headers, fail), lambda: fail(503, "not now")
        )

    def answer(self, name: str, path: str, headers: dict[str, str], fail: Callable[[int, str], Any]) -> Any:
        """The answer of the deployment that a header names, or that has the traffic."""
        endpoint = f"onlineEndpoints/{name}"
        asked = headers.get("azureml-model-deployment", "")
        one = asked or next((each for each, share in self.traffic(endpoint).items() if share), "")
        place = f"{endpoint}/deployments/{one}"
        if headers.get("authorization") != "Bearer key" or headers.get("closed-loop-dry-run") != "1":
            return fail(401, "who are you")
        if place not in self.there or self.there[place]["properties"]["provisioningState"] != "Succeeded":
            return fail(404, f"no deployment {one}")
        model = self.model(place)
        if not asked:
            self.served.append(model)
        if model in self.bad:
            return fail(500, "wrong")
        if path == "/feedback" and self.one_route and not name.endswith("-feedback"):
            return fail(404, "no such path")
        body = {"model": model} if path == "/score" else {"stored": {}}
        return _Answer(json.dumps(body).encode())


class _Answer(io.BytesIO):
    status = 200
