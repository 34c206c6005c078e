// The frames of a job: those that its program has written so far, else the structure on record.

import { call } from "./server.js";
import { structureIn } from "./structure.js";

/** Read an array as the server sends it: in base64, one number after another. */
function numbers(told) {
  if (!told) return null;
  const bytes = Uint8Array.from(atob(told.data), (letter) => letter.charCodeAt(0));
  return new (told.dtype === "float64" ? Float64Array : Float32Array)(bytes.buffer);
}

const known = (value) => (value === undefined || Number.isNaN(value) ? null : value);
const part = (values, at, size) => {
  const found = values?.subarray(at * size, (at + 1) * size);
  return found?.length && !found.every(Number.isNaN) ? found : null;
};

/** Frames that were read, in the parts in which they came. Nothing of them is copied. */
class Frames {
  constructor(source) {
    this.source = source;
    this.parts = [];
    this.count = 0;
  }

  /** Take what an answer of jobs.trajectory brings. */
  take(told) {
    const values = Object.fromEntries(
      ["positions", "cells", "energies", "forces", "magmoms"].map((name) => [name, numbers(told[name])]),
    );
    const size = told.numbers.length * 3;
    const count = size && values.positions ? values.positions.length / size : 0;
    if (count) this.parts.push({ first: this.count, count, told, ...values });
    this.count += count;
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

const single = (frame) => frame && { count: 1, frame: () => frame };

/** Return the structure of a job without frames: its result's, or what it was given. */
async function structureOf(job) {
  if (job.status === "completed") {
    const told = await call("jobs.result", { job_id: job.job_id, field: "atoms" }).catch(() => null);
    const found = structureIn(told?.result);
    if (found) return single(found);
  }
  const told = await call("jobs.specification", { job_id: job.job_id });
  return single(structureIn(told.structure));
}

/**
 * Return the frames of a job, in the place of those that were read `before` and with them; null where
 * there is no structure yet.
 */
export async function trajectoryOf(job, before) {
  const going = before instanceof Frames ? before : null;
  let frames = null;
  let start = going?.count ?? 0;
  while (start !== null) {
    const told = await call("jobs.trajectory", { job_id: job.job_id, start }).catch(() => null);
    if (!told) break;
    const source = `${told.attempt} ${told.file}`;
    if (start && source !== (frames ?? going).source) return trajectoryOf(job, null);
    if (!frames) {
      frames = new Frames(source);
      if (start) Object.assign(frames, { parts: [...going.parts], count: going.count });
    }
    frames.take(told);
    start = told.next;
  }
  return frames?.count ? frames : structureOf(job);
}
