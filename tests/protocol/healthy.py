"""A client that asks for little, and says how long it waited: healthy.py SOCKET SECONDS JOB.

One connection sends pings all the time, another asks in turn for the server's status, a submission
and a result of 2 MB. Nothing of the package is imported: what the test's own process does must not
be measured.
"""

import itertools
import json
import socket
import sys
import threading
import time

PAUSE_S = 0.005
CELL = {"symbols": "Al", "cell": [3.0, 3.0, 3.0], "pbc": True}
JOB = {"recipe": "lab_recipes.value", "structure": CELL, "engine": "local"}


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(path)
        self.answers = self.socket.makefile("rb")
        self.ids = itertools.count()

    def ask(self, method, **params):
        """Return an answer, and the seconds until it was there."""
        document = {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": params}
        body = json.dumps(document).encode()
        began = time.perf_counter()
        self.socket.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body)
        header = b"".join(iter(self.answers.readline, b"\r\n"))
        answer = self.answers.read(int(header.partition(b":")[2]))
        waited = time.perf_counter() - began
        return json.loads(answer), waited


def main(path, seconds, job_id):
    end = time.monotonic() + float(seconds)
    waits = {"ping": [], "status": [], "submit": [], "result": []}

    def ping():
        client = Client(path)
        while time.monotonic() < end:
            answer, waited = client.ask("system.ping")
            assert answer["result"] == {"ok": True}, answer
            waits["ping"].append(waited)
            time.sleep(PAUSE_S)

    pinging = threading.Thread(target=ping)
    pinging.start()
    client = Client(path)
    while time.monotonic() < end:
        answer, waited = client.ask("system.status")
        assert "jobs" in answer["result"], answer
        waits["status"].append(waited)
        answer, waited = client.ask("jobs.submit", **JOB)
        assert answer["result"]["error"] is None, answer
        waits["submit"].append(waited)
        answer, waited = client.ask("jobs.result", job_id=job_id)
        assert len(answer["result"]["result"]["text"]) > 2_000_000
        waits["result"].append(waited)
        time.sleep(0.1)
    pinging.join()
    print(json.dumps(waits))


if __name__ == "__main__":
    main(*sys.argv[1:])
