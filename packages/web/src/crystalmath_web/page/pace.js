// On the page of a running job: how far it has come, and how long such jobs took.

import { duration, html, runtime, useEffect, useState } from "./lib.js";
import { call, onChange } from "./server.js";
import { shareOf, toldProgress, toldUsual, usual } from "./usual.js";

/** How often it is asked, in milliseconds. */
const AGAIN = 3000;

export function Pace({ id }) {
  const [state, setState] = useState({});
  useEffect(() => {
    let ended = false;
    let isOver = false;
    const ask = async () => {
      const { jobs: [job] } = await call("jobs.status_many", { job_ids: [id] });
      const isRunning = job.status === "running" && !job.stage;
      const like = job.status === "pending" || isRunning ? await usual(job) : null;
      const told = isRunning ? (await call("jobs.progress", { job_ids: [id] })).jobs[0].progress : null;
      if (!ended) setState({ job, like, progress: told });
      isOver = !["pending", "running"].includes(job.status);
    };
    const quietly = () => document.hidden || ask().catch(() => null); // the next time will do
    setState({});
    quietly();
    const end = onChange((change) => change.job_id === id && quietly());
    const again = setInterval(() => isOver || quietly(), AGAIN);
    return () => {
      ended = true;
      end();
      clearInterval(again);
    };
  }, [id]);
  const { job, like, progress } = state;
  if (!job || !["running", "pending"].includes(job.status) || !(like || progress)) return null;
  const isRunning = job.status === "running";
  return html`<p class="pace" role="status">
    ${isRunning && like && html`<progress value=${shareOf(job, like)} aria-label="Of the usual time"></progress>`}
    ${isRunning && html`<b>${[`runs for ${duration(runtime(job))}`, progress && toldProgress(progress)].filter(Boolean).join(", ")}</b>`}
    ${like && html`<span class="note">${toldUsual(like)}</span>`}
  </p>`;
}
