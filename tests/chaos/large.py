"""Clients that send legal but large requests, as a process of its own: ``python large.py PORT SECONDS CLIENTS WAY``.

``random`` draws machines, hours and forms of requests up to the service's default limits. ``quarter`` sends only bodies
just under 256 KiB with one row for each machine: the most work for each byte. Prints the count of each status as JSON.
"""

import http.client
import json
import random
import sys
import threading
import time
from collections import Counter

MAX_MACHINES = 10_000
MAX_ROWS = 200_000
MAX_BODY_BYTES = 16 << 20
POOL = 12
SENSORS = ("volt", "rotate", "pressure", "vibration")


def body(machines, hours):
    """A request with so many machines, and so many hours of each."""
    times = [f"2015-01-{1 + hour // 24:02d}T{hour % 24:02d}:00:00Z" for hour in range(hours)]
    ids = [machine for machine in range(1, machines + 1) for _ in range(hours)]
    columns = {"datetime": times * machines, "machineID": ids}
    columns |= {name: [100.5 + place] * len(ids) for place, name in enumerate(SENSORS)}
    return json.dumps({"telemetry": columns}, separators=(",", ":")).encode()


def bodies(way, seed=1):
    """The bodies of one way of asking."""
    if way == "quarter":
        return [body(4500, 1)]
    chance, made = random.Random(seed), [body(MAX_MACHINES, 1)]  # noqa: S311 - a test's choice
    while len(made) < POOL:
        machines = int(10 ** chance.uniform(0, 4))
        hours = min(chance.randint(1, 72), MAX_ROWS // machines)
        if len(one := body(machines, hours)) <= MAX_BODY_BYTES:
            made.append(one)
    return made


def ask(port, until, pool, statuses, seed):
    """Ask on one connection after another until the time is over."""
    chance = random.Random(seed)  # noqa: S311 - a test's choice
    while time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            while time.monotonic() < until:
                connection.request("POST", "/score", chance.choice(pool), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                statuses[answer.status] += 1
        except (OSError, http.client.HTTPException):
            statuses["broken"] += 1
            time.sleep(0.1)
        finally:
            connection.close()


def main():
    """Send what the command line says."""
    port, seconds, clients, way = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    pool, statuses = bodies(way), Counter()
    until = time.monotonic() + seconds
    threads = [threading.Thread(target=ask, args=(port, until, pool, statuses, seed)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({str(status): count for status, count in statuses.items()}))


if __name__ == "__main__":
    main()
