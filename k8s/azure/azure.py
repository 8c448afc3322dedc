"""Make what a release needs on Azure, or what of it is missing: ``azure.py up|down [--dry-run]``.

A resource group with an AKS Automatic cluster, a storage account and container for the log, the identity that writes
the log, and the identity that GitHub deploys with; no secret is made. Each step looks first, so that a run that
was stopped can be run again. ``--dry-run`` looks, and prints what it would make. Logins are those of ``az`` and ``gh``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from typing import Any

NOT_FOUND = 3  # the exit code of `az … show` for what is not there
AUDIENCE = "api://AzureADTokenExchange"
NAMESPACES = {"staging": "closedloop-staging", "production": "closedloop"}


class AzureError(Exception):
    """A command failed, or a setting is missing; the message says which."""


class Azure:
    """The commands of one run; ``dry`` makes nothing."""

    def __init__(self, dry: bool) -> None:
        self.dry = dry
        self.group = os.environ.get("AZURE_GROUP", "closedloop")
        self.location = os.environ.get("AZURE_LOCATION", "westeurope")

    def run(self, *words: str, program: str = "az", missing: bool = False) -> Any:
        """Return what a command prints as JSON; None where it is not there and ``missing`` is allowed.

        Raises:
            AzureError: it failed.
        """
        form = ("--output", "json", "--only-show-errors") if program == "az" else ()
        try:
            done = subprocess.run([program, *words, *form], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise AzureError(f"{program} is not on PATH: install it and log in") from None
        if done.returncode == NOT_FOUND and missing:
            return None
        if done.returncode:
            raise AzureError(f"{program} {shlex.join(words)}: {done.stderr.strip()}; fix that and run it again")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def ensure(self, kind: str, name: str, where: tuple[str, ...], how: tuple[str, ...]) -> dict[str, Any]:
        """Return a resource, which is made where it is missing; an empty one in a dry run."""
        at = (*kind.split(), "show", "--name", name, *where)
        if (found := self.run(*at, missing=True)) is not None:
            print(f"there: {kind} {name}")
            return dict(found)
        words = (*kind.split(), "create", "--name", name, *where, *how)
        print(f"{'would make' if self.dry else 'making'}: az {shlex.join(words)}")
        return {} if self.dry else dict(self.run(*words) or self.run(*at))

    def grant(self, identity: dict[str, Any], role: str, scope: str) -> None:
        """Give an identity a role, if it does not have it."""
        who = identity.get("principalId", "PRINCIPAL")
        at = ("--assignee", who, "--role", role, "--scope", scope)
        if identity and scope and self.run("role", "assignment", "list", *at):
            print(f"there: role {role}")
            return
        words = ("--assignee-object-id", who, "--assignee-principal-type", "ServicePrincipal", *at[2:])
        print(f"{'would make' if self.dry else 'making'}: az role assignment create {shlex.join(words)}")
        if not self.dry:
            self.run("role", "assignment", "create", *words)

    def trust(self, identity: str, name: str, issuer: str, subject: str) -> None:
        """Let an identity be taken by who has a token of that issuer for that subject."""
        here = ("--identity-name", identity, "--resource-group", self.group)
        how = ("--issuer", issuer or "ISSUER", "--subject", subject, "--audiences", AUDIENCE)
        self.ensure("identity federated-credential", name, here, how)


def subject_prefix(azure: Azure, repository: str) -> str:
    """Return how the subjects of this repository's tokens begin: as GitHub says, since a copy's may hold numbers."""
    said = azure.run("api", f"repos/{repository}/actions/oidc/customization/sub", program="gh") or {}
    if not said.get("use_default", True):
        raise AzureError("the subject of GitHub's tokens is customised here: set it back to the default")
    return str(said.get("sub_claim_prefix") or f"repo:{repository}")


def up(azure: Azure) -> None:
    """Make everything, and print what to set."""
    repository = os.environ.get("GITHUB_REPOSITORY", "")
    if not repository:
        raise AzureError("GITHUB_REPOSITORY is not set: write GITHUB_REPOSITORY=owner/name before make azure")
    account = azure.run("account", "show")
    here = ("--resource-group", azure.group)
    place = ("--location", azure.location)
    azure.ensure("group", azure.group, (), place)
    cluster = azure.ensure("aks", "closedloop", here, (*place, "--sku", "automatic", "--enable-managed-identity"))
    store = "closedloop" + hashlib.sha256(f"{account['id']}/{azure.group}".encode()).hexdigest()[:12]
    closed = (
        "--allow-blob-public-access",
        "false",
        "--allow-shared-key-access",
        "false",
        "--min-tls-version",
        "TLS1_2",
    )
    made = azure.ensure("storage account", store, here, (*place, "--sku", "Standard_ZRS", *closed))
    azure.ensure("storage container-rm", "requests", ("--storage-account", store, *here), ())
    writer = azure.ensure("identity", "closedloop-log", here, place)
    scope = f"{made['id']}/blobServices/default/containers/requests" if made else ""
    azure.grant(writer, "Storage Blob Data Contributor", scope)
    issuer = cluster.get("oidcIssuerProfile", {}).get("issuerUrl", "")
    for name, space in NAMESPACES.items():
        azure.trust("closedloop-log", name, issuer, f"system:serviceaccount:{space}:score")
    deployer = azure.ensure("identity", "closedloop-deploy", here, place)
    azure.grant(deployer, "Azure Kubernetes Service Cluster User Role", str(cluster.get("id", "")))
    prefix = subject_prefix(azure, repository)
    for name in NAMESPACES:
        issuer = "https://token.actions.githubusercontent.com"
        azure.trust("closedloop-deploy", name, issuer, f"{prefix}:environment:{name}")
    cached = image_cache(azure, repository.lower(), cluster)
    if not azure.dry:
        tell(azure, account, store, writer, deployer, cached)


def image_cache(azure: Azure, repository: str, cluster: dict[str, Any]) -> dict[str, str]:
    """Make the registry AZURE_REGISTRY, which caches the image and from which the cluster may pull.

    Returns:
        The variable that lets a deployment use it; none without AZURE_REGISTRY.
    """
    registry = os.environ.get("AZURE_REGISTRY", "")
    if not registry:
        return {}
    how = ("--location", azure.location, "--sku", "Standard")
    made = azure.ensure("acr", registry, ("--resource-group", azure.group), how)
    source = ("--source-repo", f"ghcr.io/{repository}", "--target-repo", repository)
    azure.ensure("acr cache", "closedloop", ("--registry", registry), source)
    kubelet = cluster.get("identityProfile", {}).get("kubeletidentity", {})
    azure.grant({"principalId": kubelet["objectId"]} if kubelet else {}, "AcrPull", str(made.get("id", "")))
    return {"IMAGE_CACHE": f"{made.get('loginServer', '')}/{repository}"}


def tell(
    azure: Azure,
    account: dict[str, Any],
    store: str,
    writer: dict[str, Any],
    deployer: dict[str, Any],
    cached: dict[str, str],
) -> None:
    """Print the variables of GitHub's environments, the parameters of the overlays, and what an administrator does."""
    print("\nSet these variables in the environments staging and production:")
    for name, value in (
        ("AZURE_CLIENT_ID", deployer["clientId"]),
        ("AZURE_TENANT_ID", account["tenantId"]),
        ("AZURE_SUBSCRIPTION_ID", account["id"]),
        ("AKS_RESOURCE_GROUP", azure.group),
        ("AKS_CLUSTER", "closedloop"),
        ("OVERLAY", "staging or production"),
        *cached.items(),
    ):
        print(f"  {name}={value}")
    print("\nAdd the component remote-log/azure to both overlays, with these parameters:")
    print(
        f"  azureSink: az://requests/closedloop\n  azureStorageAccount: {store}\n  azureClientId: {writer['clientId']}"
    )
    print("\nThen, as an administrator of the cluster:")
    for name, space in NAMESPACES.items():
        print(f"  kubectl apply -k k8s/cluster/{name}")
        user = f"--role deployer --user {deployer['principalId']}"
        print(f"  kubectl --namespace {space} create rolebinding deployer-github {user}")


def down(azure: Azure) -> None:
    """Delete the resource group and all that is in it, the log too; CONFIRM must repeat its name.

    Raises:
        AzureError: CONFIRM is not the name of the group.
    """
    if azure.run("group", "show", "--name", azure.group, missing=True) is None:
        print(f"there is no resource group {azure.group}")
        return
    if azure.dry:
        print(f"would delete the resource group {azure.group}, with the log of every request")
        return
    if os.environ.get("CONFIRM") != azure.group:
        raise AzureError(f"this deletes {azure.group} with the log of every request: to confirm, CONFIRM={azure.group}")
    azure.run("group", "delete", "--name", azure.group, "--yes")
    print(f"deleted {azure.group}")


def main() -> int:
    """Run the command and return the exit code; 1: a command failed, 2: wrong usage."""
    words = [word for word in sys.argv[1:] if word != "--dry-run"]
    if words not in (["up"], ["down"]):
        print("usage: azure.py up|down [--dry-run]", file=sys.stderr)
        return 2
    try:
        (up if words == ["up"] else down)(Azure("--dry-run" in sys.argv))
    except AzureError as error:
        print(f"make azure: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
