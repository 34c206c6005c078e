"""Run by every Python that finds it on its path: notes which files the event loop touches.

As if quacc were not installed, too. What a thread does is its own affair, and so is what the main
thread does before the loop runs and after it.
"""

import os
import sys
import threading
import traceback

sys.modules["quacc"] = None

MAIN = threading.main_thread()
EVENTS = ("open", "os.", "shutil.", "glob.", "tempfile.")
NO_FILES = ("os.fork", "os.putenv", "os.unsetenv", "os.kill", "os.posix_spawn")


def note(event, arguments):
    running = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    if running is None or running() is None:
        return
    if threading.current_thread() is MAIN and str(os.environ["TOUCHED_BELOW"]) in str(arguments):
        stack = "".join(traceback.format_stack()[-12:])
        descriptor = REAL_OPEN(os.environ["TOUCHED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{event} {arguments}\n{stack}\n".encode())
        os.close(descriptor)


def audited(event, arguments):
    if event.startswith(EVENTS) and not event.startswith(NO_FILES):
        note(event, arguments)


def noting(name):
    """Wrap what is not audited."""
    function = getattr(os, name)

    def wrapped(*arguments, **options):
        note(f"os.{name}", arguments)
        return function(*arguments, **options)

    return wrapped


REAL_OPEN = os.open
if "crystalmath.server" in " ".join(sys.orig_argv) and "TOUCHED" in os.environ:
    sys.addaudithook(audited)
    for name in ("stat", "lstat", "readlink", "access"):
        setattr(os, name, noting(name))
