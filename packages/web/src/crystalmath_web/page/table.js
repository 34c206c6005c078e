// Jobs as a table: their parameters, labels and results by columns, to be drawn or brought home as a file.

import { Fragment, Trouble, html, save, useState } from "./lib.js";
import { call } from "./server.js";

/** Ids of one request. */
const PAGE = 2000;

/** Return the ids of the jobs that fit filters, the newest first, and no more than so many. */
export async function idsOf(filters, most = Infinity) {
  const ids = [];
  let cursor;
  do {
    const limit = Math.min(10_000, most - ids.length);
    const told = await call("jobs.list", { ...filters, limit, fields: ["job_id"], ...(cursor && { cursor }) });
    ids.push(...told.jobs.map((job) => job.job_id));
    ({ cursor } = told);
  } while (cursor && ids.length < most);
  return ids;
}

/** Return the rows of jobs, and why some results cannot be read; `tell` is called with the share that is there. */
export async function rowsOf(ids, tell = () => null) {
  const rows = [];
  const unreadable = [];
  while (rows.length < ids.length) {
    tell(rows.length / ids.length);
    const told = await call("jobs.table", { job_ids: ids.slice(rows.length, rows.length + PAGE) });
    rows.push(...told.rows);
    unreadable.push(...Object.values(told.unreadable));
  }
  return { rows, unreadable };
}

/** Return the columns that any row has: those of the record, labels, parameters, then results. */
export function columnsOf(rows) {
  const names = [...new Set(rows.flatMap(Object.keys))];
  const kind = (name) => ["labels_", "params."].findIndex((prefix) => name.startsWith(prefix));
  const of = (wanted) => names.filter((name) => kind(name) === wanted);
  return [...of(-1), ...of(0).sort(), ...of(1).sort()];
}

/** Write a value as a cell: lists and the like as JSON. */
export const written = (value) =>
  value === undefined || value === null ? "" : typeof value === "string" ? value : JSON.stringify(value);

const cell = (value) => (/[",\n\r]/.test(written(value)) ? `"${written(value).replaceAll('"', '""')}"` : written(value));

function csvOf(rows) {
  const names = columnsOf(rows);
  return [names, ...rows.map((row) => names.map((name) => row[name]))].map((each) => `${each.map(cell).join(",")}\n`);
}

const jsonOf = (rows) => ["[\n", rows.map((row) => JSON.stringify(row)).join(",\n"), "\n]\n"];

/** What writes jobs to a file on the reader's own machine; `find` returns their ids. */
export function Export({ find, what }) {
  const [share, setShare] = useState(null);
  const [error, setError] = useState(null);
  const bring = async (form, make) => {
    setError(null);
    setShare(0);
    try {
      save(make((await rowsOf(await find(), setShare)).rows), `jobs.${form}`);
    } catch (problem) {
      setError(problem);
    }
    setShare(null);
  };
  if (share !== null) return html`<span class="note" role="status">Export: ${Math.round(100 * share)} %</span>`;
  return html`<${Fragment}>
    <button class="quiet" aria-label=${`Export ${what} as CSV`} onClick=${() => bring("csv", csvOf)}>CSV</button>
    <button class="quiet" aria-label=${`Export ${what} as JSON`} onClick=${() => bring("json", jsonOf)}>JSON</button>
    <${Trouble} error=${error} />
  <//>`;
}
