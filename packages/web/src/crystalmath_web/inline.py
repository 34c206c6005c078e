"""The page's view of a structure as a separate document, which a notebook shows in a frame.

The frame has no origin, so that nothing in it reaches the notebook, and its rules forbid loading.
The document therefore includes the page's modules and the answers to their requests.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from html import escape
from typing import TYPE_CHECKING, Any

from crystalmath_web.app import PAGE, require_libraries

if TYPE_CHECKING:
    from crystalmath.client import Client

#: The most atoms of a view, in all frames together; further frames are left out.
MOST_ATOMS = 40_000
#: This module replaces the page's connection: it answers from data read before.
_SERVER = """
const answers = JSON.parse(document.getElementById("answers").textContent);
export const job = answers.job;
export async function call(method) {
  if (!answers[method]) throw new Error(method);
  return answers[method];
}
"""
_MAIN = """
import { html, render } from "./lib.js";
import { call, job } from "./server.js";
import { Trajectory } from "./structure.js";
import { trajectoryOf } from "./trajectory.js";
const box = document.getElementById("view");
const found = await trajectoryOf(job, null, () => null).catch(() => null);
render(found ? html`<${Trajectory} trajectory=${found} />` : html`<p>No structure yet.</p>`, box);
"""
#: The browser unpacks the modules, which are compressed to a third of their size.
_START = """
(async () => {
  const letters = atob(document.getElementById("modules").textContent);
  const packed = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  const text = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const modules = JSON.parse(await new Response(text).text());
  const imports = {};
  for (const [name, source] of Object.entries(modules)) {
    imports[name] = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  }
  const map = document.createElement("script");
  map.type = "importmap";
  map.textContent = JSON.stringify({ imports });
  document.head.append(map);
  await import("page/main.js");
})();
"""
_RULES = (
    "default-src 'none'; script-src 'unsafe-inline' blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:"
)
#: An import of another module of the page, relative to the module's folder.
_NAMED = re.compile(r"""((?:from|import)\s*\(?\s*)(["'])\./([\w./-]+)\2""")


class View:
    """The structure of a job and its frames, as a notebook shows them.

    Parameters
    ----------
    client : Client
        The client that reads the job.
    job_id : str
        The job; `UnknownJob` if there is no such one.
    """

    def __init__(self, client: Client, job_id: str) -> None:
        job = client.job(job_id)
        require_libraries()
        self._title = f"Structure of job {job_id}"
        self._answers: dict[str, Any] = {"job": {"job_id": job_id, "status": job.state.value}}
        if frames := _frames(client, job_id):
            self._answers["jobs.trajectory"] = frames
        else:  # without frames the page shows the result's structure, or else the submitted one
            answer = client.call("jobs.result", {"job_id": job_id, "field": "atoms"})
            self._answers["jobs.result"] = {"result": answer["result"]}
            submitted = client.specification(job_id)["structure"]
            self._answers["jobs.specification"] = {"structure": submitted}

    def __repr__(self) -> str:
        return f"<{self._title}>"

    def _repr_html_(self) -> str:
        # No text of a job may end the script element.
        answers = json.dumps(self._answers).replace("<", "\\u003c")
        document = (
            f'<!doctype html><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_RULES}">'
            f"<style>{(PAGE / 'style.css').read_text(encoding='utf-8')}</style><div id=view></div>"
            f'<script type="application/json" id=answers>{answers}</script>'
            f'<script type="text/plain" id=modules>{_packed()}</script><script>{_START}</script>'
        )
        return (
            f'<iframe sandbox="allow-scripts" title="{self._title}" width="100%" height="340" '
            f'style="border:0" srcdoc="{escape(document)}"></iframe>'
        )

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}


def _frames(client: Client, job_id: str) -> dict[str, Any] | None:
    """Return as many frames as fit, with the last one, as if these were all."""
    params = {"job_id": job_id, "start": -1}
    last = client.call("jobs.trajectory", params)
    if not last["frames"]:
        return None
    stride = max(1, -(-last["frames"] * len(last["numbers"]) // MOST_ATOMS))
    params |= {"start": (last["frames"] - 1) % stride, "stop": last["frames"], "stride": stride}
    chosen = client.call("jobs.trajectory", params)
    count = chosen["positions"]["shape"][0] if chosen["positions"] else 0
    return {**chosen, "start": 0, "stride": 1, "frames": count}


def _packed() -> str:
    """Return the modules of the view by their import names, compressed."""
    sources = {"page/server.js": _SERVER, "page/main.js": _MAIN}
    wanted = ["page/main.js", "page/server.js"]
    while wanted:
        name = wanted.pop()
        folder = name.rpartition("/")[0]
        if name not in sources:
            path = PAGE / name.removeprefix("page/")
            sources[name] = path.read_text(encoding="utf-8")
        wanted += {f"{folder}/{one[3]}" for one in _NAMED.finditer(sources[name])} - sources.keys()
        sources[name] = _NAMED.sub(rf"\1\2{folder}/\3\2", sources[name])
    return base64.b64encode(gzip.compress(json.dumps(sources).encode(), mtime=0)).decode()
