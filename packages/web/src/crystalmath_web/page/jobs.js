// The table of jobs: of however many there are, those that are on the screen are asked for and drawn.

import {
  Fragment, STATES, State, Trouble, address, ago, change, duration, energy, errorOf, force, formula, go, html, jobCount,
  link, moment, nameOf, runtime, shortId, shortRecipe, signal, toldSteps, useEffect, useMemo, useRef, useState, whereOf,
} from "./lib.js";
import { call, useChanges } from "./server.js";
import { filtersOf, quoted, withToken, without } from "./filters.js";
import { Actions } from "./actions.js";
import { FirstSteps } from "./first.js";
import { NONE, keep, keepPlace, kept } from "./lists.js";
import { Export, idsOf } from "./table.js";
import { toast } from "./toasts.js";
import { shareOf, toldStep, toldUsual, usual } from "./usual.js";
import { Views } from "./views.js";

const ROW = 28; // pixels, as style.css has it
const BLOCK = 100; // rows of one request
/** So many rows are looked at beyond what is seen, so that they are there when one scrolls. */
const BEYOND = 20;
/** So many rows are drawn at first, before the height of the table is known. */
const FIRST = 25;
const MOST = 10_000; // ids of one request
/** How long after the last key the search begins, in milliseconds. */
const TYPED = 100;
/** How long after the rows values are counted, in milliseconds, and how many times as long as that took it is not done again. */
const QUIET = 300;
const REST = 10;
/** How often the progress of running jobs is read, in milliseconds. */
const PROGRESS = 3000;

const COLUMNS = {
  name: { title: "Name", cell: (job) => nameOf(job), fields: ["name"] },
  state: { title: "State", cell: (job) => html`<${State} state=${job.status} />`, fields: ["status"] },
  steps: {
    title: "Steps", sorted: false, fields: ["steps"],
    cell: (job, { progress }) => (job.steps ? toldSteps(job.steps) : progress ? toldStep(progress) : ""),
  },
  formula: { title: "Formula", cell: (job) => formula(job.formula), fields: ["formula"] },
  recipe: { title: "Recipe", cell: (job) => shortRecipe(job.recipe), fields: ["recipe"] },
  energy_ev: {
    title: "Energy (eV)", number: true, cell: (job, { progress }) => energy(job.result?.energy_ev ?? progress?.energy_ev), fields: ["result.energy_ev"],
  },
  max_force_ev_ang: {
    title: "Force (eV/Å)", number: true, fields: ["result.max_force_ev_ang"],
    cell: (job, { progress }) => force(job.result?.max_force_ev_ang ?? progress?.max_force_ev_ang),
  },
  runtime_s: {
    title: "Time", number: true, fields: ["started_at", "finished_at"],
    cell: (job, { like }) =>
      like
        ? html`${duration(runtime(job))}<progress value=${shareOf(job, like)} aria-label="Of the usual time"></progress>`
        : duration(runtime(job)),
    tip: (job, { like }) => like && toldUsual(like),
  },
  created_at: {
    title: "Submitted", number: true, cell: (job) => ago(job.created_at), tip: (job) => moment(job.created_at),
    fields: ["created_at"],
  },
  cluster: { title: "Where", cell: whereOf, fields: ["engine", "cluster"] },
  labels: {
    title: "Labels", sorted: false, fields: ["labels"],
    cell: (job) => Object.entries(job.labels ?? {}).map(([key, value]) => `${key}=${value}`).join(" "),
  },
  error: {
    title: "Error or reason", sorted: false, cell: (job) => (errorOf(job) ?? job.reason ?? "").split("\n")[0],
    fields: ["error", "reason"],
  },
  superseded_by: {
    title: "Superseded by", sorted: false, cell: (job) => (job.superseded_by ? shortId(job.superseded_by) : ""),
    fields: ["superseded_by"],
  },
  id: { title: "Id", sorted: false, cell: (job) => shortId(job.job_id), fields: [] },
};
/** Shown at first; and beside these, as far as the window has room and they have anything to show. */
const SHOWN = ["name", "state", "formula", "recipe", "energy_ev", "max_force_ev_ang", "runtime_s", "created_at"];

