// What belongs to a job, one part at a time: inputs, files, log, result, and the lines that do it again.

import { Copy, Fragment, Trouble, bytes, fromBase64, hasEnded, html, link, moment, address, save, shortRecipe, useEffect, useRef, useState, visible } from "./lib.js";
import { Tree } from "./tree.js";
import { call } from "./server.js";

/** Ask for something of a job, again where it has changed. */
function useAsked(method, params, changes) {
  const [state, setState] = useState({});
  useEffect(() => {
    let ended = false;
    call(method, params).then(
      (told) => ended || setState({ told }),
      (error) => ended || setState({ error }),
    );
    return () => (ended = true);
  }, changes);
  return state;
}

const Waiting = ({ error }) => (error ? html`<${Trouble} error=${error} />` : html`<p class="note">Looking …</p>`);

// --- inputs ------------------------------------------------------------------------------------

export function Inputs({ job, story }) {
  const { told, error } = useAsked("jobs.inputs", { job_id: job.job_id }, [job.job_id, job.status]);
  return html`<${Fragment}>
    <h2>Parameters</h2>
    ${Object.keys(story.params).length
      ? html`<ul class="tree" role="tree" aria-label="Parameters">
          ${Object.entries(story.params).map(([name, value]) => html`<${Tree} key=${name} name=${name} value=${value} open />`)}
        </ul>`
      : html`<p class="note">All as the recipe has them.</p>`}
    ${told ? html`<${Steps} inputs=${told.inputs} />` : html`<${Waiting} error=${error} />`}
  <//>`;
}

export function Steps({ inputs }) {
  return html`<${Fragment}>
    ${inputs.steps.map(
      (step, number) => html`<section key=${number} class="step">
        <h2>${inputs.steps.length > 1 ? `${number + 1}. ` : ""}${step.program} <span class="note">${step.formula} ${step.preset}</span></h2>
        <table class="settings">
          <thead><tr><th>File</th><th>Setting</th><th>Value</th><th>Set by</th><th>Instead of</th></tr></thead>
          <tbody>
            ${step.settings.map(
              (one) => html`<tr class=${one.certain ? "" : "unsure"}>
                <td>${one.file}</td><th scope="row">${one.name}</th><td>${one.value}</td><td>${one.origin}</td><td>${one.instead_of}</td>
              </tr>`,
            )}
          </tbody>
        </table>
        ${Object.entries(step.files).map(([name, text]) => html`<details><summary>${name}</summary><pre>${text}</pre></details>`)}
      </section>`,
    )}
    ${inputs.rest && html`<p class="note">${inputs.rest}</p>`}
  <//>`;
}

// --- files, and the log ------------------------------------------------------------------------

export function Files({ job }) {
  const shown = address.value.get("file");
  const { told, error } = useAsked("jobs.files", { job_id: job.job_id }, [job.job_id, job.status]);
  if (!told) return html`<${Waiting} error=${error} />`;
  const there = link({ view: "job", id: job.job_id, part: "files" });
  return html`<${Fragment}>
    ${shown && html`<h2>${visible(shown)} <a class="note" href=${there}>close</a></h2><${Text} job=${job} file=${shown} key=${shown} />`}
    <table class="files">
      <thead><tr><th>File</th><th class="number">Size</th><th>Written</th><th><span class="unseen">Download</span></th></tr></thead>
      <tbody>
        ${told.files.map(
          (one) => html`<tr key=${one.file}>
            <td>${one.is_link ? visible(one.file) : html`<a href=${`${there}&${new URLSearchParams({ file: one.file })}`}>${visible(one.file)}</a>`}</td>
            <td class="number">${bytes(one.size)}</td><td>${moment(one.modified_at)}</td>
            <td>${!one.is_link && html`<${Download} job=${job} file=${one} />`}</td>
          </tr>`,
        )}
      </tbody>
    </table>
    ${told.more > 0 && html`<p class="note">${told.more} more</p>`}
  <//>`;
}

/** Bytes of one request. */
const PIECE = 4 * 2 ** 20;

/** Bring a file onto the reader's own machine, piece by piece. */
function Download({ job, file }) {
  const [share, setShare] = useState(null);
  const [error, setError] = useState(null);
  const bring = async () => {
    setError(null);
    const pieces = [];
    let offset = 0;
    try {
      do {
        setShare(offset / Math.max(1, file.size));
        const told = await call("jobs.file", { job_id: job.job_id, file: file.file, offset, max_bytes: PIECE });
        pieces.push(fromBase64(told.data));
        if (told.offset === offset) break;
        ({ offset } = told);
      } while (offset < file.size);
      save(pieces, file.file.split("/").pop());
    } catch (problem) {
      setError(problem);
    }
    setShare(null);
  };
  return html`<button class="quiet" disabled=${share !== null} aria-label=${`Download ${file.file}`} onClick=${bring}>
      ${share === null ? "download" : `${Math.round(100 * share)} %`}
    </button><${Trouble} error=${error} />`;
}

