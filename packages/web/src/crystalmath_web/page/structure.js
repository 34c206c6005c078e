// A structure in three dimensions, drawn by 3Dmol: atoms, cell, and arrows for forces and moments.

import { COLOURS, RADII, SYMBOLS } from "./elements.js";
import { Fragment, formula, html, useEffect, useMemo, useRef, useState } from "./lib.js";

/** More atoms than that have no bonds, which would take seconds to find. */
const MOST_BONDED = 2000;
/** Of more atoms no images are drawn. */
const MOST_IMAGED = 500;
/** So near to a face of the cell an atom lies on it, as a share of the cell. */
const ON_FACE = 1e-3;
/** Less than this is no force, in eV/Å. */
const LEAST = 1e-3;
/** The radius of a drawn sphere, as a share of the covalent one. */
const SPHERE = 0.5;

// The tables end before the heaviest elements, which look like the last one in them.
const colourOf = (number) => COLOURS[number] ?? COLOURS.at(-1);
const radiusOf = (number) => SPHERE * (RADII[number] ?? RADII.at(-1));

/** Write atoms as a formula as ASE does, and so the server: C and H first, the others by the alphabet. */
export function formulaOf(numbers) {
  const counts = new Map();
  for (const number of numbers) counts.set(SYMBOLS[number], (counts.get(SYMBOLS[number]) ?? 0) + 1);
  const first = ["C", "H"].filter((symbol) => counts.has(symbol));
  const rest = [...counts.keys()].filter((symbol) => !first.includes(symbol)).sort();
  return [...first, ...rest].map((symbol) => symbol + (counts.get(symbol) > 1 ? counts.get(symbol) : "")).join("");
}

const array = (value) => (value?.__ndarray__ ? value.__ndarray__[2] : (value ?? []).flat());

/** Read atoms as ASE writes them in JSON: numbers, and positions and cell (Å) one after another. */
function fromAse(text) {
  const told = typeof text === "string" ? JSON.parse(text) : text;
  const atoms = told.numbers ? told : told["1"];
  const cell = atoms.cell?.array ?? atoms.cell;
  return {
    numbers: array(atoms.numbers), positions: array(atoms.positions), cell: array(cell?.array ?? cell),
    pbc: array(atoms.pbc), moments: atoms.initial_magmoms ? array(atoms.initial_magmoms) : null,
  };
}

/** Find the structure in a specification or a result; null where there is none. */
export function structureIn(value) {
  const text = value?.data ?? value?.atoms_json ?? value?.atoms?.atoms_json;
  return text ? fromAse(text) : null;
}

let library;

/** Load what draws, which has half a megabyte; and begin the process for the graphics card (a notebook has done so). */
const load = () =>
  Promise.all([
    import("./vendor/3Dmol.js"),
    location.protocol.startsWith("http") &&
      new Promise((resolve) => {
        const worker = new Worker("/page/warm.js");
        worker.onmessage = worker.onerror = () => (worker.terminate(), resolve());
      }),
  ]).then(([found]) => found);

/** Let the browser do something else: draw, scroll, take keys. */
const turn = (wait = 0) => new Promise((resolve) => setTimeout(resolve, wait));

/**
 * What draws: one viewer for all structures of the page, which go into it one after another. Where software draws,
 * another context with its shaders is a second's wait; and 3Dmol frees none.
 */
const drawing = { element: document.createElement("div"), viewer: null, wanted: null, busy: false, shown: [] };
drawing.element.className = "drawing";
const nothing = () => null;
/** From where a structure is seen at first: a little from above and aside, as a quaternion (x, y, z, w). */
const TURNED = [0.09, -0.12, 0, 0.9886];
/** No view is closer than of this half width, in Å, and this share of it stays free at the edges. */
const CLOSEST = 1.8;
const EDGE = 0.06;
/** The cell is seen whole, too, if the camera goes no further away for that than by this factor. */
const FURTHER = 1.25;
/** Keys that turn it, by so many degrees about an axis of the screen. */
const TURNS = { ArrowLeft: [-10, "y"], ArrowRight: [10, "y"], ArrowUp: [-10, "x"], ArrowDown: [10, "x"] };

/** Put what draws into a box of the page; what it drew elsewhere is not seen there. */
function place({ createViewer }, box) {
  drawing.element.style.visibility = "hidden";
  box.append(drawing.element);
  // It takes its size from where it stands, and would draw at once what it has.
  drawing.viewer ??= createViewer(drawing.element, { backgroundAlpha: 0, antialias: true });
  if (drawing.viewer) drawing.viewer.show = nothing;
  drawing.viewer?.resize();
  return drawing.viewer;
}

/**
 * Draw one frame: `numbers`, and `positions`, `cell` and `forces` one after another (Å, eV/Å). The `first` frame
 * decides which atoms have images on the faces of the cell.
 */
