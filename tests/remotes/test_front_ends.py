"""The page, the screen, an assistant and a notebook, on the jobs of another machine."""

import json
import os
import sys

import pytest
from ase.build import bulk

from crystalmath.client import connect

pytestmark = pytest.mark.server

AL = bulk("Al")


@pytest.fixture
def client(hawk):
    """Yield a client of the machine, as a notebook has it."""
    with connect(on="hawk") as client:
        yield client


def test_the_page(hawk, monkeypatch, client):
    pytest.importorskip("crystalmath_web.app", reason="crystalmath-web is not installed")
    from web.conftest import Page

    monkeypatch.setenv("CRYSTALMATH_ON", "hawk")
    monkeypatch.setenv("OMP_OF_THE_TEST", "here")
    with Page(client) as page:
        cell = {"symbols": "Al", "cell": [3.0, 3.0, 3.0], "pbc": True}
        asked = {"recipe": "lab_recipes.where", "structure": cell, "name": "of the page"}
        _, answer = page.call("jobs.submit", asked)
        job_id = answer["job_id"]
        assert "OMP_OF_THE_TEST" not in client.future(job_id).result(60)["environment"]
        _, listed = page.call("jobs.list", {"limit": 1})
        assert listed["jobs"][0]["name"] == "of the page"


def test_a_table_of_the_page_takes_one_round_trip(open_page, turns):
    with open_page() as call:
        call("jobs.list", limit=1)
        turns()  # the page is open
        for number in range(3):
            assert "jobs" in call("jobs.list", limit=50, skip=number, totals=True)
            assert turns() == 1


async def test_the_screen(hawk, client):
    pytest.importorskip("crystalmath_top.app", reason="crystalmath-top is not installed")
    from crystalmath_top.app import Top
    from top.test_app import row, until

    job = client.submit("lab_recipes.value", AL, name="seen")
    job.result(60)
    app = Top(client)
    async with app.run_test(size=(150, 40)) as pilot:
        await until(pilot, lambda: row(app, job.job_id))
        assert row(app, job.job_id)["name"] == "seen"


async def test_an_assistant(hawk):
    pytest.importorskip("crystalmath_mcp.server", reason="crystalmath-mcp is not installed")
    from mcp import Client, StdioServerParameters, stdio_client

    arguments = ["-m", "crystalmath", "--on", "hawk", "mcp"]
    command = StdioServerParameters(command=sys.executable, args=arguments, env=dict(os.environ))
    async with Client(stdio_client(command)) as assistant:
        answer = await assistant.call_tool("list", {})
        assert not answer.is_error, answer.content
        assert "jobs" in json.dumps(answer.structured_content)


def test_a_notebook(client):
    jobs = client.submit_many([])
    assert jobs == []
    chain = client.chain([AL], {"one": "lab_recipes.shift", "two": "lab_recipes.value"})
    assert chain[0]["two"].result(60) == 1
    (again,) = client.retry(chain[0]["two"], {"number": 2})
    assert again.result(60) == 2
    assert client.table(limit=1)["state"].tolist() == ["completed"]
    assert [change.state.value for change in client.changes(after=0, timeout=0)]
    assert "completed" in again._repr_html_()
    assert client.status()["jobs"] == {"pending": 0, "running": 0}
