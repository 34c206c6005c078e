// What is calculated of a structure: its cell, what is drawn of it, and how it differs from another frame.

import { COLOURS, RADII, SYMBOLS } from "./elements.js";

/** Of more atoms no images and no polyhedra are drawn. */
const MOST_IMAGED = 500;
/** No more atoms are drawn, with those of a supercell. */
const MOST_DRAWN = 8000;
/** So near to a face of the cell an atom lies on it, as a share of the cell. */
const ON_FACE = 1e-3;
/** The radius of a drawn sphere, as a share of the covalent one. */
const SPHERE = 0.5;
/** Atoms are neighbours up to this multiple of the sum of their covalent radii. */
const BOND = 1.2;
/** The corners of polyhedra, from the least to the most electronegative element; all others are before them. */
const LIGANDS = ["Te", "As", "P", "C", "Se", "S", "I", "Br", "N", "Cl", "O", "F"];
const DEGREES = 180 / Math.PI;

// The tables end before the heaviest elements, which look like the last one in them.
export const colourOf = (number) => COLOURS[number] ?? COLOURS.at(-1);
export const radiusOf = (number) => SPHERE * (RADII[number] ?? RADII.at(-1));
const covalent = (number) => RADII[number] ?? RADII.at(-1);

/** Write atoms as a formula as ASE does, and so the server: C and H first, the others by the alphabet. */
export function formulaOf(numbers) {
  const counts = new Map();
  for (const number of numbers) counts.set(SYMBOLS[number], (counts.get(SYMBOLS[number]) ?? 0) + 1);
  const first = ["C", "H"].filter((symbol) => counts.has(symbol));
  const rest = [...counts.keys()].filter((symbol) => !first.includes(symbol)).sort();
  return [...first, ...rest].map((symbol) => symbol + (counts.get(symbol) > 1 ? counts.get(symbol) : "")).join("");
}

// --- vectors and cells -------------------------------------------------------------------------

export const at = (values, atom) => [values[3 * atom], values[3 * atom + 1], values[3 * atom + 2]];
const plus = (one, other) => one.map((value, axis) => value + other[axis]);
const minus = (one, other) => one.map((value, axis) => value - other[axis]);
const times = (vector, factor) => vector.map((value) => value * factor);
const dot = (one, other) => one[0] * other[0] + one[1] * other[1] + one[2] * other[2];
const cross = ([a, b, c], [x, y, z]) => [b * z - c * y, c * x - a * z, a * y - b * x];
const length = (vector) => Math.hypot(...vector);
const unit = (vector) => times(vector, 1 / length(vector));

export const hasCell = (cell) => cell?.some((value) => value) ?? false;
export const CORNERS = [0, 1].flatMap((i) => [0, 1].flatMap((j) => [[i, j, 0], [i, j, 1]]));

/** Return where so many of each vector of the cell lead. */
export const pointOf = (cell, [a, b, c]) => [0, 1, 2].map((axis) => a * cell[axis] + b * cell[3 + axis] + c * cell[6 + axis]);

/** Return the volume of a cell, in Å³. */
const volumeOf = (cell) => Math.abs(dot(at(cell, 0), cross(at(cell, 1), at(cell, 2))));

/** Invert a matrix of three rows; null where it has no inverse. */
export function inverted(cell) {
  if (cell?.length !== 9 || volumeOf(cell) < 1e-9) return null;
  const [a, b, c] = [0, 1, 2].map((vector) => at(cell, vector));
  const determinant = dot(a, cross(b, c));
  const columns = [cross(b, c), cross(c, a), cross(a, b)];
  return [0, 1, 2].flatMap((row) => columns.map((column) => column[row] / determinant));
}

/** Return a place as shares of the vectors of a cell, by the inverse of that. */
const sharesOf = ([x, y, z], inverse) => [0, 1, 2].map((axis) => x * inverse[axis] + y * inverse[3 + axis] + z * inverse[6 + axis]);

/** Return the angle between two vectors, in degrees. */
const between = (one, other) => Math.acos(Math.max(-1, Math.min(1, dot(unit(one), unit(other))))) * DEGREES;

/** Return lengths (Å), angles (°) and volume (Å³) of a cell; null where it spans none. */
export function cellOf(cell) {
  if (!inverted(cell)) return null;
  const [a, b, c] = [0, 1, 2].map((vector) => at(cell, vector));
  return { lengths: [a, b, c].map(length), angles: [between(b, c), between(a, c), between(a, b)], volume: volumeOf(cell) };
}

// --- how it is seen ----------------------------------------------------------------------------

/** From where atoms without a cell are seen: a little from above and aside, as a quaternion (x, y, z, w). */
const ASIDE = [0.09, -0.12, 0, 0.9886];
/** How far a crystal is turned about c, and towards who looks at it, in radians. */
const [TURN, TILT] = [0.4, 0.2];

