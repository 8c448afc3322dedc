"""Replace what an endpoint serves: deploy beside it with no traffic, test, move the traffic, test, and back on failure.

What is served is the endpoint's tag ``served``, which is set after the last test. A run that was stopped anywhere
leaves the endpoint with that tag; the next one first gives the traffic back to what it names.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

from platforms.azureml.release import DeployError

SERVED = "served"
MOVING = {"Creating", "Updating", "Scaling", "Deleting", "Running", "Provisioning"}
WAIT_SECONDS, PATIENCE_SECONDS = 10.0, 3600.0
LOG_LINES = 60

Check = Callable[[Any, str], str | None]  # endpoint, deployment or "" for the traffic's: what is wrong


def roll(client: Any, endpoint: Any, deployment: Any, check: Check) -> None:
    """Have an endpoint serve a deployment, or what it served before.

    Args:
        client: the workspace's ``MLClient``.
        endpoint: what it is to be where it is not there yet.
        deployment: what is to be served; its name stands for its whole content.
        check: says what is wrong with a deployment, or with what the traffic meets.

    Raises:
        DeployError: the new deployment failed; the message says whether what was served before is served again.
        AzureError: nothing was begun, or all was done but the removal of a deployment that is no longer served.
    """
    there = ensured(client, endpoint)
    served = served_by(there, deployment.name)
    move(client, there.name, served)
    try:
        deployed(client, deployment)
        _require(check(there, deployment.name), f"{deployment.name}, before it got any traffic")
        move(client, there.name, deployment.name)
        _require(check(there, ""), f"{deployment.name}, with the traffic")
        mark(client, there.name, deployment.name)
    except (AzureError, DeployError) as error:
        raise DeployError(
            f"{there.name}: {_line(error)}; {back(client, there.name, served, deployment.name)}"
        ) from error
    print(f"{there.name} serves {deployment.name}")
    for name in names(client, there.name):
        if name != deployment.name:
            remove(client, there.name, name)


def back(client: Any, endpoint: str, served: str, new: str) -> str:
    """Give the traffic back, and delete the new deployment; return what is served then, for a person.

    Another run may have served a release meanwhile, and deleted what was served before: then that is served.
    """
    try:
        there: Any = settled(lambda: client.online_endpoints.get(endpoint))
        tagged = (there.tags or {}).get(SERVED, "")
        served = tagged if tagged in there.traffic and tagged != new else served
        move(client, endpoint, served)
        if served != new:
            remove(client, endpoint, new)
    except (AzureError, DeployError) as error:
        return f"going back to {served or 'nothing'} failed too ({_line(error)}); run it again, which begins with that"
    return f"{served} is served again" if served else "nothing was served before, and nothing is now"


def ensured(client: Any, wanted: Any) -> Any:
    """Return the endpoint, which is made where it is missing, and made again where its last change failed.

    One that failed may still serve: what is sent again keeps its traffic and its tags.
    """
    found = settled(lambda: client.online_endpoints.get(wanted.name))
    if found is None or found.provisioning_state != "Succeeded":
        print(f"making the endpoint {wanted.name}{'' if found is None else f', which is {found.provisioning_state},'}")
        if found is not None:
            wanted.traffic, wanted.mirror_traffic = found.traffic, found.mirror_traffic
            wanted.tags = {**(wanted.tags or {}), **(found.tags or {})}
        client.online_endpoints.begin_create_or_update(wanted).result()
        found = settled(lambda: client.online_endpoints.get(wanted.name))
    if found is None or found.provisioning_state != "Succeeded":
        state = "gone" if found is None else found.provisioning_state
        raise DeployError(
            f"the endpoint {wanted.name} is {state}; open it in Azure ML's studio, which says why, and run it again; "
            "delete it there only if it serves nothing"
        )
    return found


def settled(get: Callable[[], Any]) -> Any | None:
    """Return a resource once Azure has ended what it does to it; None where it is not there.

    Raises:
        DeployError: that takes more than an hour.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            found = get()
        except ResourceNotFoundError:
            return None
        if found.provisioning_state not in MOVING:
            return found
        if time.monotonic() > until:
            raise DeployError(f"{found.name} has been {found.provisioning_state} for an hour; look at it in the studio")
        time.sleep(WAIT_SECONDS)


