// Atoms drawn by 3Dmol: spheres and bonds, the cell, arrows, polyhedra, and marks of atoms that are held.

import { SYMBOLS } from "./elements.js";
import {
  CORNERS, at, colourOf, facesOf, hasCell, isIonic, isLigand, placeOf, pointOf, polyhedraOf, radiusOf, spheresOf, turned, viewpointOf,
} from "./geometry.js";

/** More atoms than that have no bonds, which would take seconds to find. */
const MOST_BONDED = 2000;
/** Less than this is no force, moment or displacement, in eV/Å, μB or Å. */
const LEAST = 1e-3;
/** The longest arrow, in Å. */
const LONGEST = 2;
const ARROWS = { forces: "#d9480f", moments: "#7048e8", displacements: "#0f8a5f" };
/** How opaque polyhedra are, and by which factor spheres are smaller that have some. */
const [OPACITY, SMALLER] = [0.55, 0.6];

let library;

/**
 * Load what draws, which has half a megabyte; and begin the process for the graphics card (a notebook has done so).
 * Return it, and what draws for the graphics card, as far as that is known.
 */
const load = () =>
  Promise.all([
    import("./vendor/3Dmol.js"),
    location.protocol.startsWith("http") &&
      new Promise((resolve) => {
        const worker = new Worker("/page/warm.js");
        worker.onmessage = worker.onerror = ({ data }) => (worker.terminate(), resolve(data));
      }),
  ]);

/** What draws without a graphics card: smooth edges would take it several times as long. */
const SOFTWARE = /swiftshader|llvmpipe|softpipe|software|basic render/i;

/** Let the browser do something else: draw, scroll, take keys. */
const turn = (wait = 0) => new Promise((resolve) => setTimeout(resolve, wait));

/**
 * What draws: one viewer for all structures of the page, which go into it one after another. Where software draws,
 * another context with its shaders is a second's wait; and 3Dmol frees none.
 */
const drawing = {
  element: document.createElement("div"), viewer: null, wanted: null, busy: false, shown: [], spheres: [], drawn: 0, polyhedra: 0,
};
drawing.element.className = "drawing";
const nothing = () => null;
/** No view is closer than of this half width, in Å, and this share of it stays free at the edges. */
const CLOSEST = 1.8;
const EDGE = 0.06;
/** The cell is seen whole, too, if the camera goes no further away for that than by this factor. */
const FURTHER = 1.5;

/** Put what draws into a box of the page; what it drew elsewhere is not seen there. */
function place([{ createViewer }, renderer], box) {
  drawing.element.style.visibility = "hidden";
  box.append(drawing.element);
  // It takes its size from where it stands, and would draw at once what it has.
  drawing.viewer ??= createViewer(drawing.element, { backgroundAlpha: 0, antialias: !SOFTWARE.test(renderer) });
  if (drawing.viewer) drawing.viewer.show = nothing;
  drawing.viewer?.resize();
  return drawing.viewer;
}

/** Show a structure in a box of the page, for as long as it is there. Errors are told. */
export async function begin(box, wanted, tell) {
  library ??= load();
  try {
    const found = await library;
    if (!box.isConnected) return;
    if (!place(found, box)) tell("This browser draws no structures: it has no WebGL.");
    else show(wanted());
  } catch (problem) {
    tell(String(problem));
  }
}

/** Draw what is wanted now, if what draws is in its box; `seen` is called with each change of the view. */
export function show(wanted) {
  if (wanted.box.contains(drawing.element)) drawLast(wanted);
}

/** Turn what is drawn about an axis of the screen, by so many degrees. */
export const rotate = (degrees, axis) => drawing.viewer?.rotate(degrees, axis);
export const zoom = (factor) => drawing.viewer?.zoom(factor);

/** Return where places are seen in the box, in pixels; `depth` grows away from who looks, `scale` is pixels for one Å. */
export function projected(places) {
  const { viewer, element } = drawing;
  const [x, y, z, near, ...quaternion] = viewer.getView();
  const half = element.clientHeight / 2;
  return places.map((each) => {
    const [right, up, front] = turned([each[0] + x, each[1] + y, each[2] + z], quaternion.slice(0, 4));
    const depth = viewer.CAMERA_Z - near - front;
    const scale = half / (Math.tan((viewer.fov * Math.PI) / 360) * depth);
    return { x: element.clientWidth / 2 + right * scale, y: half - up * scale, depth, scale };
  });
}

/** Return the view as a quaternion (x, y, z, w). */
export const viewed = () => drawing.viewer.getView().slice(4, 8);

