// A structure in three dimensions, with its frames: how it is looked at, and what is measured of it.

import { SYMBOLS } from "./elements.js";
import { begin, projected, rotate, show, sphereAt, viewed, zoom } from "./drawing.js";
import {
  at, cellOf, colourOf, displacements, fits, formulaOf, inverted, largestOf, measured, placeOf, polyhedraOf, radiusOf, turned,
} from "./geometry.js";
import { Fragment, energy, formula, html, render, signal, useEffect, useMemo, useRef, useState } from "./lib.js";
import { call } from "./server.js";

export { formulaOf };

/** How long a frame is looked at before its space group is asked for, in milliseconds. */
const REST = 400;
/** A pointer that moved further between its press and its release has turned the structure, in pixels. */
const STILL = 4;
/** Keys that turn it, by so many degrees about an axis of the screen. */
const TURNS = { ArrowLeft: [-10, "y"], ArrowRight: [10, "y"], ArrowUp: [-10, "x"], ArrowDown: [10, "x"] };
/** The axes in the corner are so long, in pixels. */
const AXIS = 26;
const ALONE = [1, 1, 1];

const array = (value) => (value?.__ndarray__ ? value.__ndarray__[2] : (value ?? []).flat());

/** Read atoms as ASE writes them in JSON: numbers, and positions and cell (Å) one after another. */
function fromAse(text) {
  const told = typeof text === "string" ? JSON.parse(text) : text;
  const atoms = told.numbers ? told : told["1"];
  const cell = atoms.cell?.array ?? atoms.cell;
  return {
    numbers: array(atoms.numbers), positions: array(atoms.positions), cell: array(cell?.array ?? cell),
    pbc: array(atoms.pbc), moments: atoms.initial_magmoms ? array(atoms.initial_magmoms) : null,
    constraints: atoms.constraints ?? [],
  };
}

/** Find the structure in a specification or a result; null where there is none. */
export function structureIn(value) {
  const text = value?.data ?? value?.atoms_json ?? value?.atoms?.atoms_json;
  return text ? fromAse(text) : null;
}

/**
 * Draw one frame: `numbers`, and `positions`, `cell` and `forces` one after another (Å, eV/Å). The `first` frame
 * decides which atoms have images on the faces of the cell. `look` says what is drawn besides: `arrows` for the
 * `vectors` of atoms, so many `cells` along each vector, `polyhedra`, the atoms that are `held`; and `picked` ones.
 */
export function Structure({ frame, first = frame, look = {}, onPick, title }) {
  const [box, over, wanted, pressed] = [useRef(), useRef(), useRef(), useRef()];
  const [error, setError] = useState("");
  const overlay = () => over.current && render(html`<${Overlay} frame=${wanted.current.frame} picked=${wanted.current.picked} />`, over.current);
  useEffect(() => {
    let ended = false;
    begin(box.current, () => wanted.current, (problem) => ended || setError(problem));
    return () => (ended = true);
  }, []);
  const { arrows = "", vectors, cells = ALONE, polyhedra = false, held = null, picked = [], fitted = 0 } = look;
  useEffect(() => {
    wanted.current = { frame, first, arrows, vectors, cells, polyhedra, held, picked, fitted, box: box.current, seen: overlay };
    show(wanted.current);
  }, [frame, first, arrows, vectors, cells, polyhedra, held, fitted]);
  useEffect(() => {
    wanted.current.picked = picked;
    if (box.current.querySelector("canvas")) overlay();
  }, [picked]);
  const press = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in TURNS) rotate(...TURNS[event.key]);
    else if ("+-".includes(event.key)) zoom(event.key === "+" ? 1.2 : 1 / 1.2);
    else return;
    event.preventDefault();
  };
  const release = ({ clientX, clientY }) => {
    const [x, y] = pressed.current ?? [];
    if (!onPick || !(Math.hypot(clientX - x, clientY - y) < STILL)) return;
    const { left, top } = box.current.getBoundingClientRect();
    const sphere = sphereAt(clientX - left, clientY - top);
    if (sphere) onPick(sphere);
  };
  return html`<${Fragment}>
    <div class="view">
      <div class="structure" ref=${box} tabindex="0" onKeyDown=${press} role="img" aria-label=${title ?? `Structure of ${formulaOf(frame.numbers)}`}
        onPointerDownCapture=${(event) => (pressed.current = [event.clientX, event.clientY])} onPointerUpCapture=${release}></div>
      <svg class="overlay" ref=${over} aria-hidden="true"></svg>
    </div>
    <${Legend} numbers=${frame.numbers} />
    ${error && html`<p class="trouble">${error}</p>`}
  <//>`;
}

