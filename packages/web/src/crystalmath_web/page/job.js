// One job: where it stands, its structure and curves, what went in, and what came out.

import {
  Copy, ENERGY_DIGITS, FORCE_DIGITS, Fragment, State, Trouble, address, ago, duration, energy, errorOf, force, formula,
  go, hasEnded, html, link, moment, nameOf, runtime, shortId, shortRecipe, signal, stepNumbers, useEffect, useMemo,
  useState, visible, whereOf,
} from "./lib.js";
import { JobActions } from "./actions.js";
import { Failure } from "./failure.js";
import { FlowProgress, FlowTree, useFlow } from "./flow.js";
import { Files, Inputs, Lines, Log, Result } from "./job_parts.js";
import { Plot } from "./plot.js";
import { Crystal, Trajectory, shownOf } from "./structure.js";
import { call, onChange, session } from "./server.js";
import { shiftOf, trajectoryOf } from "./trajectory.js";

/** How often a running job's progress is read, in milliseconds. */
const AGAIN = 2000;

const PARTS = { story: Story, inputs: Inputs, files: Files, log: Log, result: Result, lines: Lines };

/** Ask for a job's story now, and with each of its changes. */
function useStory(id) {
  const [state, setState] = useState({});
  useEffect(() => {
    let ended = false;
    const ask = () =>
      call("jobs.show", { job_id: id }).then(
        (story) => ended || setState({ story }),
        (error) => ended || setState((before) => ({ ...before, error })),
      );
    setState({});
    ask();
    const end = onChange((changed) => changed.job_id === id && ask());
    return () => {
      ended = true;
      end();
    };
  }, [id]);
  return state;
}

/** Ask for the ionic steps of a job, again and again while it runs. */
function useSteps(job) {
  const [steps, setSteps] = useState([]);
  useEffect(() => {
    if (job.status === "pending") return undefined;
    let ended = false;
    const ask = async () => {
      const told = await call("jobs.progress", { job_ids: [job.job_id], history: true });
      if (!ended) setSteps(told.jobs[0].progress?.history ?? []);
    };
    const quietly = () => document.hidden || ask().catch(() => null);
    ask().catch(() => null);
    const again = job.status === "running" && setInterval(quietly, AGAIN);
    return () => {
      ended = true;
      clearInterval(again);
    };
  }, [job.job_id, job.status]);
  return steps;
}

/** Ask for the frames of a job; where there are none, for its structure; undefined until that is known. */
function useTrajectory(job, steps) {
  const [trajectory, setTrajectory] = useState();
  useEffect(() => {
    let ended = false;
    const show = (found) => ended || setTrajectory(found);
    trajectoryOf(job, trajectory, show).then(show, () => show(trajectory ?? null));
    return () => (ended = true);
  }, [job.job_id, job.status, steps.length]);
  return trajectory;
}

export function Job() {
  const id = address.value.get("id") ?? "";
  const { story, error } = useStory(id);
  if (!story) return error ? html`<${Trouble} error=${error} />` : html`<p class="note">Looking …</p>`;
  return html`<${Shown} key=${id} story=${story} />`;
}

function Shown({ story }) {
  const { job } = story;
  const name = address.value.get("part") ?? "story";
  const Part = PARTS[name] ?? Story;
  const flow = useFlow(job);
  const isFlow = job.stage !== null;
  const steps = useSteps(job);
  const trajectory = useTrajectory(job, steps);
  const retried = story.parents.find((one) => one.role === "retry" || one.role === "reread");
  const shown = useMemo(() => signal(null), []); // the number of a frame; null is the last one
  useEffect(() => {
    document.title = `${nameOf(job)} ${job.status}`;
    return () => (document.title = "CrystalMath jobs");
  }, [job.name, job.status]);
  const done = (asked, told) => {
    const next = asked === "Run again" && told.jobs[0].job_id;
    if (next) go(link({ view: "job", id: next }));
  };
  const possible = hasEnded(job.status) ? ["Run again", "Remove files"] : ["Cancel"];
  return html`<${Fragment}>
    <div class="title">
      <h1>${nameOf(job)}</h1>
      <${State} state=${job.status} />
      <span>${formula(job.formula)}</span>
      <span>${shortRecipe(job.recipe)}</span>
      <span class="note">${shortId(job.job_id)} <${Copy} text=${job.job_id} what="the id" /></span>
      <span class="space"></span>
      ${trajectory && !session.value.read_only && html`<a class="button" href=${link({ view: "submit", structure: job.job_id })}>Use this structure</a>`}
      ${!session.value.read_only && html`<${JobActions} key=${job.status} ids=${[job.job_id]} names=${possible} onDone=${done} />`}
    </div>
    ${job.superseded_by && html`<p class="superseded"><b>superseded</b> by <a href=${link({ view: "job", id: job.superseded_by })}>job ${shortId(job.superseded_by)}</a>, which counts in its place.</p>`}
    ${retried && html`<p class="note">${retried.role === "reread" ? "It reads the files of" : "It repairs"}
      <a href=${link({ view: "job", id: retried.job_id })}>${retried.name ?? ""} job ${shortId(retried.job_id)}</a>, which ${retried.status ?? "is gone"}.</p>`}
    ${job.status === "failed" ? html`<${Failure} job=${job} story=${story} />`
    : errorOf(job) ? html`<pre class="trouble">${visible(job.error)}</pre>` : job.reason && html`<p class="note">${job.reason}</p>`}
    ${isFlow && html`<${FlowProgress} flow=${job} root=${flow.root} />`}
    <div class=${isFlow ? "top of-flow" : steps.length ? "top" : "top still"}>
      <section aria-label="Structure">${trajectory ? html`<${Trajectory} trajectory=${trajectory} shown=${shown} />` : html`<p class="empty">${trajectory === null ? "No structure yet." : "Looking …"}</p>`}</section>
      <section aria-label=${isFlow ? "Steps" : "Energy and force"}>
        <${Facts} job=${job} />
        ${isFlow && html`<${FlowTree} flow=${flow} />`}
        ${steps.length > 0 && html`<${Curves} steps=${steps} trajectory=${trajectory} shown=${shown} isFlow=${isFlow} />`}
        ${trajectory && html`<${Crystal} trajectory=${trajectory} shown=${shown} />`}
      </section>
    </div>
    <nav class="parts" aria-label="Parts">
      ${Object.keys(PARTS).map(
        (each) => html`<a href=${link({ view: "job", id: job.job_id, part: each })} aria-current=${each === name ? "page" : null}>${each}</a>`,
      )}
    </nav>
    <section class="part" aria-label=${name}><${Part} story=${story} job=${job} /></section>
  <//>`;
}