export function Structure({ frame, first = frame, arrows = "", title }) {
  const box = useRef();
  const wanted = useRef();
  const [error, setError] = useState("");
  useEffect(() => {
    let ended = false;
    const begin = (found) => {
      if (ended) return;
      if (!place(found, box.current)) setError("This browser draws no structures: it has no WebGL.");
      drawLast(wanted.current);
    };
    library ??= load();
    library.then(begin, (problem) => setError(String(problem)));
    return () => (ended = true);
  }, []);
  useEffect(() => {
    wanted.current = { frame, first, arrows, box: box.current };
    if (box.current.contains(drawing.element)) drawLast(wanted.current);
  }, [frame, first, arrows]);
  const press = (event) => {
    const { viewer } = drawing;
    if (!viewer || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in TURNS) viewer.rotate(...TURNS[event.key]);
    else if ("+-".includes(event.key)) viewer.zoom(event.key === "+" ? 1.2 : 1 / 1.2);
    else return;
    event.preventDefault();
  };
  return html`<${Fragment}>
    <div class="structure" ref=${box} tabindex="0" onKeyDown=${press} role="img" aria-label=${title ?? `Structure of ${formulaOf(frame.numbers)}`}></div>
    <${Legend} numbers=${frame.numbers} />
    ${error && html`<p class="trouble">${error}</p>`}
  <//>`;
}

/** Which colour is which element. */
function Legend({ numbers }) {
  const symbol = (number) => SYMBOLS[number];
  const elements = [...new Set(numbers)].sort((one, other) => (symbol(one) < symbol(other) ? -1 : 1));
  return html`<ul class="legend" aria-label="Elements">
    ${elements.map((number) => html`<li><i style=${{ background: colourOf(number) }}></i> ${symbol(number)}</li>`)}
  </ul>`;
}

/** Draw what was wanted last, in steps between which the page answers; what came before it is left out. */
async function drawLast(wanted) {
  const { viewer, element } = drawing;
  drawing.wanted = wanted;
  if (drawing.busy || !viewer) return;
  drawing.busy = true;
  try {
    while (drawing.wanted) {
      const { frame, first, arrows, box } = drawing.wanted;
      drawing.wanted = null;
      await turn();
      if (!box.contains(element)) continue;
      viewer.show = nothing; // it draws by itself at each step
      const spheres = spheresOf(frame, first);
      build(viewer, spheres, frame, arrows, box);
      await turn();
      const key = frame.numbers.join();
      if (drawing.shown[0] !== box || drawing.shown[1] !== key) fit(viewer, spheres, frame.cell, box);
      drawing.shown = [box, key];
      delete viewer.show;
      await render(viewer);
      if (!box.contains(element)) continue;
      element.style.visibility = "visible";
      Object.assign(element.dataset, { arrows, spheres: spheres.length });
    }
  } finally {
    drawing.busy = false;
  }
}

/** How often it is looked whether shaders are compiled, in milliseconds. */
const LOOK = 20;
const NOT_READY = Symbol("not ready");

/**
 * Draw what is in the viewer, while the page answers.
 *
 * The graphics card's process compiles shaders, and whoever asks for one waits for it. So it is drawn until a new one
 * would be used, and again when that process has come so far; what was asked meanwhile is asked then.
 */
async function render(viewer) {
  const gl = viewer.getRenderer().getContext();
  if (!gl?.fenceSync) return viewer.render();
  const { linkProgram, useProgram } = gl;
  for (let program = null; ; program = null) {
    const unasked = {
      linkProgram: (given) => linkProgram.call(gl, (program = given)),
      useProgram(given) {
        if (given === program) throw NOT_READY;
        useProgram.call(gl, given);
      },
      getShaderParameter: () => true, getProgramParameter: () => true, getUniformLocation: () => null,
      getAttribLocation: () => -1,
    };
    Object.assign(gl, unasked);
    try {
      viewer.render();
    } catch (problem) {
      if (problem !== NOT_READY) throw problem;
    } finally {
      for (const name in unasked) delete gl[name];
    }
    if (!program) return undefined;
    viewer.show = nothing; // it draws by itself, too, where its size has changed
    await done(gl);
    delete viewer.show;
    const { uniforms, attributes } = program;
    for (const name in uniforms) uniforms[name] = gl.getUniformLocation(program, name);
    for (const name in attributes) attributes[name] = gl.getAttribLocation(program, name);
  }
}

/** Wait until all that was asked of the graphics card is done, or its context is lost. */
async function done(gl) {
  const fence = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
  gl.flush();
  while (!gl.isContextLost() && gl.getSyncParameter(fence, gl.SYNC_STATUS) !== gl.SIGNALED) await turn(LOOK);
  gl.deleteSync(fence);
}

