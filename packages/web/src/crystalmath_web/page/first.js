// A home without jobs: the three steps to the first one.

import { Copy, html, link } from "./lib.js";
import { session } from "./server.js";

const EXAMPLE = "quacc.recipes.emt.core.relax_job";
const COMMAND = "crystalmath submit emt.core.relax_job POSCAR --param opt_params.fmax=0.02";

export function FirstSteps() {
  const page = session.value.read_only
    ? html`<p>This page is read-only: jobs come from the command line, from Python or from another page.</p>`
    : html`<p><a href=${link({ view: "submit", recipe: EXAMPLE })}>Open the form of a relaxation</a>, which needs no program beside
        Python, and drop a CIF, XYZ or POSCAR file onto it. The form shows whether the job would run before it is submitted.</p>`;
  return html`<section class="first" aria-label="First steps">
    <h2>No job yet. Three steps to the first one:</h2>
    <ol>
      <li><h3>See what is ready</h3><p><a href=${link({ view: "home" })}>Home</a> shows engines, programs and clusters, and what each of them lacks.</p></li>
      <li><h3>Submit a job</h3>${page}</li>
      <li><h3>Or do it in a shell</h3><p>Jobs from a shell or a notebook appear here at once.</p>
        <pre class="code" tabindex="0">${COMMAND}</pre><${Copy} text=${COMMAND} label="copy the command" /></li>
    </ol>
  </section>`;
}
