"""A server whose answers are read from a file: liar.py ANSWERS, called as ``crystalmath``."""

import json
import sys
from pathlib import Path

from crystalmath import build_version
from crystalmath.wire import messages


def main(file):
    answers = json.loads(Path(file).read_text())
    version = {"version": build_version(), "protocol": 1, "home": "/x", "pid": 1, "host": "h"}
    while header := sys.stdin.buffer.readline():
        sys.stdin.buffer.readline()
        request = messages.loads(sys.stdin.buffer.read(messages.read_length(header)))
        answer = {"result": version, **answers.get(request["method"], {})}
        document = {"jsonrpc": "2.0", "id": request["id"], **answer}
        if "error" in document:
            del document["result"]
        sys.stdout.buffer.write(messages.frame(messages.dumps(document)))
        sys.stdout.buffer.flush()


main(sys.argv[1])
