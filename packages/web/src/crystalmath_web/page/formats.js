// How values are written: numbers, times, sizes, names. All views write them by these rules.

import { signal } from "./vendor/preact-signals.js";

export const shortRecipe = (name) => (name ?? "").replace(/^quacc\.recipes\./, "");
export const shortId = (id) => (id ?? "").slice(0, 8);

// --- numbers -----------------------------------------------------------------------------------

/** Write a number with so many digits behind the point; nothing of what is none. */
export const fixed = (value, digits = 3) => (value === null || value === undefined ? "" : value.toFixed(digits));

/** Digits of an energy in eV behind the point. */
export const ENERGY_DIGITS = 4;
/** Digits of a force in eV/Å behind the point, as `force_text` has them in core. */
export const FORCE_DIGITS = 4;
const withUnit = (text, unit) => (text && unit ? `${text} ${unit}` : text);
/** Write an energy in eV; without its unit in a column, whose title has it. */
export const energy = (ev, unit = "") => withUnit(fixed(ev, ENERGY_DIGITS), unit);
/** Write a force in eV/Å. */
export const force = (evAng, unit = "") => withUnit(fixed(evAng, FORCE_DIGITS), unit);

/** Number ionic steps as their program does, on from there in a later calculation, as `step_numbers` does in core. */
export function stepNumbers(steps) {
  let shift = 0;
  const numbers = [];
  steps.forEach(({ calculation, ionic_step: number }, index) => {
    if (index && calculation !== steps[index - 1].calculation) shift = numbers.at(-1) + 1 - number;
    numbers.push(number + shift);
  });
  return numbers;
}

/** Write a size in bytes. */
export function bytes(size) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (size >= 1000 && step < units.length - 1) {
    size /= 1000;
    step += 1;
  }
  return `${step ? size.toFixed(1) : size} ${units[step]}`;
}

// --- times -------------------------------------------------------------------------------------

/** Write a time in seconds: 45 s, 3 min, 2 h 05 min, 4 d. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "";
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 100) return `${minutes} min`;
  if (minutes < 2880) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.round(minutes / 1440)} d`;
}

/** The present time in seconds, which goes on every 5 s: what shows ages is drawn anew then. */
export const now = signal(Date.now() / 1000);
setInterval(() => (now.value = Date.now() / 1000), 5000);

/** Write how long ago a moment was, in whole units. */
export const ago = (at) => {
  if (!at) return "";
  const seconds = Math.max(0, now.value - at);
  return `${seconds < 10 ? `${Math.round(seconds)} s` : duration(seconds).replace(/ h .*/, " h")} ago`;
};
export const moment = (at) => (at ? new Date(at * 1000).toLocaleString("sv") : ""); // as ISO 8601 has it

/** Write a moment as a clock shows it: 14:30, or the day: Tue 1. */
export const clock = (at, isDay = false) => {
  const date = new Date(at * 1000);
  return isDay ? `${date.toLocaleDateString("en", { weekday: "short" })} ${date.getDate()}` : date.toLocaleTimeString("sv").slice(0, 5);
};

/** Return how long a job has run, or ran. */
export const runtime = (job) =>
  job.started_at ? (job.finished_at ?? now.value) - job.started_at : null;

// --- texts of jobs -----------------------------------------------------------------------------

/** Return the name of a job, or the beginning of its id. */
export const nameOf = (job) => job.name ?? shortId(job.job_id);

/** Count jobs: 1 job, 1,234 jobs. */
export const jobCount = (count) => (count === 1 ? "1 job" : `${count.toLocaleString()} jobs`);

/** Return the symbols of a formula, each with its number of atoms. */
export const partsOf = (text) =>
  [...(text ?? "").matchAll(/([A-Z][a-z]*)(\d*)/g)].map(([, symbol, count]) => [symbol, Number(count || 1)]);

/** Tell where a job runs: an engine, and which of its clusters where that is named otherwise. */
export const whereOf = (job) => [...new Set([job.engine, job.cluster])].join(", ");

/** Tell how far a flow has come, of its steps by state: 17/30, 2 failed. */
export function toldSteps(steps) {
  const all = Object.values(steps).reduce((sum, count) => sum + count, 0);
  const others = ["failed", "cancelled"].filter((state) => steps[state]).map((state) => `${steps[state]} ${state}`);
  return [`${steps.completed ?? 0}/${all}`, ...others].join(", ");
}

/** Return what is wrong with a job; that it was cancelled is its state, and no error. */
export const errorOf = (job) => (job.status === "cancelled" && job.error === "cancelled" ? null : job.error);

/**
 * Write the code of each character that is not seen or turns the direction of text, as `printable` of the command line
 * does: all but line ends and tabs of what Python calls unprintable.
 */
export const visible = (text) =>
  text.replace(/[^\n\t -~]/gu, (letter) => {
    if (!/[\p{C}\p{Z}]/u.test(letter)) return letter;
    const code = letter.codePointAt(0);
    const [mark, digits] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
    return `\\${mark}${code.toString(16).padStart(digits, "0")}`;
  });