/** Put the atoms of a frame, its cell and its arrows into the viewer, which draws them later. */
function build(viewer, spheres, { numbers, positions, cell, ...values }, arrows, box) {
  const lines = spheres.map(({ number, place }) => `${SYMBOLS[number]} ${place.join(" ")}`);
  viewer.removeAllModels();
  viewer.removeAllShapes();
  const text = [lines.length, "", ...lines].join("\n");
  const model = viewer.addModel(text, "xyz", { assignBonds: numbers.length <= MOST_BONDED });
  for (const number of new Set(numbers)) {
    const color = colourOf(number);
    model.setStyle({ elem: SYMBOLS[number] }, { sphere: { radius: radiusOf(number), color }, stick: { radius: 0.09, color } });
  }
  if (hasCell(cell)) drawCell(viewer, cell, getComputedStyle(box).getPropertyValue("--muted").trim());
  if (arrows && values[arrows]) drawArrows(viewer, positions, values[arrows], arrows);
}

/** Return what is drawn of a frame: its atoms, and their images on the other faces of a periodic cell. */
function spheresOf({ numbers, positions, cell }, first) {
  const spheres = [];
  for (let atom = 0; atom < numbers.length; atom += 1) {
    for (const shift of shiftsOf(atom, first)) {
      const moved = cell ? pointOf(cell, shift) : shift;
      spheres.push({ number: numbers[atom], place: moved.map((by, axis) => positions[3 * atom + axis] + by) });
    }
  }
  return spheres;
}

/**
 * Return by how many cells along each vector an atom and its images are moved.
 *
 * The first frame decides for all: an atom that leaves its face in a relaxation keeps its images.
 */
function shiftsOf(atom, { numbers, positions, cell, pbc }) {
  const shifts = [[0, 0, 0]];
  const inverse = numbers.length <= MOST_IMAGED && inverted(cell);
  if (!inverse) return shifts;
  const [x, y, z] = positions.slice(3 * atom, 3 * atom + 3);
  for (let axis = 0; axis < 3; axis += 1) {
    const share = x * inverse[axis] + y * inverse[3 + axis] + z * inverse[6 + axis];
    const step = Math.abs(share) < ON_FACE ? 1 : Math.abs(share - 1) < ON_FACE ? -1 : 0;
    if (!pbc?.[axis] || !step) continue;
    shifts.push(...shifts.map((shift) => shift.with(axis, step)));
  }
  return shifts;
}

/** Turn a vector by a quaternion. */
function turned([x, y, z], [a, b, c, w] = TURNED) {
  const [u, v, t] = [2 * (b * z - c * y), 2 * (c * x - a * z), 2 * (a * y - b * x)];
  return [x + w * u + b * t - c * v, y + w * v + c * u - a * t, z + w * t + a * v - b * u];
}

/** Return where the camera sees all balls as large as they can be: what it looks at, from how far, and their extent. */
function viewOf(balls, viewer, box) {
  const middle = (values) => {
    // Not Math.min(...values): so many arguments no function takes.
    const [low, high] = values.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
    return (low + high) / 2;
  };
  const centre = [0, 1, 2].map((axis) => middle(balls.map(({ place }) => place[axis])));
  const upright = Math.tan((viewer.fov * Math.PI) / 360) * (1 - EDGE);
  const across = (upright * box.clientWidth) / box.clientHeight;
  let distance = CLOSEST / upright;
  let size = CLOSEST;
  for (const { place, radius } of balls) {
    const [x, y, z] = place.map((value, axis) => value - centre[axis]);
    distance = Math.max(distance, z + radius + (Math.abs(x) + radius) / across, z + radius + (Math.abs(y) + radius) / upright);
    size = Math.max(size, Math.hypot(x, y, z) + radius);
  }
  return { centre, distance, size };
}

/** Move the camera to where all spheres are seen, and the cell unless they would be much smaller for it. */
function fit(viewer, spheres, cell, box) {
  const atoms = spheres.map(({ number, place }) => ({ place: turned(place), radius: radiusOf(number) }));
  const corners = hasCell(cell) ? CORNERS.map((corner) => ({ place: turned(pointOf(cell, corner)), radius: 0 })) : [];
  const [near, whole] = [atoms, [...atoms, ...corners]].map((balls) => viewOf(balls, viewer, box));
  const { centre, distance, size } = whole.distance < FURTHER * near.distance ? whole : near;
  const [a, b, c, w] = TURNED;
  // The centre in the structure's own axes: turned back.
  const back = turned(centre, [-a, -b, -c, w]);
  viewer.setView([...back.map((value) => -value), viewer.CAMERA_Z - distance, ...TURNED]);
  viewer.setSlab(Math.min(-4 * size, -50), Math.max(4 * size, 50));
}

