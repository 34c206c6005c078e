// Many jobs at once: a scatter of two columns, a histogram, the convex hull, a ranking, and filters by numbers.

import { columnsOf, written } from "./table.js";
import { Choice, compare, differing, isNumber, shareColumns, sharesOf, shown, titleOf, valueOf, widestShare } from "./columns.js";
import { Colours, Points, colouring, rangeOf } from "./points.js";
import { Fragment, State, Trouble, address, change, formula, html, link, nameOf, useEffect, useMemo, useRef, useState } from "./lib.js";
import { Bars } from "./bars.js";
import { Structure } from "./structure.js";
import { call } from "./server.js";
import { structureOf } from "./trajectory.js";

/** So many rows of a ranking are drawn. */
const RANKED = 200;
/** Sliders have so many steps. */
const STEPS = 1000;
/** Energies above the hull that are smaller are on it, in eV/atom. */
const ON_HULL = 1e-6;
/** At most so many bars. */
const BARS = 60;

const isStable = (row) => row.e_above_hull < ON_HULL;

/** Return the columns of numbers, and those that differ among rows, with the shares of elements. */
function useColumns(rows) {
  return useMemo(() => {
    const columns = columnsOf(rows);
    const shares = shareColumns(rows);
    const differ = [...differing(rows, columns).filter((name) => name !== "name"), ...shares];
    const numbers = differ.filter((name) => rows.some((row) => isNumber(valueOf(row, name))));
    const asked = differ.filter((name) => /^(labels_|params\.)/.test(name));
    return { differ, numbers, asked, widest: widestShare(rows) };
  }, [rows]);
}

// --- filters by numbers ------------------------------------------------------------------------

/** Return the ranges of columns that the address has. */
export function rangesOf(text) {
  try {
    const read = JSON.parse(text ?? "{}");
    const isRange = (range) => Array.isArray(range) && range.length === 2 && range.every(isNumber);
    return Object.entries(read).filter(([, range]) => isRange(range));
  } catch {
    return [];
  }
}

/** Return the rows whose values lie in all ranges; rows without a value do not. */
export function within(rows, ranges) {
  if (!ranges.length) return rows;
  return rows.filter((row) => ranges.every(([name, [low, high]]) => valueOf(row, name) >= low && valueOf(row, name) <= high));
}

/** Two sliders for each column by which rows are filtered. */
export function Ranges({ rows, ranges }) {
  const { numbers } = useColumns(rows);
  const set = (next) => change({ within: next.length ? JSON.stringify(Object.fromEntries(next)) : "" }, { replace: true });
  const others = numbers.filter((name) => !ranges.some(([each]) => each === name));
  const boundsOf = (name) => rangeOf(rows.map((row) => valueOf(row, name)).filter(isNumber));
  return html`<div class="ranges" role="group" aria-label="Filters by numbers">
    ${ranges.map(([name, range]) => html`<${Range} key=${name} name=${name} range=${range} bounds=${boundsOf(name)}
      onRange=${(next) => set(ranges.map((each) => (each[0] === name ? [name, next] : each)))}
      onEnd=${() => set(ranges.filter(([each]) => each !== name))} />`)}
    ${others.length > 0 &&
    html`<label>filter by <select value="" onChange=${({ target }) => target.value && set([...ranges, [target.value, boundsOf(target.value)]])}>
      <option value="">a number …</option>
      ${others.map((name) => html`<option value=${name}>${titleOf(name)}</option>`)}
    </select></label>`}
  </div>`;
}

