"""How long the pings of an echo wait whose process has two busy threads, in seconds, as JSON.

A measure of the machine: Python's own interpreter lock, and whatever else runs beside.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import threading

PINGS = 150
CLIENT = f"""
import json, socket, sys, time
waits = []
with socket.socket(socket.AF_UNIX) as echo:
    echo.connect(sys.argv[1])
    for _ in range({PINGS}):
        began = time.perf_counter()
        echo.send(b"x")
        echo.recv(1)
        waits.append(time.perf_counter() - began)
        time.sleep(0.005)
print(json.dumps(waits))
"""


def compute():
    while True:
        sum(number * number for number in range(1000))


async def answer(reader, writer):
    while sent := await reader.read(1):
        writer.write(sent)
        await writer.drain()


async def main():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "socket")
        async with await asyncio.start_unix_server(answer, path):
            for _ in range(2):
                threading.Thread(target=compute, daemon=True).start()
            client = await asyncio.create_subprocess_exec(
                sys.executable, "-c", CLIENT, path, stdout=subprocess.PIPE
            )
            printed, _ = await client.communicate()
    return printed.decode()


if __name__ == "__main__":
    sys.setswitchinterval(0.0002)
    told = asyncio.run(main())
    sys.stdout.write(told)
    sys.stdout.flush()
    os._exit(0)