export const Log = ({ job }) => html`<${Text} job=${job} key=${job.attempt} />`;

/** No more of a text than that is kept on the page, in characters. */
const LONGEST = 400_000;

/** The end of a log or file, which goes on while the job writes it. */
function Text({ job, file = null }) {
  const [text, setText] = useState(null);
  const [error, setError] = useState(null);
  const box = useRef();
  useEffect(() => {
    const leaving = new AbortController();
    const read = async () => {
      let offset = null;
      while (!leaving.signal.aborted) {
        const asked = { job_id: job.job_id, ...(file && { file }), max_bytes: 262144 };
        const where = offset === null ? { tail: 1000 } : { offset, timeout_s: 20 };
        const told = await call("jobs.logs", { ...asked, ...where }, { signal: leaving.signal });
        setText((before) => ((before ?? "") + told.text).slice(-LONGEST));
        offset = told.offset;
        if (told.finished || (told.file === null && hasEnded(job.status)) || (offset >= told.size && hasEnded(job.status))) return;
        if (!told.text) await new Promise((resolve) => setTimeout(resolve, 500));
      }
    };
    read().catch((problem) => leaving.signal.aborted || setError(problem));
    return () => leaving.abort();
  }, [job.job_id, file]);
  useEffect(() => {
    if (box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [text]);
  if (error) return html`<${Trouble} error=${error} />`;
  if (text === null) return html`<p class="note">Looking …</p>`;
  if (!text) return html`<p class="empty">Nothing was written.</p>`;
  return html`<pre class="log" tabindex="0" ref=${box} aria-label=${visible(file ?? "Log")}>${plain(text)}</pre>`;
}

/** Take control sequences of terminals out of a text; a carriage return ends its line, as in `crystalmath logs`. */
const plain = (text) =>
  visible(text.replace(/\u001b\[[0-9;?]*[A-Za-z]|\u001b\][^\u0007]*\u0007/g, "").replace(/\r\n?/g, "\n"));

// --- the result --------------------------------------------------------------------------------

export function Result({ job }) {
  const { told, error } = useAsked("jobs.result", { job_id: job.job_id, brief: true }, [job.job_id, job.status]);
  if (!hasEnded(job.status)) return html`<p class="empty">There is a result once the job has completed.</p>`;
  if (!told) return html`<${Waiting} error=${error} />`;
  if (job.status === "cancelled") return html`<p class="empty">It was cancelled, and has no result.</p>`;
  if (told.result === null && !told.brief) return html`<pre class="trouble">${visible(told.traceback ?? told.error)}</pre>`;
  return html`<${Fragment}>
    ${told.brief && html`<p class="note">The result is large: this is a part of it. <code>crystalmath result ${job.job_id} --json</code> prints all of it.</p>`}
    ${told.result !== null && html`<ul class="tree" role="tree" aria-label="Result"><${Tree} name="result" value=${told.result} open /></ul>`}
  <//>`;
}

// --- the lines that do it again ----------------------------------------------------------------

const shellWord = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

function commandOf(job, params) {
  const words = ["crystalmath", "submit", shortRecipe(job.recipe), "STRUCTURE"];
  for (const [name, value] of Object.entries(params)) words.push("--param", shellWord(`${name}=${typeof value === "string" ? value : JSON.stringify(value)}`));
  words.push("--engine", job.engine);
  if (job.cluster !== "local") words.push("--cluster", shellWord(job.cluster));
  if (job.name) words.push("--name", shellWord(job.name));
  for (const [name, value] of Object.entries(job.labels)) words.push("--label", shellWord(`${name}=${value}`));
  if (job.walltime_s) words.push("--walltime", `${job.walltime_s}s`);
  return words.join(" ");
}

export function Lines({ job, story }) {
  const { told, error } = useAsked("jobs.script", { job_id: job.job_id, shell: true }, [job.job_id]);
  const retry = `crystalmath retry ${job.job_id}`;
  const submit = commandOf(job, story.params);
  return html`<${Fragment}>
    <${Code} title="The same job again" text=${retry} />
    <${Code} title="A job like it" text=${submit} />
    ${told ? html`<${Code} title="The same calculation by quacc alone" text=${told.script} />` : html`<${Waiting} error=${error} />`}
    ${told?.shell && html`<${Code} title="Its programs, in the shell" text=${told.shell} />`}
  <//>`;
}

const Code = ({ title, text }) => html`<h2>${title} <${Copy} text=${text} what=${title} /></h2><pre class="code" tabindex="0">${text}</pre>`;