/** Invert a matrix of three rows; null where it has no inverse. */
function inverted(m) {
  if (m?.length !== 9) return null;
  const minor = (i, j) => {
    const [a, b] = [0, 1, 2].filter((row) => row !== j);
    const [c, d] = [0, 1, 2].filter((column) => column !== i);
    return (m[3 * a + c] * m[3 * b + d] - m[3 * a + d] * m[3 * b + c]) * ((i + j) % 2 ? -1 : 1);
  };
  const determinant = m[0] * minor(0, 0) + m[1] * minor(1, 0) + m[2] * minor(2, 0);
  if (Math.abs(determinant) < 1e-9) return null;
  return [0, 1, 2].flatMap((i) => [0, 1, 2].map((j) => minor(i, j) / determinant));
}

const hasCell = (cell) => cell?.some((value) => value);
const CORNERS = [0, 1].flatMap((i) => [0, 1].flatMap((j) => [[i, j, 0], [i, j, 1]]));
/** Return where so many of each vector of the cell lead. */
const pointOf = (cell, counts) =>
  [0, 1, 2].map((axis) => counts.reduce((sum, count, vector) => sum + count * cell[3 * vector + axis], 0));

function drawCell(viewer, cell, color) {
  const point = (...counts) => {
    const [x, y, z] = pointOf(cell, counts);
    return { x, y, z };
  };
  for (const [i, j] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
    viewer.addLine({ start: point(0, i, j), end: point(1, i, j), color });
    viewer.addLine({ start: point(i, 0, j), end: point(i, 1, j), color });
    viewer.addLine({ start: point(i, j, 0), end: point(i, j, 1), color });
  }
}

/** Draw an arrow for each atom: the longest is of 2 Å. Moments along one axis stand upright. */
function drawArrows(viewer, positions, values, kind) {
  const scalar = values.length * 3 === positions.length;
  const vector = (atom) => (scalar ? [0, 0, values[atom]] : values.slice(3 * atom, 3 * atom + 3));
  const count = positions.length / 3;
  // One shape: as many as there are atoms are drawn one by one, which takes seconds.
  const shape = viewer.addShape({ color: kind === "forces" ? "#d9480f" : "#7048e8" });
  let longest = LEAST;
  for (let atom = 0; atom < count; atom += 1) longest = Math.max(longest, Math.hypot(...vector(atom)));
  for (let atom = 0; atom < count; atom += 1) {
    const [x, y, z] = positions.slice(3 * atom, 3 * atom + 3);
    const [u, v, w] = vector(atom).map((value) => (2 * value) / longest);
    if (Math.hypot(u, v, w) * longest < 2 * LEAST) continue;
    shape.addArrow({ start: { x, y, z }, end: { x: x + u, y: y + v, z: z + w }, radius: 0.08 });
  }
}

/** A structure with its frames: a slider, and what the shown one is. */
export function Trajectory({ trajectory }) {
  const { count } = trajectory;
  const [at, setAt] = useState(count - 1);
  const [playing, setPlaying] = useState(false);
  const [arrows, setArrows] = useState("");
  const before = useRef(count);
  useEffect(() => {
    // Who looks at the last frame goes on to the new one.
    setAt((shown) => (shown >= before.current - 1 ? count - 1 : shown));
    before.current = count;
  }, [count]);
  useEffect(() => {
    if (!playing) return undefined;
    const timer = setInterval(() => setAt((before) => (before + 1) % count), 100);
    return () => clearInterval(timer);
  }, [playing, count]);
  const frame = trajectory.frame(Math.min(at, count - 1));
  const first = useMemo(() => trajectory.frame(0), [trajectory.source ?? trajectory]);
  const kinds = ["forces", "moments"].filter((kind) => frame[kind]);
  return html`<${Fragment}>
    <${Structure} frame=${frame} first=${first} arrows=${arrows} />
    <div class="frames">
      ${count > 1 &&
      html`<button class="quiet" aria-label=${playing ? "Stop" : "Play"} onClick=${() => setPlaying(!playing)}>
          ${playing ? "❚❚" : "▶"}
        </button>
        <input type="range" min="0" max=${count - 1} value=${at} aria-label="Frame"
          onInput=${(event) => setAt(Number(event.target.value))} />
        <span>${at + 1} of ${count}</span>`}
      <span>${formula(formulaOf(frame.numbers))}</span>
      ${frame.energy !== undefined && frame.energy !== null && html`<span>${frame.energy.toFixed(4)} eV</span>`}
      ${kinds.map(
        (kind) => html`<label><input type="checkbox" checked=${arrows === kind}
          onChange=${() => setArrows(arrows === kind ? "" : kind)} /> ${kind}</label>`,
      )}
    </div>
  <//>`;
}