function Range({ name, range, bounds: [low, high], onRange, onEnd }) {
  const title = titleOf(name);
  const step = (high - low) / STEPS || 1;
  const waiting = useRef();
  const [at, setAt] = useState(range);
  useEffect(() => setAt(range), [range[0], range[1]]);
  const move = (end, value) => {
    // The ends of the sliders are those of the values, which no step hits.
    const exact = value <= low + step / 2 ? low : value >= high - step / 2 ? high : value;
    const next = at.with(end, exact);
    if (next[0] > next[1]) next[1 - end] = exact;
    setAt(next);
    clearTimeout(waiting.current);
    waiting.current = setTimeout(() => onRange(next), 60);
  };
  const slider = (end, word) => html`<input type="range" min=${low} max=${high} step="any" value=${at[end]} aria-label=${`${word} ${title}`}
    aria-valuetext=${String(shown(name, at[end]))} onInput=${(event) => move(end, Number(event.target.value))}
    onKeyDown=${(event) => {
      const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (by) (event.preventDefault(), move(end, at[end] + (by * (high - low)) / 100));
    }} />`;
  return html`<span class="range"><b>${title}</b> <span class="number">${shown(name, at[0])}</span>${slider(0, "At least")}${slider(1, "At most")}<span class="number">${shown(name, at[1])}</span>
    <button class="quiet" aria-label=${`No filter by ${title}`} onClick=${onEnd}>×</button></span>`;
}

// --- what stands beside a plot -----------------------------------------------------------------

/** A plot, and beside it the structure of the picked job and the ranking. */
function Beside({ rows, columns, by, children }) {
  const picked = address.value.get("job");
  const row = rows.find((each) => each.job_id === picked);
  return html`<div class="screened">
    <div class="plotted">${children}</div>
    <div class="aside">
      ${row && html`<${Picked} key=${picked} row=${row} columns=${columns} />`}
      <${Ranking} rows=${rows} by=${by} columns=${columns} picked=${picked} />
    </div>
  </div>`;
}

const pick = ({ id }) => change({ job: id }, { replace: true });

/** The structure of a job, and its values. */
function Picked({ row, columns }) {
  const [found, setFound] = useState();
  useEffect(() => {
    let ended = false;
    structureOf({ job_id: row.job_id, status: row.state }).then((one) => ended || setFound(one), () => ended || setFound(null));
    return () => (ended = true);
  }, []);
  return html`<section class="picked" aria-label="Picked job">
    <p><a href=${link({ view: "job", id: row.job_id })}><b>${nameOf(row)}</b></a> <span>${formula(row.formula)}</span> <${State} state=${row.state} />
      <button class="quiet" aria-label="Close the structure" onClick=${() => change({ job: "" }, { replace: true })}>×</button></p>
    ${found ? html`<${Structure} frame=${found.frame(0)} />` : html`<p class="empty">${found === null ? "No structure." : "Looking …"}</p>`}
    <dl>${columns.map((name) => html`<dt>${titleOf(name)}</dt><dd>${shown(name, valueOf(row, name))}</dd>`)}</dl>
  </section>`;
}

/** Jobs in the order of a column, the first ones. */
function Ranking({ rows, by, columns, picked }) {
  const isDown = address.value.has("down");
  // Of those that are on the hull those are first that gain most.
  const second = by === "e_above_hull" ? "formation_energy" : by;
  const ranked = useMemo(() => {
    const read = rows.map((row) => ({ row, value: valueOf(row, by), next: valueOf(row, second) ?? 0 }));
    const known = read.filter(({ value }) => isNumber(value));
    known.sort((one, other) => (isDown ? -1 : 1) * (one.value - other.value) || one.next - other.next);
    return known.map(({ row }) => row);
  }, [rows, by, second, isDown]);
  const others = columns.filter((name) => name !== by && name !== "formula");
  const isNumeric = (name) => ranked.some((row) => isNumber(valueOf(row, name)));
  return html`<div class="wide ranking" tabindex="0" role="region" aria-label="Ranking">
    <table>
      <thead><tr>
        <th class="number"><span class="unseen">Rank</span></th><th>Job</th><th>Formula</th>
        <th class="number" aria-sort=${isDown ? "descending" : "ascending"}><button class="quiet" onClick=${() => change({ down: isDown ? "" : "1" })}>${titleOf(by)}</button></th>
        ${others.map((name) => html`<th class=${isNumeric(name) ? "number" : ""}>${titleOf(name)}</th>`)}
      </tr></thead>
      <tbody>${ranked.slice(0, RANKED).map(
        (row, number) => html`<tr key=${row.job_id} class=${row.job_id === picked ? "chosen" : ""}>
          <td class="number note">${number + 1}</td>
          <td><button class="quiet" aria-pressed=${String(row.job_id === picked)} onClick=${() => pick({ id: row.job_id })}>${nameOf(row)}</button></td>
          <td>${formula(row.formula)}</td>
          <td class="number">${by === "e_above_hull" && isStable(row) ? html`<b>on the hull</b>` : shown(by, valueOf(row, by))}</td>
          ${others.map((name) => html`<td class=${isNumeric(name) ? "number" : ""}>${shown(name, valueOf(row, name))}</td>`)}
        </tr>`,
      )}</tbody>
    </table>
    ${ranked.length > RANKED && html`<p class="note">the first ${RANKED} of ${ranked.length.toLocaleString()}</p>`}
  </div>`;
}

