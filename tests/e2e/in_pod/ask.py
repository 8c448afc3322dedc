"""Send one request, described by the argument as JSON, and print status and body as JSON; status 0: no answer."""

import json
import sys
import urllib.error
import urllib.request

asked = json.loads(sys.argv[1])
body = None if asked["body"] is None else json.dumps(asked["body"]).encode()
headers = {"Content-Type": "application/json"} | asked["headers"]
request = urllib.request.Request(asked["url"], body, headers)  # noqa: S310
try:
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
        found = answer.status, answer.read().decode()
except urllib.error.HTTPError as error:
    found = error.code, error.read().decode()
except OSError as error:
    found = 0, str(error)
print(json.dumps(found))
