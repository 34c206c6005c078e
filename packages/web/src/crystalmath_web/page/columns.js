// Columns of a study: their titles and units, how values are written and compared, and shares of elements.

import { formula, shortRecipe } from "./lib.js";
import { written } from "./table.js";

/** What tells nothing of a calculation. */
export const ASIDE = ["job_id", "created_at", "started_at", "finished_at", "work_dir", "dir_name", "error", "reason", "key", "attempt", "priority", "flow", "step", "superseded_by"];
/** Units by the end of a column's name, and digits behind the point. */
export const UNITS = { ev: ["eV", 5], ev_ang: ["eV/Å", 4], ang3: ["Å³", 3], s: ["s", 2] };
const PHASES = { formation_energy: "formation (eV/atom)", e_above_hull: "above the hull (eV/atom)" };
const SHARE = "share of ";
export const unitOf = (name) => /^(.*?)_(ev_ang|ev|ang3|s)$/.exec(name) ?? [null, name, ""];
const isShare = (name) => name?.startsWith(SHARE);

/** Write the name of a column with its unit: energy per atom (eV). */
export function titleOf(name) {
  if (PHASES[name]) return PHASES[name];
  const [, plain, unit] = unitOf(name);
  return plain.replace(/^(labels_|params\.)/, "").replaceAll("_", " ") + (unit && ` (${UNITS[unit][0]})`);
}

export const isNumber = (value) => typeof value === "number";
export const compare = (one, other) =>
  isNumber(one) && isNumber(other) ? one - other : written(one).localeCompare(written(other), undefined, { numeric: true });

const partsOf = (text = "") => [...text.matchAll(/([A-Z][a-z]*)(\d*)/g)].map(([, symbol, count]) => [symbol, Number(count || 1)]);

/** Write a formula with the smallest whole numbers: Cu4 and Cu are one material. */
export function reduced(text) {
  const parts = partsOf(text);
  const divisor = (a, b) => (b ? divisor(b, a % b) : a);
  const common = parts.reduce((found, [, count]) => divisor(found, count), 0);
  return parts.map(([symbol, count]) => symbol + (count > common ? count / common : "")).join("");
}

const compositions = new Map();

/** Return the share of each element of a formula, of 1. */
export function sharesOf(text) {
  if (!compositions.has(text)) {
    const parts = partsOf(text ?? "");
    const all = parts.reduce((sum, [, count]) => sum + count, 0);
    const shares = {};
    for (const [symbol, count] of parts) shares[symbol] = (shares[symbol] ?? 0) + count / all;
    compositions.set(text, shares);
  }
  return compositions.get(text);
}

/** Return the shares of elements that differ among rows, as columns; of many elements there are too many to choose. */
export function shareColumns(rows) {
  const elements = new Set();
  for (const text of new Set(rows.map((row) => row.formula))) for (const symbol in sharesOf(text)) elements.add(symbol);
  return elements.size > 1 && elements.size < 25 ? [...elements].sort().map((symbol) => SHARE + symbol) : [];
}

/** Return a value of a row, or the share of an element. */
export function valueOf(row, name) {
  if (!isShare(name)) return row[name];
  return row.formula === undefined ? undefined : (sharesOf(row.formula)[name.slice(SHARE.length)] ?? 0);
}

/** Write a value of a column. */
export function shown(name, value) {
  if (name === "formula") return formula(value);
  if (name === "recipe") return shortRecipe(value);
  const unit = unitOf(name)[2];
  if (PHASES[name] && isNumber(value)) return value.toFixed(UNITS.ev[1]);
  if (unit && isNumber(value)) return value.toFixed(UNITS[unit][1]);
  return isNumber(value) && !Number.isInteger(value) ? Number(value.toPrecision(8)).toString() : written(value);
}

/** Return those columns in which rows differ; of a result not what stands in the record, too. */
export function differing(rows, columns) {
  const told = new Set();
  const hasResults = columns.some((name) => name.startsWith("results."));
  return columns.filter((name) => {
    const first = written(rows[0]?.[name]);
    if (ASIDE.includes(name) || rows.every((row) => row[name] === rows[0][name] || written(row[name]) === first)) return false;
    const key = hasResults && rows.map((row) => written(row[name])).join("\n");
    if (name.startsWith("results.") && told.has(key)) return false;
    return told.add(key);
  });
}
