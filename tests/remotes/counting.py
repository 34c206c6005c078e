"""Passes streams on to another machine, and counts the turns: counting.py LOG DELAY_S THERE...

THERE is a port of this machine, or a command. What is sent arrives after the delay, in both
directions. A turn begins when the client sends something after it has received something, so that
requests which are sent together are one. Each turn is a line of the log.
"""

import collections
import os
import selectors
import socket
import subprocess
import sys
import time


def main(log, delay_s, *there):
    with reached(*there) as server:
        waiting = selectors.DefaultSelector()
        waiting.register(0, selectors.EVENT_READ)
        waiting.register(server, selectors.EVENT_READ)
        answered = True
        under_way = collections.deque()
        while waiting.get_map() or under_way:
            wait_s = under_way[0][0] - time.monotonic() if under_way else None
            for key, _ in waiting.select(None if wait_s is None else max(0.0, wait_s)):
                data = os.read(key.fd, 65536)
                if not data:
                    waiting.unregister(key.fileobj)
                under_way.append((time.monotonic() + float(delay_s), key.fileobj, data))
                if key.fileobj is not server and data:
                    if answered:
                        with open(log, "a") as file:
                            file.write("turn\n")
                    answered = False
            while under_way and under_way[0][0] <= time.monotonic():
                _, source, data = under_way.popleft()
                if source is not server:
                    server.sendall(data) if data else server.shutdown(socket.SHUT_WR)
                elif data:
                    os.write(1, data)
                    answered = True
                else:
                    return


def reached(*there):
    """Return a socket that leads to a port, or to a command's streams."""
    if len(there) == 1 and there[0].isdigit():
        return socket.create_connection(("127.0.0.1", int(there[0])))
    ours, theirs = socket.socketpair()
    with theirs:
        subprocess.Popen(there, stdin=theirs, stdout=theirs)
    return ours


main(*sys.argv[1:])
