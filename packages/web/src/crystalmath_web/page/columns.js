// Columns of a study: their titles and units, how values are written and compared, and shares of elements.

import { ENERGY_DIGITS, FORCE_DIGITS, change, formula, html, partsOf, shortRecipe } from "./lib.js";
import { columnsOf, written } from "./table.js";

/** What tells nothing of a calculation. */
export const ASIDE = ["job_id", "created_at", "started_at", "finished_at", "work_dir", "dir_name", "error", "reason", "key", "attempt", "priority", "flow", "step", "superseded_by"];
/** Units by the end of a column's name, and digits behind the point. */
export const UNITS = { ev: ["eV", ENERGY_DIGITS], ev_ang: ["eV/Å", FORCE_DIGITS], ang3: ["Å³", 3], s: ["s", 2] };
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
/** One for all: `localeCompare` makes one for each comparison. */
const { compare: compareTexts } = new Intl.Collator(undefined, { numeric: true });
export const compare = (one, other) => (isNumber(one) && isNumber(other) ? one - other : compareTexts(written(one), written(other)));

/** A number as people write it: 12.50, but not 007. */
const NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?$/i;

/** Return rows in which a label is a number if it is written as one in all of them: the server leaves 12.50 as text. */
export function withNumbers(rows) {
  const labels = columnsOf(rows).filter((name) => name.startsWith("labels_"));
  const isRead = (name) => rows.every(({ [name]: value }) => value === undefined || isNumber(value) || NUMBER.test(value));
  const isText = (name) => rows.some((row) => typeof row[name] === "string");
  const read = labels.filter((name) => isText(name) && isRead(name));
  const numbers = (row) => read.filter((name) => row[name] !== undefined).map((name) => [name, Number(row[name])]);
  return read.length ? rows.map((row) => ({ ...row, ...Object.fromEntries(numbers(row)) })) : rows;
}

/** Choose a column, which the address keeps. */
export function Choice({ name, label, value, options, none = null }) {
  return html`<label>${label} <select value=${value} onChange=${(event) => change({ [name]: event.target.value })}>
    ${none !== null && html`<option value="">${none}</option>`}
    ${options.map((one) => html`<option value=${one}>${titleOf(one)}</option>`)}
  </select></label>`;
}

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
    const parts = partsOf(text);
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

/** Return the share that has the most values, where some rows are of several elements. */
export function widestShare(rows) {
  const compositions = [...new Set(rows.map((row) => row.formula))].filter(Boolean).map(sharesOf);
  if (!compositions.some((shares) => Object.keys(shares).length > 1)) return undefined;
  const valuesOf = (name) => new Set(compositions.map((shares) => shares[name.slice(SHARE.length)] ?? 0)).size;
  return shareColumns(rows).reduce((one, other) => (one && valuesOf(one) >= valuesOf(other) ? one : other), undefined);
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
  const isSame = (one, other) => one === other || written(one) === written(other);
  const found = [];
  for (const name of columns) {
    if (ASIDE.includes(name) || rows.every((row) => isSame(row[name], rows[0][name]))) continue;
    const isAgain = (other) => rows.every((row) => isSame(row[name], row[other]));
    if (!name.startsWith("results.") || !found.some(isAgain)) found.push(name);
  }
  return found;
}