const ROOMY = [
  ["error", 230, ({ totals }) => totals?.failed || totals?.pending],
  ["labels", 150, ({ hasLabels }) => hasLabels],
  ["cluster", 110, () => true],
];
/** What the columns that are shown at first take in comfort, and the width of the steps, in pixels. */
const COMFORT = 985;
const STEPS = 110;
/** The width of a window that is beside the table, and from which on the filters are, in pixels. */
const BESIDE = 24;
const FACETS = 204;
const NARROW = 800;
const room = signal(0);
const lookAround = () => (room.value = innerWidth - BESIDE - (innerWidth > NARROW ? FACETS : 0));
addEventListener("resize", lookAround);
lookAround();

/** Return the columns for this window and these jobs, where the address has none. */
function fittingColumns(rows) {
  const shown = rows.hasSteps ? SHOWN.toSpliced(2, 0, "steps") : SHOWN;
  let left = room.value - COMFORT - (rows.hasSteps ? STEPS : 0);
  const more = ROOMY.filter(([, width, has]) => left >= width && has(rows) && ((left -= width), true));
  return [...shown, ...more.map(([name]) => name)];
}

/** Filters of one value, which is replaced when another one is chosen. */
const SINGLE = ["recipe", "engine", "cluster"];

/** Count the values of each filter under the other filters: its own one would leave out what it could be instead. */
async function facetsOf(filters) {
  const count = async (given) => (await call("jobs.facets", { ...given, limit: 12 })).facets;
  const found = await count(filters);
  const isChosen = ({ filter, label }) => (label === null ? SINGLE.includes(filter) && filter in filters : label in (filters.labels ?? {}));
  return Promise.all(
    found.map(async (each) => {
      if (!isChosen(each)) return each;
      const { [each.filter]: _, ...others } = filters;
      if (each.label !== null) {
        const { [each.label]: __, ...labels } = filters.labels;
        others.labels = labels;
      }
      const same = (one) => one.filter === each.filter && one.label === each.label;
      return (await count(others)).find(same) ?? each;
    }),
  );
}

/** The rows of a list of jobs, of which those are asked for that are looked at. */
class Rows {
  constructor(filters, sort, fields, draw) {
    Object.assign(this, { filters, sort, fields, draw });
    this.blocks = new Map(); // number -> its jobs
    this.asked = new Map(); // number -> what the request for it was made for
    this.totals = null; // by state
    this.facets = null;
    this.pause = QUIET;
    this.hasSteps = false;
    this.hasLabels = false;
    this.progress = new Map(); // id of a running job -> how far it has come
    this.like = new Map(); // id of a running job -> how long such jobs took
    this.error = null;
    this.version = 0;
    this.seen = [0, 0];
    this.ended = false;
  }

  /** How many rows there are; as long as nobody has counted, how many have come. */
  get count() {
    if (!this.totals) return this.blocks.get(0)?.length ?? 0;
    const { state = Object.keys(this.totals) } = this.filters;
    return state.reduce((sum, each) => sum + (this.totals[each] ?? 0), 0);
  }

  at(index) {
    return this.blocks.get(Math.floor(index / BLOCK))?.[index % BLOCK];
  }

  /** Ask for what is missing of the rows from one number to another. */
  look(first, last) {
    this.seen = [Math.floor(first / BLOCK), Math.floor(last / BLOCK)];
    for (let number = this.seen[0]; number <= this.seen[1]; number += 1) {
      if (this.asked.get(number) !== this.version) this.looking = this.load(number);
    }
  }

  async load(number) {
    const version = this.version;
    this.asked.set(number, version);
    const asked = { ...this.filters, limit: BLOCK, skip: number * BLOCK, fields: this.fields };
    if (this.sort) asked.sort = this.sort;
    await this.attempt(async () => {
      const { jobs } = await call("jobs.list", asked);
      if (version >= this.version || !this.blocks.has(number)) this.blocks.set(number, jobs);
      this.hasSteps ||= jobs.some((job) => job.steps);
      this.hasLabels ||= jobs.some((job) => Object.keys(job.labels ?? {}).length);
    });
  }