/** Write what is shown of the point under the pointer. */
const tipOf = (columns) => ({ row }) =>
  html`<b>${nameOf(row)}</b> ${formula(row.formula)}${columns.filter((name) => name !== "formula").map((name) => html`<div>${titleOf(name)}: ${shown(name, valueOf(row, name))}</div>`)}`;

// --- two columns -------------------------------------------------------------------------------

export function Scatter({ rows, all }) {
  const { differ, numbers, asked, widest } = useColumns(all);
  const chosen = (name, all, else_) => (all.includes(address.value.get(name)) ? address.value.get(name) : else_);
  const y = chosen("y", numbers, ["energy_per_atom_ev", "energy_ev"].find((name) => numbers.includes(name)) ?? numbers[0]);
  const candidates = [...asked.filter((name) => numbers.includes(name)), widest, "volume_ang3", ...numbers, ...differ];
  const x = chosen("x", differ, candidates.find((name) => differ.includes(name) && name !== y));
  const colour = chosen("colour", differ, "");
  const drawn = useMemo(() => {
    const known = rows.filter((row) => valueOf(row, x) !== undefined && isNumber(valueOf(row, y)));
    const isText = known.some((row) => !isNumber(valueOf(row, x)));
    const names = isText ? [...new Set(known.map((row) => written(valueOf(row, x))))].sort(compare) : null;
    const numberOf = names && new Map(names.map((name, number) => [name, number]));
    const how = colouring(colour ? known.map((row) => valueOf(row, colour)) : []);
    const points = known.map((row) => ({
      id: row.job_id, row, x: isText ? numberOf.get(written(valueOf(row, x))) : valueOf(row, x), y: valueOf(row, y),
      colour: how.of(colour && valueOf(row, colour)),
    }));
    return { points, names, ...how };
  }, [rows, x, y, colour]);
  if (!x || !y) return html`<p class="empty">These jobs differ in no two values of which one is a number.</p>`;
  const { points, names, colours, legend } = drawn;
  const columns = [...new Set([y, x, colour].filter(Boolean))];
  const left = rows.length - points.length;
  return html`<${Fragment}>
    <p class="choices">
      <${Choice} name="y" label="y" value=${y} options=${numbers} />
      <${Choice} name="x" label="against x" value=${x} options=${differ} />
      <${Choice} name="colour" label="coloured by" value=${colour} options=${differ} none="nothing" />
      <${Colours} legend=${legend} title=${titleOf(colour)} write=${(value) => shown(colour, value)} />
      ${left > 0 && html`<span class="note">${left.toLocaleString()} jobs lack a value</span>`}
    </p>
    <${Beside} rows=${rows} columns=${columns} by=${y}>
      ${points.length
        ? html`<${Points} points=${points} colours=${colours} lines=${NONE} xTitle=${titleOf(x)} yTitle=${titleOf(y)} xNames=${names}
            picked=${address.value.get("job")} onPick=${pick} tip=${tipOf(columns)}
            label=${`${titleOf(y)} against ${titleOf(x)}: ${points.length} jobs`} />`
        : html`<p class="empty">No job has both values.</p>`}
    <//>
  <//>`;
}

const NONE = [];

// --- one column --------------------------------------------------------------------------------

