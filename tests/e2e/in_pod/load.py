"""Score at a steady rate until a file appears, and print as JSON what was acknowledged and what failed.

It runs in a pod with the image's Python and nothing else. A client may send again where no connection was made, since
the service has seen nothing then; nothing else is repeated. Every second thread makes a connection for each request,
as a client without keep-alive does.
"""

import http.client
import json
import sys
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

THREADS = 8
PATIENCE_S = 90  # of one request, until a connection is made

asked = json.loads(sys.argv[1])
name, rate = asked["name"], asked["rate"]
stop = Path(f"/scratch/{name}.stop")
with urllib.request.urlopen("http://score/example", timeout=30) as answer:
    body = answer.read()
acknowledged, failed, retried, seconds, models = [], [], [], [], []


def connected():
    """A connection, as soon as there is one."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        connection = http.client.HTTPConnection("score", timeout=30)
        try:
            connection.connect()
            return connection
        except OSError as error:
            retried.append(str(error))
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def score(request_id, connection, close):
    """Send one request, and note how it ended; the connection, if it can be used again."""
    start = time.monotonic()
    try:
        connection = connection or connected()
        headers = {"Content-Type": "application/json", "X-Request-ID": request_id} | asked["headers"]
        connection.request("POST", "/score", body, headers | ({"Connection": "close"} if close else {}))
        answer = connection.getresponse()
        text = answer.read()
    except (OSError, http.client.HTTPException) as error:
        failed.append([request_id, repr(error)])
        if connection:
            connection.close()
        return None
    if answer.status == 200:
        acknowledged.append(request_id)
        models.append(answer.headers["X-Model-Digest"])
    else:
        failed.append([request_id, f"{answer.status}: {text[:200].decode(errors='replace')}"])
    seconds.append(time.monotonic() - start)
    if answer.will_close:
        connection.close()
        return None
    return connection


def work(number):
    """Send every eighth request."""
    connection, count, due = None, 0, time.monotonic() + number / rate
    while not stop.exists():
        time.sleep(max(0.0, due - time.monotonic()))
        count += 1
        connection = score(f"{name}-{number}-{count}", connection, close=number % 2 == 1)
        due = max(due + THREADS / rate, time.monotonic())


start = time.monotonic()
threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
seconds.sort()
report = {
    "acknowledged": acknowledged,
    "failed": failed,
    "retried": Counter(retried),
    "models": Counter(models),
    "seconds": round(time.monotonic() - start, 1),
    "p99_ms": round(1000 * seconds[int(0.99 * (len(seconds) - 1))], 1) if seconds else None,
    "longest_ms": round(1000 * seconds[-1], 1) if seconds else None,
}
print(json.dumps(report))
