"""Try to connect to each ``host:port`` of the arguments at once, and print as JSON to which that worked."""

import json
import socket
import sys
import threading

found = {}


def connect(place):
    """Note whether a connection is made within three seconds."""
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
        found[place] = True
    except OSError:
        found[place] = False


threads = [threading.Thread(target=connect, args=(place,)) for place in sys.argv[1:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(found))
