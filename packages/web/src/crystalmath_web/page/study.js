// A study: chosen jobs as a table, as curves of one value against another, or as equations of state.

import { Fragment, State, Trouble, address, change, formula, go, html, jobCount, link, nameOf, useEffect, useMemo, useRef, useState } from "./lib.js";
import { ASIDE, Choice, UNITS, compare, differing, isNumber, reduced, shown, titleOf, unitOf, withNumbers } from "./columns.js";
import { filtersOf } from "./filters.js";
import { Chart } from "./plot.js";
import { Histogram, Hull, Ranges, Scatter, rangesOf, within } from "./screening.js";
import { call, useChanges } from "./server.js";
import { Export, columnsOf, idsOf, rowsOf, written } from "./table.js";

/** Jobs of a study, rows of its table, and curves of its plot at most. */
const MOST = 10_000;
const DRAWN = 300;
const CURVES = 12;
/** Have the rows of the jobs that the address names, or whose filters it has; again when jobs change. */
function useRows(ids, filters) {
  const [state, setState] = useState({ share: 0 });
  const busy = useRef(false);
  const stale = useRef(false);
  const ended = useRef(false);
  const load = async () => {
    stale.current = busy.current;
    if (busy.current || ended.current) return;
    busy.current = true;
    const begun = performance.now();
    try {
      const found = ids ?? (await idsOf(filters, MOST + 1));
      const told = await rowsOf(found.slice(0, MOST), (share) => setState((before) => (before.rows ? before : { share })));
      setState({ ...told, rows: withNumbers(told.rows), more: found.length > MOST });
    } catch (error) {
      setState((before) => ({ ...before, error }));
    }
    busy.current = false;
    if (stale.current) setTimeout(load, 4 * (performance.now() - begun));
  };
  useEffect(() => {
    load();
    return () => (ended.current = true);
  }, []);
  useChanges(load);
  return state;
}

export function Study() {
  const [query, state, ids] = ["q", "state", "ids"].map((name) => address.value.get(name));
  return html`<${Shown} key=${[query, state, ids].join(" ")} query=${query ?? ""} state=${state} ids=${ids?.split(",")} />`;
}

const SHOWN = { table: Table, curve: Curve, "equation of state": Equations, scatter: Scatter, histogram: Histogram, hull: Hull };

function Shown({ query, state, ids }) {
  const { filters } = filtersOf(query);
  if (state) filters.state = state.split(",");
  const { rows: all, unreadable, more, share, error } = useRows(ids, filters);
  const limits = address.value.get("within");
  const ranges = useMemo(() => rangesOf(limits), [limits]);
  const rows = useMemo(() => all && within(all, ranges), [all, ranges]);
  const view = address.value.get("show") ?? "table";
  const View = Object.hasOwn(SHOWN, view) ? SHOWN[view] : Table;
  const columns = useMemo(() => columnsOf(rows ?? []), [rows]);
  return html`<${Fragment}>
    <div class="title">
      <h1>Study</h1>
      ${rows && html`<span>${ranges.length ? `${rows.length.toLocaleString()} of ` : ""}${more ? "the newest " : ""}${jobCount(all.length)}</span>`}
      <a href=${link({ view: "jobs", q: query, state })}>${ids ? "all jobs" : query || state ? [query, state].filter(Boolean).join(" ") : "all jobs"}</a>
      <span class="space"></span>
      <span class="parts" role="group" aria-label="Show as">
        ${Object.keys(SHOWN).map(
          (name) => html`<button aria-pressed=${String(name === view)} onClick=${() => change({ show: name })}>${name}</button> `,
        )}
      </span>
      ${rows && html`<${Export} find=${() => rows.map((row) => row.job_id)} what="the study" />`}
    </div>
    <${Trouble} error=${error} />
    ${unreadable?.length > 0 && html`<p class="trouble">${unreadable.length === 1 ? "A result" : `${unreadable.length} results`} cannot be read, and the values are missing: ${unreadable[0]}</p>`}
    ${all?.length > 1 && html`<${Ranges} rows=${all} ranges=${ranges} />`}
    ${rows ? (rows.length ? html`<${View} rows=${rows} all=${all} columns=${columns} />` : html`<p class="empty">No job fits.</p>`) : !error && html`<p class="note">Looking … ${Math.round(100 * share)} %</p>`}
  <//>`;
}