/** Return the drawn sphere at a point of the box, in pixels; undefined where there is none. */
export function sphereAt(x, y) {
  const places = projected(drawing.spheres.map(({ place }) => place));
  const hit = (number) => {
    const { x: across, y: down, scale } = places[number];
    return Math.hypot(across - x, down - y) <= scale * radiusOf(drawing.spheres[number].number) + 1;
  };
  const found = places.map((_, number) => number).filter(hit).sort((one, other) => places[one].depth - places[other].depth);
  return drawing.spheres[found[0]];
}

/** Draw what was wanted last, in steps between which the page answers; what came before it is left out. */
async function drawLast(wanted) {
  const { viewer, element } = drawing;
  drawing.wanted = wanted;
  if (drawing.busy || !viewer) return;
  drawing.busy = true;
  try {
    while (drawing.wanted) {
      const now = drawing.wanted;
      const { frame, first, cells, box } = now;
      drawing.wanted = null;
      await turn();
      if (!box.contains(element)) continue;
      viewer.show = nothing; // it draws by itself at each step
      const spheres = spheresOf(frame, first, cells);
      const marks = build(viewer, spheres, now);
      await turn();
      const key = [now.fitted, cells, frame.numbers].join();
      if (drawing.shown[0] !== box || drawing.shown[1] !== key) fit(viewer, spheres, frame.cell, box);
      drawing.shown = [box, key];
      drawing.spheres = spheres;
      delete viewer.show;
      viewer.setViewChangeCallback(now.seen);
      await render(viewer);
      if (!box.contains(element)) continue;
      element.style.visibility = "visible";
      drawing.drawn += 1;
      Object.assign(element.dataset, { arrows: now.arrows, spheres: spheres.length, drawn: drawing.drawn, ...marks });
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

/** Put the atoms of a frame, its cell and its marks into the viewer, which draws them later; return how many marks. */
function build(viewer, spheres, { frame, cells, arrows, vectors, polyhedra, held, box }) {
  const { numbers, cell } = frame;
  const style = getComputedStyle(box);
  viewer.removeAllModels();
  viewer.removeAllShapes();
  const around = polyhedra ? drawPolyhedra(viewer, spheres, frame) : [];
  const lines = [...spheres, ...around].map(({ number, place }) => `${SYMBOLS[number]} ${place.join(" ")}`);
  const text = [lines.length, "", ...lines].join("\n");
  const model = viewer.addModel(text, "xyz", { assignBonds: lines.length <= MOST_BONDED });
  if (isIonic(numbers)) cutBonds(model.selectedAtoms({}), (atom) => !isLigand(atom.elem));
  for (const number of new Set(numbers)) {
    const color = colourOf(number);
    const radius = radiusOf(number) * (polyhedra ? SMALLER : 1);
    model.setStyle({ elem: SYMBOLS[number] }, { sphere: { radius, color }, stick: { radius: 0.09, color } });
  }
  if (hasCell(cell)) {
    const color = style.getPropertyValue("--muted").trim();
    drawBox(viewer, cell, [1, 1, 1], color);
    if (cells.some((count) => count > 1)) drawBox(viewer, cell, cells, color);
  }
  if (arrows && vectors) drawArrows(viewer, frame.positions, vectors, ARROWS[arrows]);
  if (held?.size) drawHeld(viewer, spheres, held, cell, style.getPropertyValue("--text").trim());
  return { held: held?.size ?? 0, polyhedra: polyhedra ? drawing.polyhedra : 0 };
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
  const from = viewpointOf(cell);
  const atoms = spheres.map(({ number, place }) => ({ place: turned(place, from), radius: radiusOf(number) }));
  const corners = hasCell(cell) ? CORNERS.map((corner) => ({ place: turned(pointOf(cell, corner), from), radius: 0 })) : [];
  const [near, whole] = [atoms, [...atoms, ...corners]].map((balls) => viewOf(balls, viewer, box));
  const { centre, distance, size } = whole.distance < FURTHER * near.distance ? whole : near;
  const [a, b, c, w] = from;
  // The centre in the structure's own axes: turned back.
  const back = turned(centre, [-a, -b, -c, w]);
  viewer.setView([...back.map((value) => -value), viewer.CAMERA_Z - distance, ...from]);
  viewer.setSlab(Math.min(-4 * size, -50), Math.max(4 * size, 50));
}

/** Take away the bonds between two atoms that are both of a kind. */
function cutBonds(atoms, isOf) {
  for (const atom of atoms) {
    if (!isOf(atom)) continue;
    const kept = atom.bonds.map((_, bond) => bond).filter((bond) => !isOf(atoms[atom.bonds[bond]]));
    atom.bondOrder = kept.map((bond) => atom.bondOrder[bond]);
    atom.bonds = kept.map((bond) => atom.bonds[bond]);
  }
}

const point = ([x, y, z]) => ({ x, y, z });

/** Draw the edges of so many cells together. */
function drawBox(viewer, cell, counts, color) {
  const corner = (...shares) => point(pointOf(cell, shares.map((share, axis) => share * counts[axis])));
  for (const [i, j] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
    viewer.addLine({ start: corner(0, i, j), end: corner(1, i, j), color });
    viewer.addLine({ start: corner(i, 0, j), end: corner(i, 1, j), color });
    viewer.addLine({ start: corner(i, j, 0), end: corner(i, j, 1), color });
  }
}

/** Draw an arrow for each atom: the longest is `LONGEST`. Moments along one axis stand upright. */
function drawArrows(viewer, positions, values, color) {
  const scalar = values.length * 3 === positions.length;
  const vector = (atom) => (scalar ? [0, 0, values[atom]] : values.slice(3 * atom, 3 * atom + 3));
  const count = positions.length / 3;
  // One shape: as many as there are atoms are drawn one by one, which takes seconds.
  const shape = viewer.addShape({ color });
  let longest = LEAST;
  for (let atom = 0; atom < count; atom += 1) longest = Math.max(longest, Math.hypot(...vector(atom)));
  for (let atom = 0; atom < count; atom += 1) {
    const start = at(positions, atom);
    const by = vector(atom).map((value) => (LONGEST * value) / longest);
    if (Math.hypot(...by) * longest < LONGEST * LEAST) continue;
    shape.addArrow({ start: point(start), end: point(start.map((value, axis) => value + by[axis])), radius: 0.08 });
  }
}

/** Draw a cross through each atom that is held, with a bar along each direction in which it is. */
function drawHeld(viewer, spheres, held, cell, color) {
  const shape = viewer.addShape({ color });
  for (const { atom, number, place } of spheres) {
    const { mask, scaled } = held.get(atom) ?? { mask: [] };
    mask.forEach((is, axis) => {
      if (!is) return;
      const along = scaled ? at(cell, axis) : [0, 1, 2].map((each) => Number(each === axis));
      const reach = (radiusOf(number) + 0.22) / Math.hypot(...along);
      const [start, end] = [-reach, reach].map((factor) => point(place.map((value, each) => value + factor * along[each])));
      shape.addCylinder({ start, end, radius: 0.05, fromCap: 1, toCap: 1 });
    });
  }
}

/** Draw the polyhedra around spheres at their centres; return the corners that are not among the spheres. */
function drawPolyhedra(viewer, spheres, frame) {
  const { numbers, positions, cell } = frame;
  const known = new Set(spheres.map(({ atom, shift }) => `${atom} ${shift}`));
  const missing = [];
  const around = new Map(polyhedraOf(frame).map((each) => [each.atom, each.corners]));
  const shapes = new Map();
  drawing.polyhedra = 0;
  for (const { atom, number, shift } of spheres) {
    if (!around.has(atom)) continue;
    const corners = around.get(atom).map((one) => ({ atom: one.atom, shift: one.shift.map((step, axis) => step + shift[axis]) }));
    const places = corners.map((one) => placeOf(positions, cell, one.atom, one.shift));
    corners.forEach((one, corner) => {
      const key = `${one.atom} ${one.shift}`;
      if (known.has(key)) return;
      known.add(key);
      missing.push({ number: numbers[one.atom], place: places[corner] });
    });
    if (!shapes.has(number)) shapes.set(number, viewer.addShape({ color: colourOf(number), alpha: OPACITY, side: 2 }));
    addFaces(shapes.get(number), facesOf(places));
    drawing.polyhedra += 1;
  }
  return missing;
}

/** Add faces to a shape, as triangles from the first corner of each. */
function addFaces(shape, faces) {
  const [vertexArr, normalArr, faceArr] = [[], [], []];
  for (const { normal, corners } of faces) {
    const first = vertexArr.length;
    for (const corner of corners) {
      vertexArr.push(point(corner));
      normalArr.push(point(normal));
    }
    for (let next = 1; next < corners.length - 1; next += 1) faceArr.push(first, first + next, first + next + 1);
  }
  if (faceArr.length) shape.addCustom({ vertexArr, normalArr, faceArr });
}
