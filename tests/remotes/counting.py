"""Runs a command with its streams passed on, and counts the turns: counting.py LOG COMMAND...

A turn begins when the client sends something after it has received something, so that requests
which are sent together are one. Each turn is a line of the log.
"""

import os
import selectors
import socket
import subprocess
import sys


def main(log, *command):
    ours, theirs = socket.socketpair()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs) as process:
        theirs.close()
        waiting = selectors.DefaultSelector()
        waiting.register(0, selectors.EVENT_READ)
        waiting.register(ours, selectors.EVENT_READ)
        answered = True
        while waiting.get_map():
            for key, _ in waiting.select():
                if key.fileobj is ours:
                    data, answered = ours.recv(65536), True
                    os.write(1, data)
                    if not data:
                        return process.wait()
                    continue
                data = os.read(0, 65536)
                if not data:
                    waiting.unregister(0)
                    ours.shutdown(socket.SHUT_WR)
                    continue
                if answered:
                    with open(log, "a") as file:
                        file.write("turn\n")
                answered = False
                ours.sendall(data)
    return 0


sys.exit(main(*sys.argv[1:]))