// --- the table ---------------------------------------------------------------------------------

function Table({ rows, columns }) {
  const all = address.value.has("all");
  const sort = address.value.get("sort") ?? "";
  const by = sort.replace(/^-/, "");
  const others = all ? columns.filter((name) => name !== "job_id") : differing(rows, columns);
  const names = ["name", ...others.filter((name) => name !== "name")];
  const sorted = useMemo(() => {
    const known = rows.filter((row) => row[by] !== undefined);
    known.sort((one, other) => (sort === by ? 1 : -1) * compare(one[by], other[by]));
    return sort ? [...known, ...rows.filter((row) => row[by] === undefined)] : rows;
  }, [rows, sort]);
  const numbers = names.filter((name) => rows.some((row) => isNumber(row[name])));
  const order = (name) => change({ sort: sort === name ? `-${name}` : name });
  return html`<${Fragment}>
    <p class="choices">
      <label><input type="checkbox" checked=${all} onChange=${() => change({ all: all ? "" : "1" })} /> all columns, also in which the jobs agree</label>
    </p>
    <div class="wide" tabindex="0" role="region" aria-label="Table of the study">
      <table>
        <thead><tr>${names.map(
          (name) => html`<th class=${numbers.includes(name) ? "number" : ""} aria-sort=${by === name ? (sort === by ? "ascending" : "descending") : null}>
            <button class="quiet" onClick=${() => order(name)}>${titleOf(name)}</button></th>`,
        )}</tr></thead>
        <tbody>${sorted.slice(0, DRAWN).map(
          (row) => html`<tr key=${row.job_id}>${names.map((name) => html`<td class=${numbers.includes(name) ? "number" : ""}>${cell(name, row)}</td>`)}</tr>`,
        )}</tbody>
      </table>
    </div>
    ${rows.length > DRAWN && html`<p class="note">${rows.length - DRAWN} more are in the export.</p>`}
  <//>`;
}

function cell(name, row) {
  const value = row[name];
  if (name === "name") return html`<a href=${link({ view: "job", id: row.job_id })}>${nameOf(row)}</a>`;
  if (name === "state") return html`<${State} state=${value} />`;
  return shown(name, value);
}

// --- curves ------------------------------------------------------------------------------------

/** Make a curve for each value of `by`, and for each material where several have values at one x. */
function curvesOf(rows, x, y, by, difference) {
  const known = (row) => row[x] !== undefined && isNumber(row[y]);
  const points = rows.filter(known).sort((one, other) => compare(one[x], other[x]));
  const numbers = points.every((row) => isNumber(row[x]));
  const names = numbers ? null : [...new Set(points.map((row) => written(row[x])))];
  const materials = new Map();
  for (const row of points) {
    const place = written([row[x], row[by]]);
    materials.set(place, (materials.get(place) ?? new Set()).add(reduced(row.formula)));
  }
  const isShared = x !== "formula" && by !== "formula" && [...materials.values()].some((each) => each.size > 1);
  const groupsBy = (labelOf) => {
    const groups = new Map();
    for (const row of points) {
      const label = labelOf(row);
      if (!groups.has(label)) groups.set(label, []);
      const at = numbers ? row[x] : names.indexOf(written(row[x]));
      groups.get(label).push({ x: at, y: row[y], job_id: row.job_id });
    }
    return groups;
  };
  let groups = groupsBy((row) => [isShared && reduced(row.formula), by && `${titleOf(by)} ${written(row[by])}`].filter(Boolean).join(", "));
  // Single points are no curves: all of them are one series.
  const isScattered = !by && groups.size > 1 && [...groups.values()].every((own) => own.length === 1);
  if (isScattered) groups = groupsBy(() => "");
  const curves = [...groups].sort(([one], [other]) => compare(one, other)).map(([label, own]) => {
    const last = own.at(-1).y;
    return { label: label || titleOf(y), line: !isScattered, points: difference ? own.map((each) => ({ ...each, y: 1000 * (each.y - last) })) : own };
  });
  return { curves, names, left: rows.filter((row) => !known(row)) };
}

