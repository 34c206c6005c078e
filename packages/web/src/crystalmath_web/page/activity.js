// What runs now, where, and what ran there lately.

import {
  Fragment, State, Trouble, address, change, clock, duration, formula, html, jobCount, link, moment, nameOf, now,
  runtime, shortRecipe, toldSteps, useEffect, useState, whereOf,
} from "./lib.js";
import { call, useChanges } from "./server.js";
import { shareOf, toldProgress, toldUsual, usual } from "./usual.js";

/** How often it is asked how far jobs have come, in milliseconds. */
const AGAIN = 3000;
/** No more running jobs are listed, of all places together, and no more of one place. */
const MOST = 500;
const LISTED = 40;
/** Jobs of one request, and how many ended jobs are looked at. */
const PAGE = 5000;
const ENDED = 20_000;
const FIELDS = ["name", "status", "recipe", "formula", "engine", "cluster", "started_at", "finished_at", "steps", "reason"];

/** Put jobs by the place where they run. */
function byPlace(jobs) {
  const places = new Map();
  for (const job of jobs) {
    const name = whereOf(job);
    if (!places.has(name)) places.set(name, []);
    places.get(name).push(job);
  }
  return places;
}

// --- what runs now -----------------------------------------------------------------------------

/** Ask what runs and waits, again whenever jobs have changed, and how far it has come. */
function useNow() {
  const [state, setState] = useState({ running: [], pending: [], progress: new Map(), like: new Map() });
  const merge = (told) => setState((before) => ({ ...before, error: null, ...told }));
  const ask = async () => {
    try {
      const [{ jobs: running, totals }, { jobs: pending }, server, { clusters }] = await Promise.all([
        call("jobs.list", { state: ["running"], sort: "started_at", limit: MOST, fields: FIELDS, totals: true }),
        call("jobs.list", { state: ["pending"], limit: MOST, fields: FIELDS }),
        call("system.status"),
        call("clusters.list"),
      ]);
      merge({ running, pending, server, clusters, totals });
    } catch (error) {
      merge({ error });
    }
  };
  const { running } = state;
  const ids = running.slice(0, MOST).filter((job) => !job.steps).map((job) => job.job_id);
  const look = async () => {
    if (!ids.length || document.hidden) return;
    const { jobs } = await call("jobs.progress", { job_ids: ids.slice(0, 100) });
    const like = new Map();
    for (const job of running.slice(0, 100)) like.set(job.job_id, await usual(job));
    merge({ progress: new Map(jobs.map((one) => [one.job_id, one.progress])), like });
  };
  useEffect(() => void ask(), []);
  useChanges(ask);
  useEffect(() => {
    const quietly = () => look().catch(() => null); // the next time will do
    quietly();
    const again = setInterval(quietly, AGAIN);
    return () => clearInterval(again);
  }, [ids.join()]);
  return state;
}

function Running({ job, progress, like }) {
  return html`<li>
    <a href=${link({ view: "job", id: job.job_id })} title=${shortRecipe(job.recipe)}>${nameOf(job)}</a>
    <span>${formula(job.formula)}</span>
    <span class="space">${job.steps ? toldSteps(job.steps) : progress ? toldProgress(progress) : ""}</span>
    <span class="number" title=${like ? toldUsual(like) : null}>
      ${duration(runtime(job))}${like && html`<span class="note"> of ${duration(like.seconds)}</span><progress value=${shareOf(job, like)} aria-label="Of the usual time"></progress>`}
    </span>
  </li>`;
}

/** Return the reasons for which jobs wait, the most frequent first. */
function reasonsOf(jobs) {
  const counts = new Map();
  for (const { reason } of jobs) if (reason) counts.set(reason, (counts.get(reason) ?? 0) + 1);
  return [...counts].sort(([, one], [, other]) => other - one).slice(0, 3);
}