/** Return the view of a structure as a quaternion (x, y, z, w): c upwards, and a towards who looks at it. */
export function viewpointOf(cell) {
  if (!inverted(cell)) return ASIDE;
  const up = unit(at(cell, 2));
  const front = unit(minus(at(cell, 0), times(up, dot(up, at(cell, 0)))));
  const right = cross(up, front);
  const [sin, cos] = [Math.sin(TURN), Math.cos(TURN)];
  const aside = minus(times(right, cos), times(front, sin));
  const near = plus(times(front, cos), times(right, sin));
  const above = minus(times(up, Math.cos(TILT)), times(near, Math.sin(TILT)));
  return quaternion([aside, above, cross(aside, above)]);
}

/** Return the quaternion of a rotation, which is given by its rows. */
function quaternion([[a, b, c], [d, e, f], [g, h, i]]) {
  const parts = [1 + a - e - i, 1 - a + e - i, 1 - a - e + i, 1 + a + e + i];
  const largest = parts.indexOf(Math.max(...parts));
  const half = 2 * Math.sqrt(parts[largest]);
  const [x, y, z] = [h - f, c - g, d - b];
  const sums = [d + b, c + g, h + f];
  const rows = [
    [parts[0], sums[0], sums[1], x], [sums[0], parts[1], sums[2], y], [sums[1], sums[2], parts[2], z], [x, y, z, parts[3]],
  ];
  return rows[largest].map((value) => value / half);
}

/** Turn a vector by a quaternion. */
export function turned([x, y, z], [a, b, c, w]) {
  const [u, v, t] = [2 * (b * z - c * y), 2 * (c * x - a * z), 2 * (a * y - b * x)];
  return [x + w * u + b * t - c * v, y + w * v + c * u - a * t, z + w * t + a * v - b * u];
}

// --- what is drawn -----------------------------------------------------------------------------

/** Return how many atoms a supercell has at most, of so many in the cell; 1 where it cannot be larger. */
export const fits = (atoms, cells) => atoms * cells[0] * cells[1] * cells[2] <= MOST_DRAWN;

/**
 * Return the spheres of a frame: its atoms, those of a supercell, and images on the far faces of a periodic cell.
 *
 * The first frame decides for all: an atom that leaves its face in a relaxation keeps its images.
 */
export function spheresOf({ numbers, positions, cell }, first, cells = [1, 1, 1]) {
  const spheres = [];
  const inverse = numbers.length <= MOST_IMAGED && inverted(first.cell);
  const grid = gridOf([0, 0, 0], cells.map((count) => count - 1));
  for (let atom = 0; atom < numbers.length; atom += 1) {
    const shifts = inverse ? imagesOf(grid, sharesOf(at(first.positions, atom), inverse), first.pbc, cells) : grid;
    for (const shift of shifts) spheres.push({ atom, number: numbers[atom], shift, place: placeOf(positions, cell, atom, shift) });
  }
  return spheres;
}

/** Return the place of an atom, moved by so many cells. */
export const placeOf = (positions, cell, atom, shift) =>
  cell ? plus(at(positions, atom), pointOf(cell, shift)) : at(positions, atom);

function gridOf(low, high) {
  const range = (axis) => Array.from({ length: high[axis] - low[axis] + 1 }, (_, step) => low[axis] + step);
  return range(0).flatMap((i) => range(1).flatMap((j) => range(2).map((k) => [i, j, k])));
}

function imagesOf(grid, shares, pbc, cells) {
  let shifts = grid;
  for (let axis = 0; axis < 3; axis += 1) {
    const step = Math.abs(shares[axis]) < ON_FACE ? cells[axis] : Math.abs(shares[axis] - 1) < ON_FACE ? -1 : 0;
    if (!pbc?.[axis] || !step) continue;
    // Of a supercell those on its own face are mirrored, and no others.
    const own = shifts.filter((shift) => shift[axis] === 0);
    shifts = [...shifts, ...own.map((shift) => shift.with(axis, step))];
  }
  return shifts;
}

export const isLigand = (symbol) => LIGANDS.includes(symbol);
/** Return whether a structure has at least as many nonmetals as metals: metals are not bonded then. */
export function isIonic(numbers) {
  const metals = numbers.filter((number) => number > 2 && !isLigand(SYMBOLS[number])).length;
  return metals > 0 && 2 * metals <= numbers.length;
}

/**
 * Return the polyhedra around atoms that have four to eight neighbours of more electronegative elements: the atom at
 * the centre, and its neighbours with the cells in which they lie.
 */
