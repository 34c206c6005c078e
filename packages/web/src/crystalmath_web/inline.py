"""The page's view of a structure as a document of its own, which a notebook shows in a frame.

The frame has no origin, so that nothing in it reaches the notebook, and its rules let it load
nothing: the page's modules and the answers that they ask for are in it.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
from html import escape
from typing import TYPE_CHECKING, Any

from crystalmath_web.app import PAGE

if TYPE_CHECKING:
    from crystalmath.client import Client

#: So many atoms are in it at most, in all frames together; further frames are left out.
MOST_ATOMS = 40_000
#: What the page's modules ask, is answered by what was read before.
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
#: Modules are loaded from what the browser unpacks: their text is a third of its size so.
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
#: How a module names another one of the page, below its own folder.
_NAMED = re.compile(r"""((?:from|import)\s*\(?\s*)(["'])\./([\w./-]+)\2""")


class View:
    """The structure of a job and its frames, as a notebook shows them.

    Parameters
    ----------
    client : Client
        Whom to ask.
    job_id : str
        The job; `UnknownJob` if there is no such one.
    """

    def __init__(self, client: Client, job_id: str) -> None:
        job = client.job(job_id)
        self._title = f"Structure of job {job_id}"
        self._answers: dict[str, Any] = {"job": {"job_id": job_id, "status": job.state.value}}
        if frames := _frames(client, job_id):
            self._answers["jobs.trajectory"] = frames
        else:  # it has written none: its result has a structure, or what it was given
            asked = {"job_id": job_id, "field": "atoms"}
            self._answers["jobs.result"] = {"result": client.call("jobs.result", asked)["result"]}
            given = client.specification(job_id)["structure"]
            self._answers["jobs.specification"] = {"structure": given}

    def __repr__(self) -> str:
        return f"<{self._title}>"

    def _repr_html_(self) -> str:
        # Nothing of a job ends the element.
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
    """Return as many frames as fit, the last among them, as if they were all."""
    asked = {"job_id": job_id, "start": -1}
    last = client.call("jobs.trajectory", asked)
    if not last["frames"]:
        return None
    stride = max(1, -(-last["frames"] * len(last["numbers"]) // MOST_ATOMS))
    asked |= {"start": (last["frames"] - 1) % stride, "stop": last["frames"], "stride": stride}
    told = client.call("jobs.trajectory", asked)
    count = told["positions"]["shape"][0] if told["positions"] else 0
    return {**told, "start": 0, "stride": 1, "frames": count}


def _packed() -> str:
    """Return all modules that the view consists of, by the names under which they are imported."""
    found = {"page/server.js": _SERVER, "page/main.js": _MAIN}
    wanted = ["page/main.js", "page/server.js"]
    while wanted:
        name = wanted.pop()
        folder = name.rpartition("/")[0]
        if name not in found:
            path = PAGE / name.removeprefix("page/")
            found[name] = path.read_text(encoding="utf-8")
        wanted += {f"{folder}/{one[3]}" for one in _NAMED.finditer(found[name])} - found.keys()
        found[name] = _NAMED.sub(rf"\1\2{folder}/\3\2", found[name])
    return base64.b64encode(gzip.compress(json.dumps(found).encode(), mtime=0)).decode()
