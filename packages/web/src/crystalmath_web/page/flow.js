// A flow: how far it has come, and its steps as a tree or a graph, in which each is a job.

import {
  Fragment, STATES, State, Trouble, duration, energy, errorOf, formula, hasEnded, html, link, runtime, shortRecipe,
  toldSteps, useEffect, useMemo, useState,
} from "./lib.js";
import { Graph, edgesOf } from "./graph.js";
import { call, useChanges } from "./server.js";

/** Steps of one request: the server sends no more. */
const MOST = 10_000;
/** Scopes of a flow with more steps are closed at first, and of one scope no more are drawn. */
const FEW = 100;
const SHOWN = 500;
const FIELDS = [
  "status", "formula", "recipe", "parents", "error", "reason", "started_at", "finished_at", "result.energy_ev",
];

/** Return the name of a step; the flow that it names is another one where a retry has taken it over. */
const partOf = (job) => job.parents.find((one) => one.role === "flow")?.step ?? job.job_id;

/** Count jobs by state. */
function countsOf(jobs) {
  const counts = {};
  for (const job of jobs) counts[job.status] = (counts[job.status] ?? 0) + 1;
  return counts;
}

/** Put steps, the newest first, below their subflows: `fan#0/relax_job#1` is in `fan#0`. */
function treeOf(jobs) {
  const newest = new Map();
  // One that was retried counts once.
  for (const job of jobs) if (!newest.has(partOf(job))) newest.set(partOf(job), job);
  const root = { name: "", jobs: [], members: new Map() };
  for (const [path, job] of [...newest].reverse()) {
    const names = path.split("/");
    let scope = root;
    scope.jobs.push(job);
    for (const name of names.slice(0, -1)) {
      if (!scope.members.has(name)) scope.members.set(name, { name, jobs: [], members: new Map() });
      scope = scope.members.get(name);
      scope.jobs.push(job);
    }
    scope.members.set(names.at(-1), { name: names.at(-1), job });
  }
  return root;
}

/** Ask for the steps of a flow, again whenever jobs have changed, until it has ended. */
export function useFlow(flow) {
  const [state, setState] = useState({});
  const ask = async () => {
    try {
      const { jobs } = await call("jobs.list", { parent: flow.job_id, limit: MOST, fields: FIELDS });
      setState({ root: treeOf(jobs) });
    } catch (error) {
      setState((before) => ({ ...before, error }));
    }
  };
  const isFlow = flow.stage !== null;
  useEffect(() => {
    if (isFlow) ask();
  }, [flow.job_id, flow.status]);
  useChanges(() => isFlow && !hasEnded(flow.status) && ask());
  return state;
}

/** How many steps of a flow are in which state, each the way to those in the table. */
export function FlowProgress({ flow, root }) {
  const counts = root ? countsOf(root.jobs) : (flow.steps ?? {});
  const all = Object.values(counts).reduce((sum, count) => sum + count, 0);
  const table = { view: "jobs", q: `parent:${flow.job_id}` };
  return html`<p class="flow">
    <progress max=${Math.max(1, all)} value=${counts.completed ?? 0} aria-label=${`Steps: ${toldSteps(counts)}`}></progress>
    <b>${toldSteps(counts)}</b>
    ${STATES.filter((state) => counts[state]).map(
      (state) => html`<a href=${link({ ...table, state })}><${State} state=${state} /> ${counts[state]}</a>`,
    )}
    ${all > 0 && html`<a href=${link(table)}>as a table</a>`}
  </p>`;
}

const lastPart = (job) => partOf(job).split("/").at(-1);

export function FlowTree({ flow: { root, error } }) {
  const [isGraph, setGraph] = useState(false);
  const hasEdges = useMemo(() => root && edgesOf(root.jobs).length > 0, [root]);
  if (!root) return error ? html`<${Trouble} error=${error} />` : html`<p class="note">Looking …</p>`;
  if (!root.jobs.length) return html`<p class="empty">It has called no step yet.</p>`;
  const button = (text, value) => html`<button aria-pressed=${String(isGraph === value)} onClick=${() => setGraph(value)}>${text}</button>`;
  return html`<${Fragment}>
    <${Trouble} error=${error} />
    ${hasEdges && html`<div class="states choose" role="group" aria-label="Steps as">${button("tree", false)} ${button("graph", true)}</div>`}
    ${hasEdges && isGraph
      ? html`<${Graph} jobs=${root.jobs} write=${lastPart} label="Graph of the steps" />`
      : html`<ul class="steps" role="tree" aria-label="Steps"><${Members} scope=${root} isOpen=${root.jobs.length <= FEW} /></ul>`}
  <//>`;
}

function Members({ scope, isOpen }) {
  const members = [...scope.members.values()];
  const more = members.length - SHOWN;
  return html`<${Fragment}>
    ${members.slice(0, SHOWN).map((one) =>
      one.job ? html`<${Step} key=${one.name} name=${one.name} job=${one.job} />` : html`<${Scope} key=${one.name} scope=${one} isOpen=${isOpen} />`,
    )}
    ${more > 0 && html`<li role="none" class="note">${more.toLocaleString()} more: see them as a table</li>`}
  <//>`;
}

function Scope({ scope, isOpen }) {
  const [open, setOpen] = useState(isOpen);
  const counts = useMemo(() => countsOf(scope.jobs), [scope]);
  const trouble = counts.failed ? "failed" : "";
  return html`<li role="treeitem" aria-expanded=${String(open)}>
    <div class="step">
      <button class="quiet" onClick=${() => setOpen(!open)}>${open ? "▾" : "▸"} ${scope.name}</button>
      <span class=${`state bare ${trouble}`}>${toldSteps(counts)}</span>
    </div>
    ${open && html`<ul role="group"><${Members} scope=${scope} isOpen=${isOpen} /></ul>`}
  </li>`;
}

function Step({ name, job }) {
  const why = errorOf(job) ?? (job.status === "pending" ? job.reason : null);
  return html`<li role="treeitem">
    <div class="step">
      <a href=${link({ view: "job", id: job.job_id })} title=${shortRecipe(job.recipe)}>${name}</a>
      <span class="space">${formula(job.formula)}</span>
      <span class="number">${energy(job.result?.energy_ev, "eV")}</span>
      <span class="number">${duration(runtime(job))}</span>
      <${State} state=${job.status} />
    </div>
    ${why && html`<p class=${job.status === "failed" ? "trouble" : "note"} title=${why}>${why}</p>`}
  </li>`;
}
