// The frames of a job: those that its program has written so far, else the structure on record.

import { heldBy } from "./geometry.js";
import { fromBase64 } from "./lib.js";
import { call } from "./server.js";
import { structureIn } from "./structure.js";

/** Read an array as the server sends it: in base64, one number after another. */
function numbers(told) {
  if (!told) return null;
  const { buffer } = fromBase64(told.data);
  return new (told.dtype === "float64" ? Float64Array : Float32Array)(buffer);
}

/** So many atoms are asked for at once, in all frames together; at first so many frames. */
const MOST_ATOMS = 40_000;
const FIRST = 20;

const known = (value) => (value === undefined || Number.isNaN(value) ? null : value);
const part = (values, at, size) => {
  const found = values?.subarray(at * size, (at + 1) * size);
  return found?.length && !found.every(Number.isNaN) ? found : null;
};

/** Frames that were read, in the parts in which they came. Nothing of them is copied. */
class Frames {
  constructor(source, parts, held) {
    this.source = source;
    this.parts = parts;
    this.held = held;
    const last = parts.at(-1);
    this.count = last ? last.first + last.count : 0;
  }

  /** Return these frames and those that an answer of jobs.trajectory brings. */
  with(told) {
    const values = Object.fromEntries(
      ["positions", "cells", "energies", "forces", "magmoms"].map((name) => [name, numbers(told[name])]),
    );
    const count = values.positions ? values.positions.length / (told.numbers.length * 3) : 0;
    return count ? new Frames(this.source, [...this.parts, { first: this.count, count, told, ...values }], this.held) : this;
  }

  frame(index) {
    const found = this.parts.findLast((each) => each.first <= index);
    const at = index - found.first;
    const atoms = found.told.numbers.length;
    return {
      numbers: found.told.numbers, pbc: found.told.pbc,
      positions: part(found.positions, at, 3 * atoms), cell: part(found.cells, at, 9),
      energy: known(found.energies?.[at]), forces: part(found.forces, at, 3 * atoms), moments: part(found.magmoms, at, atoms),
    };
  }
}

const single = (frame) => (frame ? { count: 1, frame: () => frame, held: heldBy(frame.constraints) } : null);

/** Return which atoms are held, from the structure that a job was given: frames do not have it. */
const heldOf = (job) =>
  call("jobs.specification", { job_id: job.job_id }).then((told) => heldBy(structureIn(told.structure)?.constraints), () => null);

/** Return the structure of a job without frames: its result's, or what it was given. */
export async function structureOf(job) {
  if (job.status === "completed") {
    const told = await call("jobs.result", { job_id: job.job_id, field: "atoms" }).catch(() => null);
    const found = structureIn(told?.result);
    if (found) return single(found);
  }
  const told = await call("jobs.specification", { job_id: job.job_id });
  return single(structureIn(told.structure));
}

/**
 * Return the frames of a job, those that were read `before` with them; null where there is no structure
 * yet. `show` is called with the first of many.
 */
export async function trajectoryOf(job, before, show) {
  let frames = before instanceof Frames ? before : null;
  for (;;) {
    const start = frames?.count ?? 0;
    const atoms = frames?.parts[0]?.told.numbers.length ?? MOST_ATOMS / FIRST;
    const stop = start + Math.max(1, Math.floor(MOST_ATOMS / atoms));
    const told = await call("jobs.trajectory", { job_id: job.job_id, start, stop }).catch(() => null);
    if (!told) break;
    const source = `${told.attempt} ${told.file}`;
    // Another attempt, or calculation, has begun.
    if (frames && frames.source !== source) return trajectoryOf(job, null, show);
    frames = (frames ?? new Frames(source, [], await heldOf(job))).with(told);
    if (frames.count <= start || frames.count >= told.frames) break;
    // The first ones at once; the others all together, since each showing draws.
    if (!start) show(frames);
  }
  return frames?.count ? frames : structureOf(job);
}

/** Energies of a step and of its frame differ by rounding only, in eV. */
const SAME = 1e-3;

/**
 * Return the number of the ionic step that the first frame belongs to; null where frames and steps do not go together.
 *
 * Frames are those of one calculation, mostly the last one, and a running job may have written one before the other.
 */
export function shiftOf(trajectory, steps) {
  const fit = (shift) => {
    let known = 0;
    for (let frame = 0; frame < trajectory.count; frame += 1) {
      const [energy, step] = [trajectory.frame(frame).energy, steps[frame + shift]?.energy_ev];
      if (energy === null || energy === undefined || step === null || step === undefined) continue;
      if (Math.abs(energy - step) > SAME) return false;
      known += 1;
    }
    return known > 0;
  };
  const last = steps.length - trajectory.count;
  return [last, last - 1, last + 1, 0].find((shift) => shift > -2 && fit(shift)) ?? null;
}