export function Histogram({ rows, all }) {
  const { numbers } = useColumns(all);
  const asked = address.value.get("y");
  const y = numbers.includes(asked) ? asked : ["energy_per_atom_ev", "energy_ev"].find((name) => numbers.includes(name)) ?? numbers[0];
  const values = useMemo(() => Float64Array.from(rows.map((row) => valueOf(row, y)).filter(isNumber)).sort(), [rows, y]);
  const made = useMemo(() => barsOf(values), [values]);
  if (!y || !values.length) return html`<p class="empty">No number differs among these jobs.</p>`;
  const share = (part) => values[Math.round(part * (values.length - 1))];
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const told = [
    ["minimum", values[0]], ["lower quartile", share(0.25)], ["median", share(0.5)], ["mean", mean], ["upper quartile", share(0.75)],
    ["maximum", values.at(-1)],
  ];
  const range = ([low, high]) => {
    const ranges = Object.fromEntries([...rangesOf(address.value.get("within")), [y, [low, high]]]);
    change({ within: JSON.stringify(ranges) });
  };
  return html`<${Fragment}>
    <p class="choices"><${Choice} name="y" label="values of" value=${y} options=${numbers} /></p>
    <div class="screened">
      <div class="plotted"><${Bars} bars=${made} title=${titleOf(y)} onBar=${range} label=${`Histogram of ${titleOf(y)}: ${values.length} jobs`} /></div>
      <div class="aside"><dl class="told">
        <dt>jobs</dt><dd class="number">${values.length.toLocaleString()}</dd>
        ${told.map(([word, value]) => html`<dt>${word}</dt><dd class="number">${shown(y, value)}</dd>`)}
      </dl><p class="note">A click on a bar shows its jobs alone.</p></div>
    </div>
  <//>`;
}

/** Count sorted values in bars, as wide as Freedman and Diaconis have them. */
function barsOf(values) {
  if (!values.length) return [];
  const [low, high] = [values[0], values.at(-1)];
  const spread = values[Math.floor(0.75 * (values.length - 1))] - values[Math.floor(0.25 * (values.length - 1))];
  const wide = (2 * spread) / Math.cbrt(values.length) || (high - low) / 10 || 1;
  const count = Math.max(1, Math.min(BARS, Math.ceil((high - low) / wide)));
  const bars = Array.from({ length: count }, (_, bar) => ({ low: low + ((high - low) * bar) / count, high: low + ((high - low) * (bar + 1)) / count, count: 0 }));
  bars[count - 1].high = high;
  for (const value of values) bars[Math.min(count - 1, Math.floor(((value - low) / (high - low || 1)) * count))].count += 1;
  return bars;
}

// --- what is stable ----------------------------------------------------------------------------

/** Ask for the energies of jobs above the hull. */
function usePhases(rows, references) {
  const [told, setTold] = useState({});
  const ids = useMemo(() => rows.filter((row) => row.state === "completed").map((row) => row.job_id), [rows]);
  useEffect(() => {
    let ended = false;
    setTold({});
    const at = references.indexOf("=");
    const labels = at > 0 && { references: { [references.slice(0, at)]: references.slice(at + 1) } };
    call("page.phases", { job_ids: ids, ...labels }).then(
      (found) => ended || setTold(found),
      (error) => ended || setTold({ error }),
    );
    return () => (ended = true);
  }, [ids.join(), references]);
  return told;
}