def served_by(endpoint: Any, new: str) -> str:
    """Return the deployment that is served; empty where none is. One that got its traffic by hand counts too."""
    there = set(endpoint.traffic or {})  # the SDK lists those without traffic too
    if (tagged := (endpoint.tags or {}).get(SERVED, "")) in there:
        return str(tagged)
    most = max(there, key=lambda name: int(endpoint.traffic[name]), default="")
    return most if most != new and most and endpoint.traffic[most] else ""


def deployed(client: Any, wanted: Any) -> None:
    """Create a deployment without traffic, unless it is there and healthy; one that has traffic is fixed in place."""
    get = lambda: client.online_deployments.get(wanted.name, wanted.endpoint_name)  # noqa: E731
    said: Exception | None = None
    found = settled(get)
    if found is not None and found.provisioning_state != "Succeeded":
        if not client.online_endpoints.get(wanted.endpoint_name).traffic.get(wanted.name):
            remove(client, wanted.endpoint_name, wanted.name)
        found = None
    if found is None:
        print(f"making the deployment {wanted.name}")
        try:
            client.online_deployments.begin_create_or_update(wanted).result()
        except HttpResponseError as error:  # also of one that was made, and then did not start
            found, said = settled(get), error
            if found is None or found.provisioning_state == "Succeeded":
                raise
        found = settled(get)
    if found is None or found.provisioning_state != "Succeeded":
        lines = last_lines(client, wanted) if found else ""
        why = _line(said) if said else f"Azure says that it is {found.provisioning_state if found else 'gone'}"
        raise DeployError(f"the deployment {wanted.name} did not start: {why}{lines}")


def last_lines(client: Any, wanted: Any) -> str:
    """Print what a deployment's container said; return where that is. One that never ran has said nothing."""
    try:
        lines = client.online_deployments.get_logs(wanted.name, wanted.endpoint_name, LOG_LINES)
    except AzureError as error:
        return f"; it has no lines to show ({_line(error)})"
    print(lines)
    return "; its last lines are above"


def move(client: Any, endpoint: str, name: str) -> None:
    """Give all traffic to one deployment, or to none where the name is empty; nothing is sent where that is so."""
    found: Any = settled(lambda: client.online_endpoints.get(endpoint))
    wanted = {name: 100} if name else {}
    if {each: share for each, share in found.traffic.items() if share} != wanted:
        found.traffic = wanted
        client.online_endpoints.begin_create_or_update(found).result()
        print(f"all traffic of {endpoint} goes to {name or 'nothing'}")


def mark(client: Any, endpoint: str, name: str) -> None:
    """Write down that a deployment is served."""
    found = client.online_endpoints.get(endpoint)
    if (found.tags or {}).get(SERVED) != name:
        found.tags = {**(found.tags or {}), SERVED: name}
        client.online_endpoints.begin_create_or_update(found).result()


def names(client: Any, endpoint: str) -> list[str]:
    """Return the names of an endpoint's deployments."""
    return [one.name for one in client.online_deployments.list(endpoint)]


def remove(client: Any, endpoint: str, name: str) -> None:
    """Delete a deployment, which costs as long as it is there; Azure refuses one that has traffic."""
    try:
        client.online_deployments.begin_delete(name, endpoint).result()
    except ResourceNotFoundError:
        return
    settled(lambda: client.online_deployments.get(name, endpoint))
    print(f"deleted {name}")


def _require(found: str | None, where: str) -> None:
    if found:
        raise DeployError(f"the smoke test of {where}: {found}")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:500].rstrip(".;")