function Place({ name, running, pending, state }) {
  const cluster = state.clusters?.find((one) => whereOf({ engine: one.engine, cluster: one.name }) === name);
  const engine = (running[0] ?? pending[0] ?? cluster)?.engine ?? name;
  const workers = state.server?.workers?.[engine];
  const computing = running.filter((job) => !job.steps).length;
  const told = [
    workers ? `${computing} of ${workers} workers compute` : `${computing} compute`,
    running.length > computing && `${running.length - computing} flows`,
    `${pending.length}${pending.length === MOST ? " or more" : ""} wait`,
  ];
  return html`<section class="card">
    <h2>${name} ${cluster && html`<span class="note">${cluster.scheduler}</span>`}</h2>
    ${workers > 0 && html`<meter min="0" max=${workers} value=${computing} aria-label=${`Workers of ${name} that compute`}></meter>`}
    <p>${told.filter(Boolean).join(" · ")}</p>
    ${cluster?.trouble && html`<p class="trouble">${cluster.trouble}</p>`}
    <ul class="running">
      ${running.slice(0, LISTED).map(
        (job) => html`<${Running} key=${job.job_id} job=${job} progress=${state.progress.get(job.job_id)} like=${state.like.get(job.job_id)} />`,
      )}
    </ul>
    ${running.length > LISTED && html`<a href=${link({ view: "jobs", state: "running", q: `engine:${engine}` })}>all ${running.length.toLocaleString()}</a>`}
    ${reasonsOf(pending).map(([reason, count]) => html`<p class="note" key=${reason}>${count.toLocaleString()} wait: ${reason}</p>`)}
  </section>`;
}

// --- what ran lately ---------------------------------------------------------------------------

/** The spans of the timeline, with the length of each and the distance of its ticks, in seconds. */
const SPANS = { hour: [3600, 600], day: [86_400, 3 * 3600], week: [7 * 86_400, 86_400] };
/** Of a place with more jobs or lines than these it is drawn how many ran at a time. */
const BARS = 300;
const LINES = 16;
const LINE = 12; // pixels, as style.css has it
const BINS = 168;

/** Ask for the jobs that ran in a span, again whenever jobs have changed. */
function useRan(seconds) {
  const [state, setState] = useState({});
  const ask = async () => {
    const since = Date.now() / 1000 - seconds;
    const jobs = [];
    try {
      let cursor;
      let oldest;
      do {
        const asked = { state: ["completed", "failed", "cancelled"], sort: "-finished_at", limit: PAGE, fields: FIELDS, all_tries: true };
        const told = await call("jobs.list", { ...asked, ...(cursor && { cursor }) });
        jobs.push(...told.jobs.filter((job) => job.started_at && job.finished_at >= since));
        oldest = told.jobs.at(-1)?.finished_at ?? 0;
        ({ cursor } = told);
      } while (cursor && oldest >= since && jobs.length < ENDED);
      const { jobs: running } = await call("jobs.list", { state: ["running"], limit: PAGE, fields: FIELDS });
      setState({ jobs: [...jobs, ...running.filter((job) => job.started_at)], isCut: Boolean(cursor) && oldest >= since });
    } catch (error) {
      setState((before) => ({ ...before, error }));
    }
  };
  useEffect(() => void ask(), [seconds]);
  useChanges(ask);
  return state;
}

/** Put jobs into lines so that none covers another; `null` if these are too many. */
function linesOf(jobs, least) {
  if (jobs.length > BARS) return null;
  const ends = [];
  const lines = [];
  for (const job of [...jobs].sort((one, other) => one.started_at - other.started_at)) {
    let line = ends.findIndex((end) => end <= job.started_at);
    if (line < 0) line = ends.length;
    if (line >= LINES) return null;
    ends[line] = Math.max(job.finished_at ?? now.value, job.started_at + least);
    lines.push([job, line]);
  }
  return { lines, count: ends.length };
}

/** Return of each bin how many jobs ran in it at a time, by how they ended. */
function densityOf(jobs, begin, seconds) {
  const length = seconds / BINS;
  const bins = Array.from({ length: BINS }, () => ({ running: 0, completed: 0, failed: 0, cancelled: 0 }));
  for (const job of jobs) {
    const [from, to] = [job.started_at - begin, (job.finished_at ?? now.value) - begin];
    for (let bin = Math.max(0, Math.floor(from / length)); bin < BINS && bin * length < to; bin += 1) {
      bins[bin][job.status] += (Math.min(to, (bin + 1) * length) - Math.max(from, bin * length)) / length;
    }
  }
  return bins;
}

function Density({ name, jobs, begin, seconds }) {
  const bins = densityOf(jobs, begin, seconds);
  const sum = (bin) => Object.values(bin).reduce((one, other) => one + other, 0);
  const most = Math.max(...bins.map(sum), 1e-9);
  const paths = [];
  const below = bins.map(() => 0);
  for (const state of ["completed", "running", "cancelled", "failed"]) {
    let path = "";
    bins.forEach((bin, x) => {
      const height = (100 * bin[state]) / most;
      if (height) path += `M${x} ${100 - below[x]}v${-height}h1v${height}z`;
      below[x] += height;
    });
    if (path) paths.push(html`<path class=${state} d=${path} />`);
  }
  const label = `${jobs.length.toLocaleString()} jobs on ${name}, at most ${most < 10 ? most.toFixed(1) : Math.round(most)} at a time`;
  return html`<svg class="density" viewBox=${`0 0 ${BINS} 100`} preserveAspectRatio="none" role="img" aria-label=${label}><title>${label}</title>${paths}</svg>`;
}