/** The axes of the cell in a corner, and rings around picked atoms with lines between them. */
function Overlay({ frame, picked }) {
  const from = viewed();
  const axes = inverted(frame.cell)
    ? ["a", "b", "c"].map((name, axis) => {
        const vector = at(frame.cell, axis);
        const [x, y, z] = turned(vector, from).map((value) => value / Math.hypot(...vector));
        return { name, x: AXIS * x, y: -AXIS * y, z };
      })
    : [];
  // What points away is drawn first.
  axes.sort((one, other) => one.z - other.z);
  const places = projected(picked.map(({ atom, shift }) => placeOf(frame.positions, frame.cell, atom, shift)));
  const lines = places.slice(1).map((place, before) => [places[before], place]);
  return html`<g class="axes">
      ${axes.map(({ name, x, y }) => html`<line x2=${x} y2=${y} /><text x=${1.4 * x} y=${1.4 * y}>${name}</text>`)}
    </g>
    <g class="measured">
      ${lines.map(([one, other]) => html`<line x1=${one.x} y1=${one.y} x2=${other.x} y2=${other.y} />`)}
      ${places.map(({ x, y, scale }, number) => html`<circle cx=${x} cy=${y} r=${scale * radiusOf(frame.numbers[picked[number].atom]) + 2} />`)}
    </g>`;
}

/** Which colour is which element. */
function Legend({ numbers }) {
  const symbol = (number) => SYMBOLS[number];
  const elements = [...new Set(numbers)].sort((one, other) => (symbol(one) < symbol(other) ? -1 : 1));
  return html`<ul class="legend" aria-label="Elements">
    ${elements.map((number) => html`<li><i style=${{ background: colourOf(number) }}></i> ${symbol(number)}</li>`)}
  </ul>`;
}

/** Return the number of the shown frame: the last one, as long as nobody has chosen another. */
export const shownOf = ({ count }, shown) => Math.min(shown.value ?? count - 1, count - 1);

/** A structure with its frames: a slider, what is drawn, and what is measured. `shown` has the number of the frame. */
export function Trajectory({ trajectory, shown: outer }) {
  const { count } = trajectory;
  const own = useMemo(() => signal(null), []);
  const shown = outer ?? own;
  const [playing, setPlaying] = useState(false);
  const [looks, setLooks] = useState({ arrows: "", cells: ALONE, polyhedra: false, held: true, fitted: 0 });
  const [picked, setPicked] = useState([]);
  const number = shownOf(trajectory, shown);
  // Who looks at the last frame goes on to the new one.
  const choose = (wanted) => (shown.value = wanted >= count - 1 ? null : wanted);
  useEffect(() => {
    if (!playing) return undefined;
    const timer = setInterval(() => choose((shownOf(trajectory, shown) + 1) % count), 100);
    return () => clearInterval(timer);
  }, [playing, count, trajectory]);
  const frame = useMemo(() => trajectory.frame(number), [trajectory, number]);
  const first = useMemo(() => trajectory.frame(0), [trajectory.source ?? trajectory]);
  const { arrows } = looks;
  const vectors = useMemo(() => (arrows === "displacements" ? displacements(frame, first) : frame[arrows]), [frame, first, arrows]);
  const held = looks.held ? trajectory.held : null;
  const pick = ({ atom, shift }) => {
    const same = (one) => one.atom === atom && String(one.shift) === String(shift);
    setPicked((before) => (before.some(same) ? before.filter((one) => !same(one)) : [...before.slice(before.length > 2 ? 3 : 0), { atom, shift }]));
  };
  const change = (part) => setLooks((before) => ({ ...before, ...part }));
  return html`<${Fragment}>
    <${Structure} frame=${frame} first=${first} look=${{ ...looks, vectors, held, picked }} onPick=${pick} />
    <div class="frames">
      ${count > 1 &&
      html`<button class="quiet" aria-label=${playing ? "Stop" : "Play"} onClick=${() => setPlaying(!playing)}>
          ${playing ? "❚❚" : "▶"}
        </button>
        <input type="range" min="0" max=${count - 1} value=${number} aria-label="Frame"
          onInput=${(event) => choose(Number(event.target.value))} />
        <span>${number + 1} of ${count}</span>`}
      <span>${formula(formulaOf(frame.numbers))}</span>
      ${frame.energy !== undefined && frame.energy !== null && html`<span>${energy(frame.energy, "eV")}</span>`}
      <${Looks} frame=${frame} first=${first} trajectory=${trajectory} looks=${looks} change=${change} />
      <${Measure} frame=${frame} picked=${picked} setPicked=${setPicked} />
    </div>
  <//>`;
}