function Facts({ job }) {
  const facts = [
    ["Energy", job.result?.energy_ev != null && energy(job.result.energy_ev, "eV")],
    ["Largest force", job.result?.max_force_ev_ang != null && force(job.result.max_force_ev_ang, "eV/Å")],
    ["Ran for", job.started_at && duration(runtime(job))],
    ["Where", whereOf(job)],
    ["Submitted", ago(job.created_at)],
  ];
  return html`<dl class="facts">
    ${facts.filter(([, value]) => value).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

function Curves({ steps, trajectory, shown, isFlow }) {
  const x = useMemo(() => stepNumbers(steps), [steps]);
  const series = useMemo(
    () =>
      [
        { label: "energy (eV)", values: steps.map((step) => step.energy_ev), digits: ENERGY_DIGITS },
        { label: "largest force (eV/Å)", values: steps.map((step) => step.max_force_ev_ang), digits: FORCE_DIGITS, log: true },
      ].filter((each) => each.values.some((value) => value !== null)),
    [steps],
  );
  const shift = useMemo(() => (trajectory?.count > 1 ? shiftOf(trajectory, steps) : null), [trajectory, steps]);
  if (!series.length) return null;
  const last = steps.at(-1);
  const label = `Energy and largest force of ${steps.length} steps; step ${x.at(-1)} has ${energy(last.energy_ev, "eV")}, ${force(last.max_force_ev_ang, "eV/Å")}`;
  const frames = shift !== null && {
    at: shownOf(trajectory, shown) + shift,
    onAt: (step) => (shown.value = step - shift >= trajectory.count - 1 ? null : Math.max(0, step - shift)),
  };
  return html`<${Plot} x=${x} series=${series} xLabel="ionic step" label=${label} fill=${!isFlow} ...${frames} />`;
}

const ROLES = {
  structure: "its structure", value: "a value of its result", after: "it ended before", retry: "run again",
  reread: "read again", flow: "a step of the flow",
};

function Relatives({ title, jobs }) {
  if (!jobs.length) return null;
  return html`<h2>${title}</h2>
    <ul class="relatives">
      ${jobs.map(
        (one) => html`<li>
          <a href=${link({ view: "job", id: one.job_id })}>${nameOf(one)}</a>
          ${" "}<${State} state=${one.status ?? "unknown"} /> ${shortRecipe(one.recipe)}
          <span class="note"> ${ROLES[one.role] ?? one.role}${one.place ?? one.step ? `: ${one.place ?? one.step}` : ""}</span>
        </li>`,
      )}
    </ul>`;
}

function Story({ story, job }) {
  const { events, attempts, parents, children, potcars } = story;
  return html`<div class="story">
    <div>
      <h2>What happened</h2>
      <ol class="events">
        ${events.map(
          (event) => html`<li key=${event.seq}>
            <time title=${moment(event.at)}>${moment(event.at)}</time>
            ${event.from === event.to ? html`<span class="note">noted</span>` : html`<${State} state=${event.to} />`}
            <span>${event.reason}</span>
          </li>`,
        )}
      </ol>
      ${attempts.length > 1 &&
      html`<h2>Attempts</h2>
        <ul>${attempts.map((one) => html`<li>${one.attempt}: ${one.outcome ?? "not ended"} ${one.host && `on ${one.host}`} ${errorOf({ ...one, status: one.outcome })}</li>`)}</ul>`}
    </div>
    <div>
      <${Relatives} title="Came of" jobs=${parents} />
      <${Relatives} title="Came of it" jobs=${children.filter((one) => one.role !== "flow")} />
      <h2>Record</h2>
      <dl>
        <dt>Id</dt><dd>${job.job_id} <${Copy} text=${job.job_id} what="the whole id" /></dd>
        ${Object.entries(job.labels).map(([key, value]) => html`<dt>${key}</dt><dd>${value}</dd>`)}
        ${job.key && html`<dt>Key</dt><dd>${job.key}</dd>`}
        ${job.walltime_s && html`<dt>Walltime</dt><dd>${duration(job.walltime_s)}</dd>`}
        ${Object.entries(job.resources ?? {}).map(([key, value]) => html`<dt>${key}</dt><dd>${JSON.stringify(value)}</dd>`)}
        <dt>Folder</dt><dd>${job.work_dir} <${Copy} text=${job.work_dir} what="the folder" /></dd>
        ${potcars.map((one) => html`<dt>${one.symbol}</dt><dd title=${one.path}>${one.titel ?? one.setup}</dd>`)}
      </dl>
      ${job.warnings.length > 0 &&
      html`<h2>Warnings</h2><ul>${job.warnings.map((one) => html`<li>${one.message} <span class="note">${one.remedy}</span></li>`)}</ul>`}
    </div>
  </div>`;
}