/** Return the sets of two or three elements, those with the most jobs first. */
function systemsOf(rows) {
  const counts = new Map();
  for (const row of rows) {
    const key = Object.keys(sharesOf(row.formula)).sort().join("-");
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  const size = (key) => key.split("-").length;
  const found = [...counts.keys()].filter((key) => size(key) === 2 || size(key) === 3);
  return found.sort((one, other) => counts.get(other) - counts.get(one) || compare(one, other));
}

/** Return the lower convex hull of points, which begins and ends with pure elements at 0. */
export function lowerHull(points) {
  const sorted = [[0, 0], ...points, [1, 0]].sort(([a, b], [c, d]) => a - c || b - d);
  const hull = [];
  for (const point of sorted) {
    const turns = () => {
      const [[a, b], [c, d]] = hull.slice(-2);
      return (c - a) * (point[1] - b) - (d - b) * (point[0] - a) <= 0;
    };
    while (hull.length > 1 && turns()) hull.pop();
    if (!hull.length || hull.at(-1)[0] !== point[0]) hull.push(point);
  }
  return hull;
}

const SIDE = [[[0, 0], [1, 0], [0.5, Math.sqrt(3) / 2], [0, 0]]];

export function Hull({ rows, all }) {
  const typed = address.value.get("references") ?? "";
  const { energies, warnings = [], error } = usePhases(all, typed);
  const known = useMemo(() => (energies ? rows.filter((row) => energies[row.job_id]).map((row) => ({ ...row, ...energies[row.job_id] })) : []), [rows, energies]);
  const systems = useMemo(() => systemsOf(known), [known]);
  const asked = address.value.get("system");
  const system = systems.includes(asked) ? asked : systems[0];
  const drawn = useMemo(() => drawnOf(known, system?.split("-") ?? []), [known, system]);
  const references = html`<label>references <input key=${typed} size="14" placeholder="label=value" value=${typed} onChange=${(event) => change({ references: event.target.value.trim() })} /></label>`;
  const columns = ["formation_energy", "e_above_hull"];
  if (!energies) {
    return html`<${Fragment}><p class="choices">${references}</p><${Trouble} error=${error} />${!error && html`<p class="note">Looking …</p>`}<//>`;
  }
  const stable = known.filter(isStable).length;
  return html`<${Fragment}>
    <p class="choices">
      ${system && html`<label>elements <select value=${system} onChange=${(event) => change({ system: event.target.value })}>
        ${systems.map((one) => html`<option value=${one}>${one}</option>`)}</select></label>`}
      ${references}
      <${Colours} legend=${drawn.legend} title="energy above the hull (eV/atom)" write=${(value) => shown("e_above_hull", value)} />
      <span class="note">${stable} of ${known.length.toLocaleString()} jobs are on the hull</span>
    </p>
    ${warnings.map((one) => html`<p class="note">${one}</p>`)}
    <${Beside} rows=${known} columns=${columns} by="e_above_hull">
      ${drawn.points.length
        ? html`<${Points} points=${drawn.points} colours=${drawn.colours} lines=${drawn.lines} xTitle=${drawn.xTitle} yTitle=${drawn.yTitle}
            triangle=${drawn.triangle} picked=${address.value.get("job")} onPick=${pick} tip=${tipOf(columns)}
            label=${`Convex hull of ${system}: ${drawn.points.length} jobs`} />`
        : html`<p class="empty">A hull is drawn of two or three elements; the ranking has all jobs.</p>`}
    <//>
  <//>`;
}

/** Return what is drawn of a system: two elements by composition and formation energy, three in a triangle. */
function drawnOf(rows, elements) {
  const own = rows.filter((row) => Object.keys(sharesOf(row.formula)).every((symbol) => elements.includes(symbol)));
  const how = colouring(own.map((row) => row.e_above_hull));
  const share = (row, element) => sharesOf(row.formula)[element] ?? 0;
  const point = (row, x, y) => ({ id: row.job_id, row, x, y, colour: how.of(row.e_above_hull) });
  if (elements.length === 3) {
    const points = own.map((row) => point(row, share(row, elements[1]) + share(row, elements[2]) / 2, (share(row, elements[2]) * Math.sqrt(3)) / 2));
    return { ...how, points, lines: SIDE, triangle: elements, xTitle: "", yTitle: elements.join("-") };
  }
  const points = own.map((row) => point(row, share(row, elements[1]), row.formation_energy));
  const stable = points.filter(({ row }) => isStable(row)).map(({ x, y }) => [x, y]);
  return {
    ...how, points, lines: [lowerHull(stable)], triangle: null,
    xTitle: `share of ${elements[1]}`, yTitle: `formation energy of ${elements.join("-")} (eV/atom)`,
  };
}
