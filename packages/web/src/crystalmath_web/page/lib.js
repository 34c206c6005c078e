// What all views share: the libraries, the address, and how values are written.

import { Fragment, h, render } from "./vendor/preact.js";
import { useEffect, useMemo, useRef, useState } from "./vendor/preact-hooks.js";
import { signal } from "./vendor/preact-signals.js";
import htm from "./vendor/htm.js";

export const html = htm.bind(h);
export { Fragment, render, signal, useEffect, useMemo, useRef, useState };

export const STATES = ["pending", "running", "completed", "failed", "cancelled"];
export const hasEnded = (state) => STATES.indexOf(state) > 1;

// --- the address -------------------------------------------------------------------------------

/** What stands in the address: the view, and all that it shows. */
export const address = signal(new URLSearchParams(location.search));
addEventListener("popstate", () => (address.value = new URLSearchParams(location.search)));

/** Write an address with these parameters; those that are empty are left out. */
export function link(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== null && value !== "");
  return "?" + new URLSearchParams(given);
}

/** Go to an address, as a new step of the browser's history or in place of the present one. */
export function go(target, { replace = false } = {}) {
  history[replace ? "replaceState" : "pushState"](null, "", target);
  address.value = new URLSearchParams(location.search);
}

/** Change some parameters of the present address. */
export function change(parameters, options) {
  go(link({ ...Object.fromEntries(address.value), ...parameters }), options);
}

// Links of the page lead to another view without a reload.
addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[href^='?']");
  if (!anchor || event.button || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go(anchor.getAttribute("href"));
});

// --- how values are written --------------------------------------------------------------------

export const shortRecipe = (name) => (name ?? "").replace(/^quacc\.recipes\./, "");
export const shortId = (id) => (id ?? "").slice(0, 8);

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

export const ago = (at) => (at ? `${duration(Math.max(0, now.value - at)).replace(/ h .*/, " h")} ago` : "");
export const moment = (at) => (at ? new Date(at * 1000).toLocaleString("sv") : ""); // as ISO 8601 has it

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

/** Read bytes in base64; browsers of before 2025 do it letter by letter. */
export const fromBase64 = (text) =>
  Uint8Array.fromBase64?.(text) ?? Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** Write pieces of a file to the reader's own machine. */
export function save(pieces, name) {
  const href = URL.createObjectURL(new Blob(pieces));
  Object.assign(document.createElement("a"), { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

/** Write a formula with its numbers below the line. */
export const formula = (text) =>
  (text ?? "").split(/(\d+)/).map((part) => (/^\d/.test(part) ? html`<sub>${part}</sub>` : part));

export const State = ({ state }) => html`<span class=${`state ${state}`}>${state}</span>`;

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

/** Return how long a job has run, or ran. */
export const runtime = (job) =>
  job.started_at ? (job.finished_at ?? now.value) - job.started_at : null;

/** Copy a text, and say so for a moment; `what` it is, for those who hear the page. */
export function Copy({ text, label = "copy", what = "" }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<button type="button" class="quiet copy" aria-label=${what && `${done ? "Copied" : "Copy"} ${what}`} onClick=${copy}>${done ? "copied" : label}</button>`;
}

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

/** Show an error, or nothing. */
export const Trouble = ({ error }) =>
  error ? html`<p class="trouble" role="alert">${visible(error.message ?? String(error))}</p>` : null;
