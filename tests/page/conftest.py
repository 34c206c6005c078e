"""The page as a person has it: `crystalmath ui` in a process of its own, and a browser."""

import contextlib
import io
import os
import shutil
import signal
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from commands import limited, ran, start
from crystalmath.client import connect

ROOT = Path(__file__).parents[2]
#: Software draws in place of a graphics card; root is no user whom Chromium confines.
OPTIONS = (
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
#: The machine does other things, too.
WAIT_MS = 120_000
#: Where pictures go that docs/web.md shows: ``PICTURES=docs/pictures nox -s web``.
PICTURES = os.environ.get("PICTURES")
#: A picture of the documentation is no larger, in bytes.
LARGEST = 150_000


@pytest.fixture(scope="session")
def chromium():
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("Debian's chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory):
    """Return what looks for faults that keep people from using a page."""
    folder = tmp_path_factory.mktemp("axe")
    install = ["npm", "install", "--no-audit", "--no-fund", "--prefix", folder, "axe-core@4"]
    ran(*install, check=True, timeout=600)
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.fixture
def client(lab, with_quacc, alone, monkeypatch):
    """Return a client of the home's server, which ends with the test."""
    monkeypatch.setenv("CRYSTALMATH_RECIPES", "lab_recipes,flow_recipes")
    with connect() as client:
        yield client


@pytest.fixture
def ui(client, home):
    """Return a page's server: its address, which is the first line that it prints."""
    with serving() as served:
        yield served


class Served(NamedTuple):
    """A process that serves a page."""

    address: str
    pid: int

    @property
    def token(self):
        return self.address.partition("#")[2]

    def at(self, **parameters):
        """Return the address of a view, without the token."""
        return f"{self.address.partition('#')[0]}?{urlencode(parameters)}"


@contextlib.contextmanager
def serving(*options, browser="--no-browser", end=signal.SIGINT):
    running = start("ui", browser, *options)
    with running, limited(running, seconds=1200):
        yield Served(running.stdout.readline().strip(), running.pid)
        running.send_signal(end)
        out, err = running.communicate()
    assert (running.returncode, out, err) == (0, "", "")


@pytest.fixture
def browser(chromium):
    """Return what opens a page in a browser that knows none yet; nothing may go wrong in it."""
    wrong = []
    with contextlib.ExitStack() as stack:

        def tell(told, expected):
            if told.type == "error" and (expected is None or expected not in told.text):
                wrong.append(told.text)

        def visit(address, expected=None, **settings):
            settings = {"viewport": {"width": 1080, "height": 640}, **settings}
            context = chromium.new_context(**settings)
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(WAIT_MS)
            page.on("pageerror", lambda error: wrong.append(f"{error}: {error.stack}"))
            # What the rules for browsers forbid is said here, and what is not JavaScript.
            page.on("console", lambda told: tell(told, expected))
            page.on("dialog", lambda dialog: wrong.append(dialog.message))
            page.goto(address)
            return page

        expect.set_options(timeout=WAIT_MS)
        yield visit
    assert wrong == []


@pytest.fixture
def picture(tmp_path):
    """Return what takes a picture of a page, or of a part of it, for the documentation."""

    def take(shown, name):
        folder = ROOT / PICTURES if PICTURES else tmp_path
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.png"
        with Image.open(io.BytesIO(shown.screenshot(animations="disabled"))) as shot:
            few = shot.convert("RGB").quantize(256, dither=Image.Dither.NONE)
        few.save(path, optimize=True)
        assert not PICTURES or path.stat().st_size < LARGEST

    return take


@pytest.fixture
def faults(axe):
    """Return what finds, of a page that is shown, faults that keep people from using it."""

    def find(page):
        page.evaluate(axe)
        found = {}
        for scheme, which in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):
            page.emulate_media(color_scheme=scheme)
            for one in page.evaluate("which => axe.run(which)", which)["violations"]:
                found[scheme, one["id"]] = [node["html"] for node in one["nodes"]]
        return found

    return find


@pytest.fixture
def faultless(faults):
    """Return what looks at a page in light and dark, from narrow to wide."""

    def look(page, place):
        wrong = faults(page)
        for width in (390, 768, 1280, 2560):
            page.set_viewport_size({"width": width, "height": 900})
            if page.evaluate("document.documentElement.scrollWidth") > width:
                wrong[width] = "it is wider than the window"
            box = page.locator(place).bounding_box()
            if box["x"] < 0 or box["x"] + box["width"] > width:
                wrong[width] = box
        assert wrong == {}

    return look