function Lane({ name, jobs, begin, seconds }) {
  const packed = linesOf(jobs, seconds / 400);
  const share = (at) => 100 * Math.min(1, Math.max(0, (at - begin) / seconds));
  const step = (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    const all = [...event.currentTarget.querySelectorAll("a")];
    all[all.indexOf(event.target) + move]?.focus();
    event.preventDefault();
  };
  return html`<div class="lane">
    <h3>${name} <span class="note">${jobCount(jobs.length)}</span></h3>
    ${packed
      ? html`<ul aria-label=${`Jobs on ${name}`} style=${{ height: `${packed.count * LINE}px` }} onKeyDown=${step}>
          ${packed.lines.map(([job, line], number) => {
            const from = share(job.started_at);
            const told = `${nameOf(job)}: ${job.status}, ${duration(runtime(job))} from ${moment(job.started_at)}`;
            return html`<li key=${job.job_id}><a class=${job.status} tabindex=${number ? "-1" : "0"} href=${link({ view: "job", id: job.job_id })} title=${told} aria-label=${told}
              style=${{ left: `${from}%`, width: `max(3px, ${share(job.finished_at ?? now.value) - from}%)`, top: `${line * LINE}px` }}></a></li>`;
          })}
        </ul>`
      : html`<${Density} name=${name} jobs=${jobs} begin=${begin} seconds=${seconds} />`}
  </div>`;
}

function Timeline() {
  const wanted = address.value.get("span");
  const span = Object.hasOwn(SPANS, wanted ?? "") ? wanted : "hour";
  const [seconds, tick] = SPANS[span];
  const { jobs, isCut, error } = useRan(seconds);
  const begin = now.value - seconds;
  // Ticks stand at whole hours and days of the clock on the wall.
  const shift = new Date(begin * 1000).getTimezoneOffset() * 60;
  const ticks = [];
  for (let at = Math.ceil((begin - shift) / tick) * tick + shift; at < now.value; at += tick) ticks.push(at);
  return html`<section class="timeline">
    <h2>What ran where</h2>
    <div class="states" role="group" aria-label="Span">
      ${Object.keys(SPANS).map(
        (name) => html`<button aria-pressed=${String(name === span)} onClick=${() => change({ span: name }, { replace: true })}>last ${name}</button>`,
      )}
    </div>
    <${Trouble} error=${error} />
    ${!jobs && !error && html`<p class="note">Looking …</p>`}
    ${jobs && html`<${Fragment}>
      ${jobs.length === 0 && html`<p class="empty">No job ran in the last ${span}.</p>`}
      <div class="lanes">
        ${[...byPlace(jobs)].sort().map(([name, own]) => html`<${Lane} key=${name} name=${name} jobs=${own} begin=${begin} seconds=${seconds} />`)}
        <div class="ticks" aria-hidden="true">
          ${ticks.map((at) => html`<span key=${at} style=${{ left: `${(100 * (at - begin)) / seconds}%` }}>${clock(at, span === "week")}</span>`)}
        </div>
      </div>
      ${isCut && html`<p class="note">Only the ${ENDED.toLocaleString()} jobs that ended last are shown.</p>`}
    <//>`}
  </section>`;
}

export function Activity() {
  const state = useNow();
  const running = byPlace(state.running);
  const pending = byPlace(state.pending);
  const idle = Object.keys(state.server?.workers ?? {}).filter((engine) => state.server.workers[engine]);
  const named = (state.clusters ?? []).map((one) => whereOf({ engine: one.engine, cluster: one.name }));
  const names = [...new Set([...running.keys(), ...pending.keys(), ...named])];
  names.push(...idle.filter((engine) => !names.some((name) => name.split(", ")[0] === engine)));
  names.sort((one, other) => (running.get(other)?.length ?? 0) - (running.get(one)?.length ?? 0));
  const counts = state.totals;
  return html`<${Fragment}>
    <h1 class="unseen">Activity</h1>
    <${Trouble} error=${state.error} />
    <${Timeline} />
    <h2>Now${counts && html` <span class="note"><${State} state="running" /> ${(counts.running ?? 0).toLocaleString()}</span>`}</h2>
    ${state.server && !names.length && html`<p class="note">No job runs or waits.</p>`}
    <div class="cards">
      ${names.map((name) => html`<${Place} key=${name} name=${name} running=${running.get(name) ?? []} pending=${pending.get(name) ?? []} state=${state} />`)}
    </div>
  <//>`;
}
