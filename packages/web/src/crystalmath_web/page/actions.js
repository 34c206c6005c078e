// What is done with jobs, each after it was said what that is: cancel, run again, remove files.

import { Fragment, Trouble, bytes, html, jobCount, link, useEffect, useRef, useState } from "./lib.js";
import { call, session } from "./server.js";
import { Parameters, Place, paramsOf, placeOf } from "./parameters.js";
import { Export } from "./table.js";

/** How long after the last key the server is asked what would come of it, in milliseconds. */
const PAUSE = 500;
const MOST = 10_000; // ids of one request
const NAMED = 500; // ids in an address

/** Look what a cancel would do: of the jobs, how many have not ended. */
async function planCancel(ids) {
  const states = {};
  for (let start = 0; start < ids.length; start += 1000) {
    const told = await call("jobs.status_many", { job_ids: ids.slice(start, start + 1000) });
    for (const job of told.jobs) (states[job.status] ??= []).push(job.job_id);
  }
  const { running = [], pending = [] } = states;
  const meant = [...running, ...pending];
  const left = ids.length - meant.length;
  return {
    says: [
      running.length && `${jobCount(running.length)} will be stopped while running, and what was computed of it is lost.`,
      pending.length && `${jobCount(pending.length)} will never begin.`,
      left && `${jobCount(left)} ended already, and will stay as it is.`,
    ],
    button: meant.length && `Cancel ${jobCount(meant.length)}`,
    act: () => call("jobs.cancel_many", { job_ids: meant }),
  };
}

/** Look what running jobs again would do, by a dry run. */
async function planRetry(ids, changes) {
  const told = await call("jobs.retry", { job_ids: ids, dry_run: true, ...changes });
  const how = Object.keys(changes).length ? "with what is changed here, and all else as it was" : "with all as it was";
  const good = told.jobs.filter((job) => job.status === "ok").map((job) => job.retry_of);
  const errors = {};
  for (const job of told.jobs) if (job.status === "error") errors[job.error] = (errors[job.error] ?? 0) + 1;
  // The same key again, as after a lost answer, gives the same new jobs.
  const key = `page-${crypto.randomUUID()}`;
  return {
    says: [
      good.length && `${jobCount(good.length)} will run again as ${good.length > 1 ? "new jobs" : "a new job"}, ${how} submitted. The old ${good.length > 1 ? "ones stay" : "one stays"}.`,
      ...Object.entries(errors).map(([error, count]) => `${jobCount(count)} cannot run again: ${error}`),
    ],
    button: good.length && `Run ${jobCount(good.length)} again`,
    act: () => call("jobs.retry", { job_ids: good, key, ...changes }),
  };
}

/** Look what removing the files of jobs would do, by a dry run. */
async function planPrune(ids) {
  const told = await call("jobs.prune", { job_ids: ids, dry_run: true, limit: MOST });
  const size = told.jobs.reduce((sum, job) => sum + job.size, 0);
  const errors = {};
  for (const job of told.left) errors[job.error] = (errors[job.error] ?? 0) + 1;
  const meant = told.jobs.map((job) => job.job_id);
  return {
    says: [
      meant.length && `The files of ${jobCount(meant.length)} (${bytes(size)}) will be removed for good: logs, outputs and ` +
        "whole results. Records, energies and labels stay.",
      ...Object.entries(errors).map(([error, count]) => `${jobCount(count)}: ${error}`),
    ],
    button: meant.length && `Remove the files of ${jobCount(meant.length)}`,
    act: () => call("jobs.prune", { job_ids: meant, limit: MOST }),
  };
}

