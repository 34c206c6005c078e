// How long jobs like a running one took, and how far it has come.

import { duration, energy, force, runtime, shortRecipe } from "./lib.js";
import { call } from "./server.js";

/** Of so many completed jobs of a recipe the times count, of the newest. */
const NEWEST = 200;
/** So many of the same formula are enough to count alone. */
const ENOUGH = 3;
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

/** Return the median time of jobs like this one in seconds, of how many, and what they share; `null` if there is none. */
export async function usual(job) {
  const all = await completed(job.recipe);
  const same = all.filter((one) => one.formula === job.formula);
  const chosen = same.length >= ENOUGH ? same : all;
  if (!chosen.length) return null;
  const times = chosen.map((one) => one.finished_at - one.started_at).sort((one, other) => one - other);
  return {
    seconds: times[Math.floor(times.length / 2)], count: times.length,
    of: `${shortRecipe(job.recipe)}${chosen === same ? ` of ${job.formula}` : ""}`,
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
