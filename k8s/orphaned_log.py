"""Print a Job that ships the log on a volume whose replica is gone for good; it deletes nothing.

Reads the StatefulSet as JSON from standard input, so that image, store, identity and limits are those of the service:

    kubectl get statefulset score --output json | python3 k8s/orphaned_log.py log-score-2 | kubectl create --filename -
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

Object = dict[str, Any]
COMPONENT = "app.kubernetes.io/component"
OF_A_SERVER = ("ports", "startupProbe", "livenessProbe", "readinessProbe", "lifecycle")
MOST_SECONDS = 3600


class ClaimError(Exception):
    """The message says why there is no Job, and what to do."""


def job(one: Object, claim: str) -> Object:
    """Return the Job for a claim.

    Raises:
        ClaimError: a replica uses the claim, it is not the StatefulSet's, or its log goes to no store.
    """
    name, spec = one["metadata"]["name"], one["spec"]
    volume = spec["volumeClaimTemplates"][0]["metadata"]["name"]
    number = re.fullmatch(rf"{re.escape(f'{volume}-{name}-')}(\d+)", claim)
    if number is None:
        raise ClaimError(f"{claim!r} is no claim of {name}: name one as {volume}-{name}-2")
    if int(number[1]) < spec.get("replicas", 1):
        raise ClaimError(f"{name}-{number[1]} uses {claim}, and ships its log itself; scale {name} down first")
    pod = spec["template"]["spec"]
    box = next(container for container in pod["containers"] if container["name"] == name)
    sink = next((each.get("value", "") for each in box.get("env", []) if each["name"] == "LOG_SINK"), "")
    if "://" not in sink:
        raise ClaimError(
            f"{name} has no LOG_SINK in a store: its tables lie on {claim}, where nothing is to be shipped"
        )
    kept = {key: value for key, value in box.items() if key not in OF_A_SERVER}
    kept |= {"name": "ship", "command": ["python", "-m", "score.log.ship", "--once"]}
    kept["volumeMounts"] = [mount for mount in box["volumeMounts"] if mount["name"] == volume]
    inside = {key: value for key, value in pod.items() if key != "topologySpreadConstraints"}
    inside |= {
        "restartPolicy": "Never",
        "containers": [kept],
        "volumes": [{"name": volume, "persistentVolumeClaim": {"claimName": claim}}],
    }
    labels = spec["template"]["metadata"]["labels"] | {COMPONENT: "orphaned-log"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": f"orphaned-{claim}-", "namespace": one["metadata"]["namespace"], "labels": labels},
        "spec": {
            "activeDeadlineSeconds": MOST_SECONDS,
            "backoffLimit": 2,
            "ttlSecondsAfterFinished": 7 * 24 * 3600,
            "template": {"metadata": {"labels": labels}, "spec": inside},
        },
    }


def main() -> int:
    """Print the Job and return the exit code; 1: refused."""
    try:
        (claim,) = sys.argv[1:]
        print(json.dumps(job(json.load(sys.stdin), claim), indent=1))
    except ClaimError as error:
        print(f"orphaned_log: {error}", file=sys.stderr)
        return 1
    except ValueError:
        print(__doc__, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