/** What is changed of jobs that run again: of one recipe its parameters as a form, and the place. */
function Changes({ ids, onChanges }) {
  const [described, setDescribed] = useState(null);
  const [before, setBefore] = useState({ params: {} });
  const [values, setValues] = useState({});
  const [terms, setTerms] = useState({});
  const look = async () => {
    const { rows } = await call("jobs.table", { job_ids: ids, columns: ["recipe"] });
    const recipes = new Set(rows.map((row) => row.recipe));
    const isOne = recipes.size === 1 && rows.length === ids.length;
    if (ids.length === 1) setBefore(await call("jobs.specification", { job_id: ids[0] }));
    setDescribed(isOne ? await call("recipes.describe", { recipe: [...recipes][0], members: true }) : {});
  };
  useEffect(() => {
    look().catch(() => setDescribed({})); // its parameters can still be written as JSON
  }, []);
  useEffect(() => {
    if (!described) return;
    try {
      const { continued, ...place } = terms;
      const params = paramsOf(described, values);
      onChanges({
        ...(Object.keys(params).length && { params }), ...placeOf(place), ...(continued && { continued }),
      });
    } catch (error) {
      onChanges(null, error);
    }
  }, [described, values, terms]);
  const goOn = (event) => setTerms({ ...terms, continued: event.target.checked });
  if (!described) return html`<p class="note">Looking …</p>`;
  return html`<details class="changes"><summary>Change something</summary>
    <${Parameters} described=${described} values=${values} before=${before.params} within="again-" onValues=${setValues} />
    <fieldset><legend>Job</legend>
      <label><input type="checkbox" onChange=${goOn} /> Go on from the last geometry</label>
      <${Place} terms=${terms} before=${before} within="again-" onTerms=${setTerms} />
    </fieldset>
  </details>`;
}

const ACTIONS = {
  Cancel: { plan: planCancel }, "Run again": { plan: planRetry, Form: Changes }, "Remove files": { plan: planPrune },
};

/** Ask whether to do something, after the server was asked what it would do. */
function Confirmation({ name, ids, onEnd }) {
  const dialog = useRef();
  const [plan, setPlan] = useState(null);
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const [changes, setChanges] = useState({});
  const { plan: look, Form } = ACTIONS[name];
  useEffect(() => dialog.current.showModal(), []);
  const wanted = JSON.stringify(changes);
  useEffect(() => {
    let ended = false;
    setPlan(null);
    const told = (found) => ended || setPlan(found);
    const failed = (problem) => ended || setError(problem);
    const waiting = setTimeout(() => changes && look(ids, changes).then(told, failed), wanted === "{}" ? 0 : PAUSE);
    return () => {
      ended = true;
      clearTimeout(waiting);
    };
  }, [wanted]);
  const change = (found, problem = null) => {
    setError(problem);
    setChanges(found);
  };
  const act = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      const told = await plan.act();
      const failed = told.jobs.filter((job) => job.error).map((job) => job.error);
      if (failed.length) setError(new Error(`${jobCount(failed.length)}: ${failed[0]}`));
      else onEnd(told);
    } catch (problem) {
      setError(problem);
    }
    setBusy(false);
  };
  return html`<dialog ref=${dialog} aria-label=${name} onClose=${() => onEnd(null)}>
    <h2>${name}</h2>
    ${plan ? plan.says.filter(Boolean).map((text) => html`<p>${text}</p>`) : !error && html`<p>Looking …</p>`}
    <${Trouble} error=${error} />
    ${Form && html`<${Form} ids=${ids} onChanges=${change} />`}
    <form method="dialog" onSubmit=${() => dialog.current.close()}>
      <button type="submit" autofocus>Leave as it is</button>
      ${plan?.button && html`<button type="button" class="act" disabled=${busy} onClick=${act}>${plan.button}</button>`}
    </form>
  </dialog>`;
}

/** Buttons of what can be done with some jobs, and the question that each asks before. */
export function JobActions({ ids, names = Object.keys(ACTIONS), onDone }) {
  const [asked, setAsked] = useState(null);
  const end = (told) => {
    setAsked(null);
    if (told) onDone?.(asked, told);
  };
  return html`<${Fragment}>
    ${names.map((name) => html`<button key=${name} onClick=${() => setAsked(name)}>${name}</button>`)}
    ${asked && html`<${Confirmation} name=${asked} ids=${ids} onEnd=${end} />`}
  <//>`;
}

/** The bar below the table: what can be done with the chosen jobs. */
export function Actions({ chosen, count, onChooseAll, onDone }) {
  if (!chosen.size) return null;
  const ids = [...chosen];
  const more = count > chosen.size && count <= MOST;
  return html`<div class="actions" role="toolbar" aria-label="Chosen jobs">
    <b>${jobCount(chosen.size)}</b> chosen
    ${more && html`<button class="quiet" onClick=${onChooseAll}>choose all ${count.toLocaleString()}</button>`}
    <span class="space"></span>
    <${Export} find=${() => ids} what="the chosen jobs" />
    ${ids.length <= NAMED && html`<a class="button" href=${link({ view: "study", ids: ids.join() })}>Study</a>`}
    ${!session.value.read_only && html`<${JobActions} ids=${ids} onDone=${onDone} />`}
  </div>`;
}