  /** Count what there is under the filters, after the rows: by state, then by recipe and the like. */
  async count_all() {
    await this.looking;
    await this.attempt(async () => {
      // Every state is counted: a button tells what a click on it would show.
      const { state, ...others } = this.filters;
      this.totals = (await call("jobs.list", { ...others, limit: 0, totals: true })).totals;
    });
    this.stale = true;
    if (this.counting) return;
    this.counting = true;
    while (this.stale && !this.ended) {
      await new Promise((resolve) => setTimeout(resolve, this.pause));
      if (this.ended) return; // another search is here
      this.stale = false;
      const begun = performance.now();
      await this.attempt(async () => {
        this.facets = await facetsOf(this.filters);
      });
      this.pause = Math.max(QUIET, REST * (performance.now() - begun));
    }
    this.counting = false;
  }

  /** Ask how far the running jobs between two rows have come, and how long such jobs took. */
  async progressOf(first, last) {
    const running = [];
    for (let index = first; index < last; index += 1) if (this.at(index)?.status === "running") running.push(this.at(index));
    if (!running.length || document.hidden) return;
    const { jobs } = await call("jobs.progress", { job_ids: running.map((job) => job.job_id) });
    this.progress = new Map(jobs.filter((one) => one.progress).map((one) => [one.job_id, one.progress]));
    this.like = new Map();
    for (const job of running) {
      const like = job.steps ? null : await usual(job);
      if (like) this.like.set(job.job_id, like);
    }
    this.hasSteps ||= this.progress.size > 0;
    if (!this.ended) this.draw();
  }

