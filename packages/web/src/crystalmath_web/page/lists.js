// The list of jobs that was shown last: the way back to it, and the jobs before and after one of them.

import { address, html, link, nameOf, useEffect, useState } from "./lib.js";
import { call } from "./server.js";

/** How many rows are looked at on each side of where a job stood: others may have come above it. */
const AROUND = 50;
const STORED = "crystalmath-list";
export const NONE = new Set();

/** Its address and filters outlive a reload of the tab; the chosen jobs, rows and scroll a look at other views. */
export const kept = {
  address: link({ view: "jobs" }), filters: {}, sort: null, at: 0, key: null, chosen: NONE, scroll: 0, rows: null,
  ...JSON.parse(sessionStorage.getItem(STORED) ?? "{}"),
};

/** Keep a list as the one that is shown; of another one than before nothing is chosen or scrolled. */
export function keep(key, list) {
  if (kept.key !== key) Object.assign(kept, { chosen: NONE, scroll: 0, at: 0 });
  Object.assign(kept, { key, address: location.search || link({ view: "jobs" }), ...list });
  store();
}

/** Keep the number of the row whose job is looked at. */
export function keepPlace(at) {
  kept.at = at;
  store();
}

function store() {
  const { address: target, filters, sort, at } = kept;
  sessionStorage.setItem(STORED, JSON.stringify({ address: target, filters, sort, at }));
}

/** Return a job's neighbours in the list, and its number there; `null` if the list does not have it. */
async function neighboursOf(id) {
  const first = Math.max(0, kept.at - AROUND);
  const asked = { ...kept.filters, skip: first, limit: 2 * AROUND + 1, fields: ["name"], ...(kept.sort && { sort: kept.sort }) };
  const { jobs } = await call("jobs.list", asked);
  const index = jobs.findIndex((job) => job.job_id === id);
  if (index >= 0) {
    keepPlace(first + index);
    return { before: jobs[index - 1], after: jobs[index + 1], number: first + index + 1 };
  }
  // It no longer fits the filters, as after a retry: its place is still known.
  const { rows, at } = kept;
  return rows?.at(at)?.job_id === id ? { before: rows.at(at - 1), after: rows.at(at + 1), number: at + 1 } : null;
}

/** The way from a job back to its list, and to the jobs before and after it. */
export function Neighbours({ id }) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    let ended = false;
    const show = (told) => ended || setFound(told);
    neighboursOf(id).then(show, () => show(null));
    return () => (ended = true);
  }, [id]);
  const part = address.value.get("part");
  const to = (job, rel, text) =>
    job
      ? html`<a class="button" rel=${rel} href=${link({ view: "job", id: job.job_id, part })} title=${nameOf(job)}>${text}</a>`
      : html`<span class="button off" aria-hidden="true">${text}</span>`;
  return html`<nav class="neighbours" aria-label="List">
    <a rel="up" href=${kept.address}>← Back to the list</a>
    ${found && html`<span class="note">job ${found.number.toLocaleString()}${kept.rows?.totals ? ` of ${kept.rows.count.toLocaleString()}` : ""}</span>
      ${to(found.before, "prev", "↑ Previous")} ${to(found.after, "next", "↓ Next")}`}
  </nav>`;
}
