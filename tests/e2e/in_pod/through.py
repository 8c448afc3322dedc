"""Send requests to one proxy, described by the argument as JSON, and print status, location and text of each as JSON.

The name that clients use need not be known here: the proxy's own address takes its place.
"""

import http.client
import json
import socket
import ssl
import sys

asked = json.loads(sys.argv[1])
trusted = ssl.create_default_context(cadata=asked["certificate"])


def send(method, path, body, headers, port):
    """Status, location and text of one answer; status 0: no answer."""
    connection = http.client.HTTPConnection(asked["host"], port, timeout=10)
    try:
        connection.sock = socket.create_connection((asked["proxy"], port), timeout=10)
        if port == 443:
            connection.sock = trusted.wrap_socket(connection.sock, server_hostname=asked["host"])
        sent = None if body is None else json.dumps(body)
        connection.request(method, path, sent, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.getheader("Location"), answer.read().decode()
    except OSError as error:
        return 0, None, str(error)
    finally:
        connection.close()


print(json.dumps([send(*request) for request in asked["requests"]]))