  async attempt(ask) {
    try {
      await ask();
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    if (!this.ended) this.draw();
  }

  /** Look again at what is seen; rows that are not seen are asked for when they are. */
  refresh() {
    this.version += 1;
    const [first, last] = this.seen;
    for (const number of this.blocks.keys()) if (number < first || number > last) this.blocks.delete(number);
    this.look(first * BLOCK, last * BLOCK);
    this.count_all();
  }
}

export function Jobs() {
  const query = address.value.get("q") ?? "";
  const states = address.value.get("state")?.split(",") ?? [];
  const sort = address.value.get("sort");
  const given = address.value.get("columns")?.split(",").filter((name) => COLUMNS[name]) ?? SHOWN;
  const [drawn, draw] = useState(0);
  const [facetsOpen, setFacetsOpen] = useState(false);
  const latest = useRef(null);
  const key = JSON.stringify([query, states, sort, given]);
  const setChosen = (wanted) => {
    kept.chosen = wanted;
    draw((count) => count + 1);
  };
  const { rows, wrong } = useMemo(() => {
    const { filters, wrong } = filtersOf(query);
    if (states.length) filters.state = states;
    const wanted = given === SHOWN ? [...SHOWN, ...ROOMY.map(([name]) => name)] : given;
    const fields = [...new Set(["status", "name", "steps", "recipe", "formula", ...wanted.flatMap((name) => COLUMNS[name].fields)])];
    const rows = new Rows(filters, sort, fields, () => draw((count) => count + 1));
    // In another order there are as many.
    const { filters: others, totals, facets } = latest.current ?? kept.rows ?? {};
    if (JSON.stringify(others) === JSON.stringify(filters)) Object.assign(rows, { totals, facets });
    latest.current = rows;
    // The rows of before are there at once for who comes back, and are asked for again.
    if (kept.key === key && kept.rows) Object.assign(rows, { blocks: kept.rows.blocks, hasSteps: kept.rows.hasSteps, hasLabels: kept.rows.hasLabels });
    keep(key, { filters, sort, rows });
    return { rows, wrong };
  }, [key]);
  useEffect(() => {
    rows.count_all();
    return () => (rows.ended = true);
  }, [rows]);
  useChanges(() => rows.refresh());
  const { chosen } = kept;
  const columns = given === SHOWN ? fittingColumns(rows) : given;
  const drop = () => {
    if (!chosen.size) return;
    const before = chosen;
    setChosen(NONE);
    if (before.size > 1) toast(`${before.size.toLocaleString()} jobs are no longer chosen.`, { undo: () => setChosen(before) });
  };
  const done = (asked, told) => {
    setChosen(NONE);
    toast(...toldDone(asked, told));
  };
  const isEmpty = rows.totals && !rows.count && !query && !states.length;
  return html`<${Fragment}>
    <h1 class="unseen">Jobs</h1>
    <${Search} query=${query} states=${states} filters=${rows.filters} counts=${rows.totals ?? {}} columns=${columns}
      onFacets=${() => setFacetsOpen(!facetsOpen)} />
    ${wrong && html`<p class="trouble">${wrong}</p>`}
    <${Trouble} error=${rows.error} />
    <div class="columns">
      <${Facets} open=${facetsOpen} facets=${rows.facets} query=${query} />
      ${/* With signals a component whose properties are the same is not drawn again. */ null}
      ${isEmpty
        ? html`<${FirstSteps} />`
        : html`<${Table} rows=${rows} drawn=${drawn} columns=${columns} sort=${sort} chosen=${chosen} onChoose=${setChosen} onDrop=${drop} key=${key} />`}
    </div>
    <${Actions} chosen=${chosen} count=${rows.count}
      onChooseAll=${async () => setChosen(new Set(await idsOf(rows.filters, MOST)))} onDone=${done} />
  <//>`;
}

/** Write what was done with jobs, and the way to what came of it. */
function toldDone(asked, { jobs }) {
  const many = jobCount(jobs.length);
  if (asked === "Cancel") return [`${many} will be stopped.`];
  if (asked === "Remove files") return [`The files of ${many} are removed.`];
  const target = jobs.length === 1 ? { view: "job", id: jobs[0].job_id } : { view: "jobs" };
  return [`${many} will run again.`, { href: link(target), label: jobs.length === 1 ? "Open it" : "Show the newest jobs" }];
}

// --- the search, and the counts ----------------------------------------------------------------

function Search({ query, states, filters, counts, columns, onFacets }) {
  const [text, setText] = useState(query);
  useEffect(() => setText(query), [query]);
  const waiting = useRef();
  const type = (event) => {
    const typed = event.target.value;
    setText(typed);
    clearTimeout(waiting.current);
    waiting.current = setTimeout(() => change({ q: typed }, { replace: true }), TYPED);
  };
  const toggle = (state) =>
    change({ state: (states.includes(state) ? states.filter((one) => one !== state) : [...states, state]).join(",") });
  return html`<div class="search" role="search">
    <input type="search" aria-label="Search jobs" value=${text} onInput=${type} spellcheck="false"
      placeholder="name, id, or recipe:emt label:project=alloys elements:Cu,O since:7d -state:failed" />
    <div class="states" role="group" aria-label="States">
      ${STATES.map(
        (state) => html`<button aria-pressed=${String(states.includes(state))} onClick=${() => toggle(state)}>
          <${State} state=${state} /> <b>${(counts[state] ?? 0).toLocaleString()}</b>
        </button>`,
      )}
    </div>
    <button class="quiet narrow" onClick=${onFacets}>Filters</button>
    <${Views} />
    <${Columns} columns=${columns} />
    <details class="menu"><summary>Export</summary><div><${Export} find=${() => idsOf(filters)} what="all that fit" /></div></details>
    <a href=${link({ view: "study", q: query, state: states.join() })}>Study</a>
  </div>`;
}

function Columns({ columns }) {
  const toggle = (name) => {
    const wanted = Object.keys(COLUMNS).filter((each) => (each === name) !== columns.includes(each));
    if (wanted.length) change({ columns: wanted.join(",") === SHOWN.join(",") ? "" : wanted.join(",") });
  };
  return html`<details class="menu">
    <summary>Columns</summary>
    <div>
      ${Object.entries(COLUMNS).map(
        ([name, { title }]) => html`<label>
          <input type="checkbox" checked=${columns.includes(name)} onChange=${() => toggle(name)} /> ${title}
        </label>`,
      )}
    </div>
  </details>`;
}

/** Filters by the time of the submission. */
const LATELY = { "last day": "since:1d", "last week": "since:7d", "last 30 days": "since:30d" };

function Facets({ open, facets, query }) {
  const shown = (facets ?? []).filter((each) => each.filter !== "state" && each.values.length);
  const toggle = (own) => change({ q: isIn(own) ? without(query, own) : withToken(query, own) });
  const isIn = (own) => without(query, own) !== query;
  return html`<aside class=${open ? "facets open" : "facets"} aria-label="Filters">
    <section>
      <h2>submitted</h2>
      <ul>
        ${Object.entries(LATELY).map(
          ([name, own]) => html`<li><button aria-pressed=${String(isIn(own))} onClick=${() => toggle(own)}><span>${name}</span></button></li>`,
        )}
      </ul>
    </section>
    ${shown.map((each) => {
      const name = each.label ?? each.filter;
      const token = (value) => (each.label === null ? `${each.filter}:${quoted(value)}` : `label:${each.label}=${quoted(value)}`);
      return html`<section key=${name}>
        <h2>${name}</h2>
        <ul>
          ${each.values.map(({ value, count }) => {
            const own = token(each.filter === "recipe" ? shortRecipe(value) : value);
            return html`<li>
              <button aria-pressed=${String(isIn(own))} title=${value} onClick=${() => toggle(own)}>
                <span>${each.filter === "recipe" ? shortRecipe(value) : value}</span> <b>${count.toLocaleString()}</b>
              </button>
            </li>`;
          })}
        </ul>
        ${each.more > 0 && html`<small>${each.more} more</small>`}
      </section>`;
    })}
  </aside>`;
}

// --- the table ---------------------------------------------------------------------------------

function Table({ rows, columns, sort, chosen, onChoose, onDrop }) {
  const box = useRef();
  const [window, setWindow] = useState([0, FIRST]);
  const [at, moveTo] = useState(kept.at);
  // At once, because a click leads away.
  const setAt = (index) => {
    keepPlace(index);
    moveTo(index);
  };
  const anchor = useRef(null);
  const count = rows.count;
  const measure = () => {
    if (!box.current) return;
    kept.scroll = box.current.scrollTop;
    const first = Math.floor(box.current.scrollTop / ROW);
    const last = first + Math.ceil(box.current.clientHeight / ROW);
    setWindow([Math.max(0, first - BEYOND), last + BEYOND]);
  };
  useEffect(() => {
    const observer = new ResizeObserver(measure);
    observer.observe(box.current);
    box.current.focus({ preventScroll: true });
    box.current.scrollTop = kept.scroll;
    return () => observer.disconnect();
  }, []);
  const [first, last] = [window[0], Math.min(window[1], Math.max(count, FIRST))];
  useEffect(() => rows.look(first, Math.max(first, last - 1)), [rows, first, last]);
  const seen = useRef();
  seen.current = [first, last];
  useEffect(() => {
    const ask = () => rows.progressOf(...seen.current).catch(() => null); // the next time will do
    const soon = setTimeout(ask, QUIET);
    const again = setInterval(ask, PROGRESS);
    return () => {
      clearTimeout(soon);
      clearInterval(again);
    };
  }, [rows]);

  const choose = (index, wanted) => {
    const job = rows.at(index);
    if (!job) return;
    const next = new Set(chosen);
    if (wanted ?? !next.has(job.job_id)) next.add(job.job_id);
    else next.delete(job.job_id);
    onChoose(next);
  };
  const chooseTo = (index) => {
    const [low, high] = [anchor.current ?? at, index].sort((one, other) => one - other);
    const next = new Set(chosen);
    for (let each = low; each <= high; each += 1) if (rows.at(each)) next.add(rows.at(each).job_id);
    onChoose(next);
  };
  const move = (index, extended) => {
    const next = Math.max(0, Math.min(count - 1, index));
    if (extended) chooseTo(next);
    else anchor.current = next;
    setAt(next);
    const top = next * ROW;
    const { scrollTop, clientHeight } = box.current;
    if (top < scrollTop) box.current.scrollTop = top;
    else if (top + 2 * ROW > scrollTop + clientHeight) box.current.scrollTop = top + 2 * ROW - clientHeight;
  };
  const press = (event) => {
    const page = Math.floor(box.current.clientHeight / ROW) - 2;
    const moves = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -count, End: count };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) move(at + moves[event.key], event.shiftKey);
    else if (event.key === "Enter" && rows.at(at)) go(link({ view: "job", id: rows.at(at).job_id }));
    else if (event.key === " " || event.key === "x") choose(at);
    else if (event.key === "Escape") onDrop();
    else return;
    event.preventDefault();
  };
  const order = (name) => change({ sort: sort === name ? `-${name}` : sort === `-${name}` ? "" : name });
  const shown = [];
  for (let index = first; index < Math.min(last, count); index += 1) {
    shown.push(
      html`<${Row} key=${index} index=${index} job=${rows.at(index)} columns=${columns} current=${index === at}
        progress=${rows.progress.get(rows.at(index)?.job_id)} like=${rows.like.get(rows.at(index)?.job_id)}
        chosen=${chosen.has(rows.at(index)?.job_id)} onChoose=${choose} onAt=${setAt} />`,
    );
  }
  return html`<${Fragment}><div class="table" role="grid" aria-label="Jobs" aria-rowcount=${count + 1} aria-multiselectable="true"
    tabindex="0" ref=${box} onScroll=${measure} onKeyDown=${press} style=${widths(columns)}
    aria-activedescendant=${count ? `row-${at}` : null}>
    <div class="row head" role="row" aria-rowindex="1">
      <span role="columnheader"><span class="unseen">Chosen</span></span>
      ${columns.map((name) => {
        const { title, number, sorted = true } = COLUMNS[name];
        const direction = sort === name ? "ascending" : sort === `-${name}` ? "descending" : null;
        return html`<span role="columnheader" class=${number ? "number" : ""} aria-sort=${direction}>
          ${sorted ? html`<button class="quiet" tabindex="-1" onClick=${() => order(name)}>${title}</button>` : title}
        </span>`;
      })}
    </div>
    <div class="rows" role="rowgroup" style=${{ height: `${count * ROW}px` }}>${shown}</div>
  </div>${rows.totals && !count && html`<p class="empty">No job fits. <a href=${link({ view: "jobs" })}>Show all jobs</a></p>`}<//>`;
}

