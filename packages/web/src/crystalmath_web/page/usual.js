// How long jobs like a running one took, and how far it has come.

import { duration, energy, force, partsOf, runtime, shortRecipe } from "./lib.js";
import { call } from "./server.js";

/** Of so many completed jobs of a recipe the times count, of the newest. */
const NEWEST = 200;
/** From so few jobs nothing is said. */
const ENOUGH = 3;
/** By which factor numbers of atoms may differ. */
const SIMILAR = 1.5;
/** How long an answer is used, in milliseconds. */
const GOOD = 120_000;

const asked = new Map(); // recipe -> when, and the jobs as a promise

/** Return the newest completed jobs of a recipe. */
function completed(recipe) {
  const before = asked.get(recipe);
  if (before && performance.now() - before.at < GOOD) return before.jobs;
  const fields = ["recipe", "formula", "started_at", "finished_at"];
  const told = call("jobs.list", { recipe, state: "completed", sort: "-finished_at", limit: NEWEST, fields });
  const jobs = told.then(({ jobs: all }) => all.filter((job) => job.recipe === recipe && job.started_at), () => []);
  asked.set(recipe, { at: performance.now(), jobs });
  return jobs;
}

/** Return the number of atoms of a formula. */
const atomsOf = (text) => partsOf(text).reduce((sum, [, count]) => sum + count, 0);

/**
 * Return the median time of jobs like this one in seconds, of how many, and what they share; `null` if these are too few.
 *
 * Like it are those of its recipe and formula; if these are too few, those of its recipe with about as many atoms.
 */
export async function usual(job) {
  const all = await completed(job.recipe);
  const same = all.filter((one) => one.formula === job.formula);
  const natoms = atomsOf(job.formula);
  const near = all.filter((one) => Math.abs(Math.log(atomsOf(one.formula) / natoms)) < Math.log(SIMILAR));
  const chosen = same.length >= ENOUGH ? same : near;
  if (chosen.length < ENOUGH) return null;
  const times = chosen.map((one) => one.finished_at - one.started_at).sort((one, other) => one - other);
  const what = chosen === same ? job.formula : `about ${natoms.toLocaleString()} atoms`;
  return {
    seconds: times[Math.floor(times.length / 2)], count: times.length,
    of: [shortRecipe(job.recipe), job.formula && `of ${what}`].filter(Boolean).join(" "),
  };
}

/** Write how long such jobs took: "such jobs took 2 h 05 min (median of 37: emt.core.relax_job of Cu4)". */
export const toldUsual = ({ seconds, count, of }) => `such jobs took ${duration(seconds)} (median of ${count.toLocaleString()}: ${of})`;

/** Return the share of the usual time that a job has run, at most 1. */
export const shareOf = (job, { seconds }) => Math.min(1, runtime(job) / Math.max(seconds, 1e-9));

/** Write the step of a calculation: "step 12", "step 12.7" with that of the self-consistent cycle, "2: step 3" of a later calculation. */
export function toldStep(progress) {
  const { calculation, ionic_step: ionic, electronic_step: electronic } = progress;
  if (ionic === null && electronic === null) return progress.program;
  const parts = [ionic, electronic].filter((one) => one !== null && one !== undefined);
  return `${calculation > 1 ? `${calculation}: ` : ""}step ${parts.join(".")}`;
}

/** Write how far a calculation has come. */
export const toldProgress = (progress) =>
  [toldStep(progress), energy(progress.energy_ev, "eV"), force(progress.max_force_ev_ang, "eV/Å")].filter(Boolean).join(", ");