export function polyhedraOf({ numbers, positions, cell, pbc }) {
  const count = numbers.length;
  if (count > MOST_IMAGED) return [];
  const rank = (number) => LIGANDS.indexOf(SYMBOLS[number]);
  const far = [0, 1, 2].map((axis) => (inverted(cell) && pbc?.[axis] ? 1 : 0));
  const grid = gridOf(far.map((step) => -step), far);
  const found = [];
  for (let atom = 0; atom < count; atom += 1) {
    const corners = [];
    for (let other = 0; other < count; other += 1) {
      if (rank(numbers[other]) <= rank(numbers[atom])) continue;
      const reach = BOND * (covalent(numbers[atom]) + covalent(numbers[other]));
      for (const shift of grid) {
        const apart = length(minus(placeOf(positions, cell, other, shift), at(positions, atom)));
        if (apart <= reach) corners.push({ atom: other, shift });
      }
    }
    if (corners.length > 3 && corners.length < 9) found.push({ atom, corners });
  }
  return found;
}

/** Return the faces of the convex hull of a few points, each as its corners in order. */
export function facesOf(points) {
  const faces = new Map();
  const centre = times(points.reduce(plus), 1 / points.length);
  for (let i = 0; i < points.length; i += 1) {
    for (let j = i + 1; j < points.length; j += 1) {
      for (let k = j + 1; k < points.length; k += 1) {
        const normal = cross(minus(points[j], points[i]), minus(points[k], points[i]));
        if (length(normal) < 1e-6) continue;
        const [towards] = [unit(normal)];
        const heights = points.map((point) => dot(towards, minus(point, points[i])));
        if (!heights.every((height) => height < 0.02) && !heights.every((height) => height > -0.02)) continue;
        const corners = points.map((_, number) => number).filter((number) => Math.abs(heights[number]) < 0.02);
        const out = dot(towards, minus(points[i], centre)) < 0 ? times(towards, -1) : towards;
        faces.set(corners.join(), ordered(corners, points, out));
      }
    }
  }
  return [...faces.values()];
}

function ordered(corners, points, normal) {
  const middle = times(corners.map((number) => points[number]).reduce(plus), 1 / corners.length);
  const along = unit(minus(points[corners[0]], middle));
  const aside = cross(normal, along);
  const angle = (number) => Math.atan2(dot(minus(points[number], middle), aside), dot(minus(points[number], middle), along));
  return { normal, corners: [...corners].sort((one, other) => angle(one) - angle(other)).map((number) => points[number]) };
}

// --- what differs ------------------------------------------------------------------------------

/**
 * Return how far each atom lies from its place in the first frame, one vector (Å) after another.
 *
 * An atom that has left the cell on one side, and come in on the other, has gone the short way; an atom that moved
 * only as the cell did has not moved.
 */
export function displacements(frame, first) {
  const [inverse, before] = [inverted(frame.cell), inverted(first.cell)];
  const moved = new Float64Array(frame.positions.length);
  for (let atom = 0; atom < frame.numbers.length; atom += 1) {
    let by = minus(at(frame.positions, atom), at(first.positions, atom));
    if (inverse && before) {
      const shares = minus(sharesOf(at(frame.positions, atom), inverse), sharesOf(at(first.positions, atom), before));
      by = pointOf(frame.cell, shares.map((share, axis) => share - (frame.pbc?.[axis] ? Math.round(share) : 0)));
    }
    moved.set(by, 3 * atom);
  }
  return moved;
}

/** Return the largest of vectors that stand one after another: its atom, and its length. */
export function largestOf(vectors) {
  let found = { atom: 0, size: 0 };
  for (let atom = 0; atom < vectors.length / 3; atom += 1) {
    const size = length(at(vectors, atom));
    if (size > found.size) found = { atom, size };
  }
  return found;
}

/** Measure two places (a distance, Å) or three (the angle at the second one, °); null of fewer. */
export function measured(places) {
  if (places.length === 2) return length(minus(places[0], places[1]));
  if (places.length === 3) return between(minus(places[0], places[1]), minus(places[2], places[1]));
  return null;
}

// --- what is held ------------------------------------------------------------------------------

/**
 * Return the directions in which atoms are held, by their numbers, from ASE's constraints.
 *
 * Directions are those of the axes x, y and z, or of the cell's vectors where `scaled`.
 */
export function heldBy(constraints = []) {
  const held = new Map();
  for (const { name, kwargs = {} } of constraints) {
    const atoms = [kwargs.indices ?? kwargs.a ?? []].flat(2);
    if (!["FixAtoms", "FixCartesian", "FixScaled"].includes(name)) continue;
    const mask = name === "FixAtoms" ? [true, true, true] : (kwargs.mask ?? [true, true, true]);
    for (const atom of atoms) {
      const before = held.get(atom)?.mask ?? [false, false, false];
      held.set(atom, { mask: before.map((is, axis) => is || Boolean(mask[axis])), scaled: name === "FixScaled" });
    }
  }
  return held;
}