function Curve({ rows, columns }) {
  const differ = differing(rows, columns);
  const asked = differ.filter((name) => /^(labels_|params\.)/.test(name));
  const xs = [...asked, ...differ.filter((name) => !asked.includes(name) && !name.startsWith("results."))];
  const ys = columns.filter((name) => !ASIDE.includes(name) && rows.some((row) => isNumber(row[name])));
  const hasNumbers = (name) => rows.every((row) => row[name] === undefined || isNumber(row[name]));
  const y = address.value.get("y") ?? (ys.includes("energy_per_atom_ev") ? "energy_per_atom_ev" : ys[0]);
  const by = address.value.get("by") ?? "";
  const difference = address.value.has("difference");
  // A curve needs values at several places: against what is the same for each material there is none.
  const varies = (name) =>
    curvesOf(rows, name, y, by, false).curves.some(({ line, points }) => line && points.some((point) => point.x !== points[0].x));
  const candidates = [...asked.filter(hasNumbers), ...asked, ...xs.filter((name) => name === "formula"), ...xs];
  const x = address.value.get("x") ?? candidates.find(varies) ?? xs[0];
  const made = useMemo(() => curvesOf(rows, x, y, by, difference), [rows, x, y, by, difference]);
  useEffect(() => {
    // What is chosen by itself stands in the address, too.
    if (x && y) change({ x, y }, { replace: true });
  }, []);
  if (!x || !y) return html`<p class="empty">These jobs differ in no label or parameter, or have no number to draw.</p>`;
  const { curves, names, left } = made;
  const unit = difference ? `${titleOf(y).replace(/ \(.*/, "")} from the last point (${y.endsWith("_ev") ? "meV" : "1/1000"})` : titleOf(y);
  // Differences are a thousand times as large: meV.
  const digits = unitOf(y)[2] ? UNITS[unitOf(y)[2]][1] - (difference ? 3 : 0) : null;
  const states = Object.entries(Object.groupBy(left, (row) => row.state));
  return html`<${Fragment}>
    <p class="choices">
      <${Choice} name="y" label="y" value=${y} options=${ys} />
      <${Choice} name="x" label="against x" value=${x} options=${xs} />
      <${Choice} name="by" label="a curve for each" value=${by} options=${differ} none="material" />
      <label><input type="checkbox" checked=${difference} onChange=${() => change({ difference: difference ? "" : "1" })} /> from the last point</label>
    </p>
    ${curves.length
      ? html`<${Chart} curves=${curves.slice(0, CURVES)} xLabel=${titleOf(x)} yLabel=${unit} xNames=${names} digits=${digits}
          onPoint=${open} label=${`${unit} against ${titleOf(x)}: ${curves.length} curves of ${rows.length - left.length} jobs`} />`
      : html`<p class="empty">No job has both values.</p>`}
    ${curves.length > CURVES && html`<p class="note">${curves.length - CURVES} more curves: choose fewer jobs.</p>`}
    ${left.length > 0 && html`<p class="note">Not drawn, as a value is missing: ${states.map(([name, all]) => `${all.length} ${name}`).join(", ")}.</p>`}
  <//>`;
}

const open = (point) => point.job_id && go(link({ view: "job", id: point.job_id }));

// --- equations of state ------------------------------------------------------------------------

const FINE = 60;
const EV_PER_ANG3 = 160.21766208; // GPa

/** Return the energy (eV) of Birch and Murnaghan at a volume (Å³). */
function energyAt(volume, { v0_ang3: v0, e0_ev: e0, b_gpa: b, b_prime: derivative }) {
  const square = (v0 / volume) ** (2 / 3);
  const strain = square - 1;
  return e0 + ((9 * v0 * b) / (16 * EV_PER_ANG3)) * (strain ** 3 * derivative + strain ** 2 * (6 - 4 * square));
}

