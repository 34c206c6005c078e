"""Clients in another language, one of them by others, speak with a real server."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POSCAR = ROOT / "examples" / "Al.poscar"
HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        shutil.which("node") is None or shutil.which("npm") is None,
        reason="node and npm are not installed",
    ),
]


def node(*arguments):
    done = subprocess.run(
        ["node", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.fixture(scope="module")
def modules(tmp_path_factory):
    folder = tmp_path_factory.mktemp("npm")
    install = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund"]
    subprocess.run([*install, "vscode-jsonrpc@10"], check=True, capture_output=True, timeout=300)
    return folder


def test_vscode_jsonrpc(server, modules):
    told, _ = node(HERE / "vscode_client.mjs", modules, server.place.address(), POSCAR)
    assert told["relaxed"]["status"] == "pending"
    energy = told["result"]["result"]["results"]["energy"]
    assert energy == pytest.approx(-0.0060063, abs=1e-6)
    assert told["cancel"] == {"job_id": told["slow"]["job_id"], "cancelled": True, "error": None}
    lives = {
        told[name]["job_id"]: [
            change["status"]
            for change in told["changes"]
            if change["job_id"] == told[name]["job_id"] and change["from"] != change["status"]
        ]
        for name in ("relaxed", "slow")
    }
    assert lives == {
        told["relaxed"]["job_id"]: ["pending", "running", "completed"],
        told["slow"]["job_id"]: ["pending", "running", "cancelled"],
    }
    numbers = [change["seq"] for change in told["changes"]]
    assert numbers == sorted(set(numbers))
    assert numbers[0] > told["seq"]
    assert told["gaveUp"] == -32800
    assert told["unknown"] == -32601


def test_client_of_the_protocols_document(server):
    job, changes = node(ROOT / "examples" / "client.mjs", server.place.address(), POSCAR)
    assert job["status"] == "completed"
    assert job["result"]["energy_ev"] == pytest.approx(-0.0060063, abs=1e-6)
    # What was told when its last question was answered; the end may be on its way still.
    assert changes.splitlines()[0] == f"{job['job_id']} pending"


def test_document_shows_that_client():
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert (ROOT / "examples" / "client.mjs").read_text(encoding="utf-8") in text