/** What is drawn besides the atoms. */
function Looks({ frame, first, trajectory, looks, change }) {
  const kinds = ["forces", "moments", trajectory.count > 1 && "displacements"].filter((kind) => kind === "displacements" || frame[kind]);
  const isCentre = useMemo(() => polyhedraOf(first).length > 0, [first]);
  const isPeriodic = inverted(frame.cell) && frame.pbc?.some((is) => is);
  const box = (name, checked, part) => html`<label><input type="checkbox" checked=${checked} onChange=${() => change(part)} /> ${name}</label>`;
  const grow = (axis, count) => looks.cells.with(axis, count);
  return html`<${Fragment}>
    ${kinds.map((kind) => box(kind, looks.arrows === kind, { arrows: looks.arrows === kind ? "" : kind }))}
    ${trajectory.held?.size > 0 && box("held atoms", looks.held, { held: !looks.held })}
    ${isCentre && box("polyhedra", looks.polyhedra, { polyhedra: !looks.polyhedra })}
    ${isPeriodic &&
    html`<span class="cells" role="group" aria-label="Supercell">cells
      ${["a", "b", "c"].map(
        (name, axis) => frame.pbc[axis] && html`<select aria-label=${`Cells along ${name}`} value=${looks.cells[axis]}
          onChange=${(event) => change({ cells: grow(axis, Number(event.target.value)) })}>
          ${[1, 2, 3].map((count) => html`<option value=${count} disabled=${!fits(frame.numbers.length, grow(axis, count))}>${count} ${name}</option>`)}
        </select>`,
      )}
    </span>`}
    <button class="quiet" onClick=${() => change({ fitted: looks.fitted + 1 })}>fit</button>
  <//>`;
}

/** The distance or angle of atoms that were clicked, or whose numbers were typed. */
function Measure({ frame, picked, setPicked }) {
  const [text, setText] = useState("");
  useEffect(() => setText(picked.map(({ atom }) => atom).join(" ")), [picked]);
  const type = (event) => {
    setText(event.target.value);
    const words = event.target.value.trim().split(/[\s,–-]+/).filter(Boolean);
    const isAtom = (word) => /^\d+$/.test(word) && Number(word) < frame.numbers.length;
    if (words.every(isAtom) && words.length < 4) setPicked(words.map((word) => ({ atom: Number(word), shift: [0, 0, 0] })));
  };
  const value = measured(picked.map(({ atom, shift }) => placeOf(frame.positions, frame.cell, atom, shift)));
  const names = picked.map(({ atom }) => `${SYMBOLS[frame.numbers[atom]]} ${atom}`).join(" – ");
  return html`<span class="measure">
    <label>measure <input type="text" inputmode="numeric" size="9" placeholder="click 2 or 3" value=${text} onInput=${type} aria-label="Measure atoms, by their numbers" /></label>
    <output>${names && html`${names}${value !== null && html`: <b>${picked.length === 2 ? `${value.toFixed(3)} Å` : `${value.toFixed(1)}°`}</b>`}`}</output>
  </span>`;
}

/** Ask for the space group of a crystal that stays in sight; a notebook cannot. */
function useSpaceGroup({ numbers, positions, cell, pbc }) {
  const [group, setGroup] = useState(null);
  useEffect(() => {
    setGroup(null);
    if (!inverted(cell) || !pbc?.every((is) => is)) return undefined;
    let ended = false;
    const ask = () =>
      call("page.space_group", { numbers: [...numbers], positions: [...positions], cell: [...cell] }).then(
        (told) => ended || setGroup(told),
        () => null,
      );
    const timer = setTimeout(ask, REST);
    return () => {
      ended = true;
      clearTimeout(timer);
    };
  }, [positions]);
  return group;
}

const joined = (values, digits) => values.map((value) => value.toFixed(digits)).join("  ");
const signed = (value, digits) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;

/** The numbers of the shown frame: its cell, its space group, and how it differs from the first one. */
export function Crystal({ trajectory, shown }) {
  const number = shownOf(trajectory, shown);
  const frame = useMemo(() => trajectory.frame(number), [trajectory, number]);
  const first = useMemo(() => trajectory.frame(0), [trajectory.source ?? trajectory]);
  const group = useSpaceGroup(frame);
  const moved = useMemo(() => (number ? largestOf(displacements(frame, first)) : null), [frame, first]);
  const [cell, before] = [cellOf(frame.cell), cellOf(first.cell)];
  const free = trajectory.held?.size ? frame.numbers.length - trajectory.held.size : null;
  const grown = cell && before && (100 * (cell.volume - before.volume)) / before.volume;
  const facts = [
    ["a, b, c (Å)", cell && joined(cell.lengths, 3)],
    ["α, β, γ (°)", cell && joined(cell.angles, 2)],
    ["Volume (Å³)", cell && cell.volume.toFixed(2)],
    ["Space group", group?.symbol && `${group.symbol} (${group.number})`],
    ["Atoms", frame.numbers.length + (free === null ? "" : `, ${trajectory.held.size} held`)],
    ["Since the first frame", moved && [
      `largest displacement ${moved.size.toFixed(3)} Å${moved.size ? ` (${SYMBOLS[frame.numbers[moved.atom]]} ${moved.atom})` : ""}`,
      Math.abs(grown) >= 0.005 && `volume ${signed(grown, 2)} %`,
    ].filter(Boolean).join(", ")],
  ];
  return html`<dl class="facts crystal" aria-label="Crystal">
    ${facts.filter(([, value]) => value).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}
