// Jobs and what they take from each other, as a graph from left to right that grows while jobs are added.

import { Fragment, duration, energy, html, link, nameOf, runtime, useEffect, useState } from "./lib.js";
import { call, onChange } from "./server.js";

const [WIDTH, HEIGHT, COLUMN, ROW, EDGE] = [168, 40, 216, 52, 8];
/** So many letters fit into a box. */
const LETTERS = 21;
/** How often the rows of columns are put into a new order. */
const SWEEPS = 4;
/** No more jobs are drawn. */
const MOST = 150;
/** Of so many jobs of one column it is asked what came of them. */
const ASKED = 20;
/** The roles of a parent that are no way from one calculation to the next. */
const NO_WAY = new Set(["flow", "taken"]);

/** Return the edges between some jobs, as their parents say. */
export function edgesOf(jobs) {
  const known = new Set(jobs.map((job) => job.job_id));
  return jobs.flatMap((job) =>
    (job.parents ?? [])
      .filter((one) => known.has(one.job_id) && !NO_WAY.has(one.role))
      .map((one) => ({ from: one.job_id, to: job.job_id, role: one.role })),
  );
}

/**
 * Return the columns of a graph: each job stands right of all those that it takes something from, and near their rows.
 *
 * Each column is a list of ids.
 */
export function columnsOf(ids, edges) {
  const before = new Map(ids.map((id) => [id, []]));
  const after = new Map(ids.map((id) => [id, []]));
  for (const { from, to } of edges) {
    before.get(to).push(from);
    after.get(from).push(to);
  }
  const depth = new Map();
  const waiting = new Map(ids.map((id) => [id, before.get(id).length]));
  const ready = ids.filter((id) => !waiting.get(id));
  for (const id of ready) {
    depth.set(id, Math.max(-1, ...before.get(id).map((one) => depth.get(one))) + 1);
    for (const next of after.get(id)) {
      waiting.set(next, waiting.get(next) - 1);
      if (!waiting.get(next)) ready.push(next);
    }
  }
  const columns = [];
  for (const id of ready) (columns[depth.get(id)] ??= []).push(id);
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const place = new Map(columns.flatMap((column) => column.map((id, row) => [id, row])));
    const beside = sweep % 2 ? after : before;
    const mean = (id) => {
      const rows = beside.get(id).map((one) => place.get(one));
      return rows.length ? rows.reduce((sum, row) => sum + row, 0) / rows.length : place.get(id);
    };
    for (const column of columns) column.sort((one, other) => mean(one) - mean(other));
  }
  return columns;
}

const short = (text) => (text.length > LETTERS ? `${text.slice(0, LETTERS - 1)}…` : text);

/** Draw jobs with what they take from each other; `present` is the id of the one that is looked at. */
export function Graph({ jobs, present, label, write = nameOf }) {
  const drawn = jobs.slice(0, MOST);
  const byId = new Map(drawn.map((job) => [job.job_id, job]));
  const edges = edgesOf(drawn);
  const columns = columnsOf([...byId.keys()], edges);
  const tallest = Math.max(...columns.map((column) => column.length));
  const place = new Map();
  columns.forEach((column, number) =>
    column.forEach((id, row) =>
      place.set(id, { x: EDGE + number * COLUMN, y: EDGE + (row + (tallest - column.length) / 2) * ROW }),
    ),
  );
  const [width, height] = [(columns.length - 1) * COLUMN + WIDTH + 2 * EDGE, (tallest - 1) * ROW + HEIGHT + 2 * EDGE];
  const curve = ({ from, to }) => {
    const [start, end] = [place.get(from), place.get(to)];
    const [x1, y1, x2, y2] = [start.x + WIDTH, start.y + HEIGHT / 2, end.x, end.y + HEIGHT / 2];
    return `M${x1} ${y1}C${x1 + 30} ${y1} ${x2 - 30} ${y2} ${x2} ${y2}`;
  };
  return html`<${Fragment}>
    <div class="graph" role="region" aria-label=${label} tabindex="0">
      <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`}>
        ${edges.map((one) => html`<path key=${`${one.from} ${one.to}`} class=${`edge ${one.role}`} d=${curve(one)} />`)}
        ${[...byId.values()].map((job) => {
          const { x, y } = place.get(job.job_id);
          const name = write(job);
          const more = [job.formula, energy(job.result?.energy_ev, "eV") || duration(runtime(job))].filter(Boolean).join(" · ");
          return html`<a key=${job.job_id} href=${link({ view: "job", id: job.job_id })} class=${job.job_id === present ? "node present" : "node"}
            aria-current=${job.job_id === present ? "true" : null} transform=${`translate(${x} ${y})`}>
            <title>${`${name}, ${job.status}`}</title>
            <rect width=${WIDTH} height=${HEIGHT} rx="6" />
            <rect class=${`side ${job.status}`} width="5" height=${HEIGHT} rx="2.5" />
            <text x="13" y="16">${short(name)}</text>
            <text x="13" y="32" class="more">${short(more || job.status)}</text>
          </a>`;
        })}
      </svg>
    </div>
    ${jobs.length > MOST && html`<p class="note">${(jobs.length - MOST).toLocaleString()} more are not drawn.</p>`}
  <//>`;
}

/** Return a job with all that it came of and all that came of it, the oldest first; no more than are drawn, and one. */
async function chainOf(id) {
  const found = new Map();
  const add = (jobs) => {
    const fresh = jobs.filter((job) => job.status !== "error" && !found.has(job.job_id));
    for (const job of fresh) found.set(job.job_id, job);
    return fresh;
  };
  const ways = (job) => (job.parents ?? []).filter((one) => !NO_WAY.has(one.role)).map((one) => one.job_id);
  let above = add((await call("jobs.status_many", { job_ids: [id] })).jobs);
  let below = above;
  while (above.length && found.size <= MOST) {
    const wanted = [...new Set(above.flatMap(ways))].filter((one) => !found.has(one));
    above = wanted.length ? add((await call("jobs.status_many", { job_ids: wanted.slice(0, MOST) })).jobs) : [];
  }
  while (below.length && found.size <= MOST) {
    const asked = below.slice(0, ASKED);
    const stories = await Promise.all(asked.map((job) => call("jobs.show", { job_id: job.job_id })));
    const children = stories.flatMap((story) => story.children).filter((one) => !NO_WAY.has(one.role));
    const wanted = [...new Set(children.map((one) => one.job_id))].filter((one) => !found.has(one));
    below = wanted.length ? add((await call("jobs.status_many", { job_ids: wanted.slice(0, MOST) })).jobs) : [];
  }
  return [...found.values()];
}

/** The chain that a job is a part of, if it is a part of any. */
export function Chain({ id }) {
  const [jobs, setJobs] = useState([]);
  useEffect(() => {
    let ended = false;
    let waiting = null;
    const ask = () => {
      waiting = null;
      chainOf(id).then((found) => ended || setJobs(found), () => null); // the next change asks again
    };
    setJobs([]);
    ask();
    const end = onChange((change) => {
      // A new job may be a part of it.
      if (change.from === null || change.status !== change.from) waiting ??= setTimeout(ask, 1000);
    });
    return () => {
      ended = true;
      end();
      clearTimeout(waiting);
    };
  }, [id]);
  if (jobs.length < 2) return null;
  return html`<section class="chain"><h2>Its chain: ${jobs.length > MOST ? `more than ${MOST}` : jobs.length} jobs</h2>
    <${Graph} jobs=${jobs} present=${id} label="Chain of jobs" /></section>`;
}
