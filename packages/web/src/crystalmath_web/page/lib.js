// What all views share: the libraries, the address, and small parts. How values are written stands in formats.js.

import { visible } from "./formats.js";
import { Fragment, h, render } from "./vendor/preact.js";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/preact-hooks.js";
import { signal } from "./vendor/preact-signals.js";
import htm from "./vendor/htm.js";

export * from "./formats.js";

export const html = htm.bind(h);
export { Fragment, render, signal, useEffect, useLayoutEffect, useMemo, useRef, useState };

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

// A plain click on a link of the page leads to another view without a reload.
addEventListener("click", (event) => {
  const anchor = event.target.closest?.("a[href^='?']");
  // The browser has its own answers to these: another tab, a window, a download.
  if (!anchor || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(anchor.getAttribute("href"));
});

// --- small parts -------------------------------------------------------------------------------

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

/** Show an error, or nothing. */
export const Trouble = ({ error }) =>
  error ? html`<p class="trouble" role="alert">${visible(error.message ?? String(error))}</p>` : null;
