"""TypeScript's types of all methods, made by OpenRPC's own generator from what the server tells."""

import json
import shutil
import subprocess

import pytest

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed"),
]

#: The generator, and the compiler that it is tried with.
PACKAGES = ["@open-rpc/typings@1.13", "typescript@5"]


def run(folder, *command):
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_typescript(server, tmp_path):
    (tmp_path / "openrpc.json").write_text(json.dumps(server.call("rpc.discover")))
    run(tmp_path, "npm", "install", "--no-audit", "--no-fund", "--prefix", tmp_path, *PACKAGES)
    run(tmp_path, "npx", "open-rpc-typings", "--document=openrpc.json", "--output-ts=.")
    (tmp_path / "use.ts").write_text(
        """
        import type { JobsSubmitResult, JobsSubmitStructure, Job, JobStatus } from "./index";
        const structure: JobsSubmitStructure = "a POSCAR";
        export const pending = (answer: JobsSubmitResult): boolean =>
            "status" in answer && answer.status === "pending";
        export const energy = (job: Job): number | null | undefined => job.result?.energy_ev;
        export const status: JobStatus = "completed";
        export { structure };
        """
    )
    run(tmp_path, "npx", "tsc", "--noEmit", "--strict", "--target", "es2020", "use.ts", "index.ts")
