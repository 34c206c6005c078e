"""Strangers can read the site: narrow, wide and dark, offline, and they find what they look for."""

import re
from urllib.parse import urlsplit

import pytest

#: Pages of each kind: prose, code, large tables, and what is made from docstrings.
PAGES = ("index", "command-line", "flows", "reference/commands", "reference/python", "search")


@pytest.fixture
def page(chromium, served):
    """Return a page of a browser that reaches no other host."""
    context = chromium.new_context()
    page = context.new_page()
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    assert {urlsplit(url).netloc for url in asked} == {urlsplit(served).netloc}


@pytest.mark.parametrize("name", PAGES)
def test_nothing_keeps_people_from_reading(page, served, axe, name):
    found = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{served}/{name}.html")
        page.evaluate(axe)
        for one in page.evaluate("() => axe.run()")["violations"]:
            found[scheme, one["id"]] = [node["html"] for node in one["nodes"]]
    assert found == {}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_no_page_is_wider_than_its_window(page, served, name, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{served}/{name}.html")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("POTCAR", "vasp"),
        ("fmax", "tutorials/first-job"),
        ("Slurm", "slurm"),
        ("retry", "repair"),
    ],
)
def test_the_search_leads_to_the_explanation(page, served, word, wanted):
    page.goto(f"{served}/search.html?q={word}")
    first = page.locator("#search-results li a").first
    first.wait_for()
    page.wait_for_function(
        "() => /found/.test(document.querySelector('#search-results').innerText)"
    )
    assert re.search(rf"/{wanted}\.html", first.evaluate("link => link.href"))