/** Of each column its least width in pixels, and its share of what is left. */
const WIDTHS = {
  name: [100, 2], state: [88], steps: [100, 0.6], formula: [60, 1], recipe: [110, 1.6], energy_ev: [100], max_force_ev_ang: [104],
  runtime_s: [64], created_at: [92], cluster: [90, 1], labels: [120, 1.6], error: [160, 3], superseded_by: [100], id: [72],
};
const EDGE = 46; // of the boxes, and what is left and right of a row
const GAP = 10;

/** Return the columns as CSS has them, and how wide a row is at least. */
function widths(columns) {
  const all = columns.map((name) => WIDTHS[name]);
  const template = all.map(([least, share]) => (share ? `minmax(${least}px, ${share}fr)` : `${least}px`)).join(" ");
  return { "--columns": template, "--least": `${all.reduce((sum, [least]) => sum + least + GAP, EDGE)}px` };
}

/** The link of a row covers its cells: it has the title of the one below the pointer. */
function nameCell(event) {
  const cells = [...event.currentTarget.closest("[role=row]").children];
  const cell = cells.find((one) => one.getBoundingClientRect().right > event.clientX) ?? cells.at(-1);
  event.currentTarget.title = cell.dataset.title ?? "";
}

function Row({ index, job, columns, current, progress, like, chosen, onChoose, onAt }) {
  const kind = `row${current ? " current" : ""}${chosen ? " chosen" : ""}`;
  const running = job?.status === "running";
  const more = { progress: running ? progress : null, like: running ? like : null };
  const place = { transform: `translateY(${index * ROW}px)` };
  if (!job) return html`<div class=${kind} role="row" id=${`row-${index}`} aria-rowindex=${index + 2} style=${place}></div>`;
  return html`<div class=${kind} role="row" id=${`row-${index}`} aria-rowindex=${index + 2} style=${place}
    aria-selected=${String(chosen)} onClick=${() => onAt(index)}>
    <span role="gridcell">
      <input type="checkbox" tabindex="-1" checked=${chosen} aria-label=${`Choose ${nameOf(job)}`}
        onClick=${() => onChoose(index)} />
    </span>
    ${columns.map((name, number) => {
      const { cell, number: right, tip } = COLUMNS[name];
      const content = cell(job, more);
      const title = tip?.(job, more) || (typeof content === "string" ? content : null);
      return html`<span role="gridcell" class=${right ? "number" : ""} data-title=${title}>
        ${number ? content : html`<a class="whole" tabindex="-1" href=${link({ view: "job", id: job.job_id })} onMouseMove=${nameCell}>${content}</a>`}
      </span>`;
    })}
  </div>`;
}