/** Draw what was computed as points, and the fit as a line; of several for one atom, above the minimum. */
function curvesOfStates(states, rows) {
  return states.slice(0, CURVES).flatMap((state, colour) => {
    const several = states.length > 1;
    const count = several ? atomsOf(state, rows) : 1;
    const point = (volume, energy, job_id) => ({ x: volume / count, y: (energy - (several ? state.e0_ev : 0)) / count, job_id });
    const low = Math.min(state.volumes_ang3[0], state.v0_ang3);
    const high = Math.max(state.volumes_ang3.at(-1), state.v0_ang3);
    const fine = Array.from({ length: FINE + 1 }, (_, number) => low + ((high - low) * number) / FINE);
    return [
      { label: materialOf(state), colour, line: false, points: state.volumes_ang3.map((volume, number) => point(volume, state.energies_ev[number], state.job_ids[number])) },
      { label: "", colour, dots: false, points: fine.map((volume) => point(volume, energyAt(volume, state))) },
    ];
  });
}

const atomsOf = (state, rows) => rows.find((row) => row.job_id === state.job_ids[0])?.natoms ?? 1;
const materialOf = (state) => (state.name ?? state.formula).replace(/^formula=/, "");

function Equations({ rows, columns }) {
  const by = address.value.get("by") ?? "";
  const [told, setTold] = useState({});
  useEffect(() => {
    let ended = false;
    const asked = { job_ids: rows.map((row) => row.job_id), ...(by && { by: by.replace(/^params\./, "") }) };
    call("page.equations_of_state", asked).then(
      (found) => ended || setTold(found),
      (error) => ended || setTold({ error }),
    );
    return () => (ended = true);
  }, [rows, by]);
  const { states = [], error, left_out: left = {} } = told;
  const curves = useMemo(() => curvesOfStates(states, rows), [states]);
  const reasons = Object.entries(Object.groupBy(Object.values(left), (why) => why));
  const per = states.length > 1 ? "/atom" : "";
  return html`<${Fragment}>
    <p class="choices"><${Choice} name="by" label="one for each" value=${by} none="material"
      options=${differing(rows, columns).filter((name) => /^(labels_|params\.)/.test(name))} /></p>
    <${Trouble} error=${error} />
    ${!told.states && !error && html`<p class="note">Looking …</p>`}
    ${curves.length > 0 &&
    html`<${Chart} curves=${curves} xLabel=${`volume (Å³${per})`} digits=${UNITS.ev[1]} below=${170 + 24 * states.length} onPoint=${open}
        yLabel=${per ? "energy above the minimum (eV/atom)" : "energy (eV)"} label=${`Equations of state: ${states.map(materialOf).join(", ")}`} />
      <table class="fits">
        <thead><tr><th>Material</th>${[`V₀ (Å³${per})`, `E₀ (eV${per})`, "B (GPa)", "B′"].map((one) => html`<th class="number">${one}</th>`)}<th>Note</th></tr></thead>
        <tbody>${states.map(
          (state) => html`<tr>
            <th scope="row">${formula(materialOf(state))}</th>
            ${[[state.v0_ang3, UNITS.ang3[1]], [state.e0_ev, UNITS.ev[1]]].map(
              ([value, digits]) => html`<td class="number">${(value / (per ? atomsOf(state, rows) : 1)).toFixed(digits)}</td>`,
            )}
            <td class="number">${state.b_gpa.toFixed(1)}</td><td class="number">${state.b_prime.toFixed(2)}</td>
            <td class="trouble">${troubleOf(state)}</td>
          </tr>`,
        )}</tbody>
      </table>`}
    ${reasons.map(([why, all]) => html`<p class="note">${all.length} not drawn: ${why}</p>`)}
  <//>`;
}

function troubleOf({ volumes_ang3: volumes, v0_ang3: v0, differing: names }) {
  const outside = v0 <= volumes[0] || v0 >= volumes.at(-1);
  return [outside && "the minimum lies outside of the volumes", names.length && `the jobs differ in ${names.join(", ")}`]
    .filter(Boolean).join("; ");
}
