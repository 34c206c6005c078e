// A value of JSON as a tree, of which only what is open is drawn.

import { html, useState } from "./lib.js";

/** So many members of one object or list are drawn; the rest is told by its number. */
const MOST = 200;
const LONG = 400;

function brief(value) {
  if (Array.isArray(value)) return `[${value.length}]`;
  if (value && typeof value === "object") return value["@class"] ?? `{${Object.keys(value).length}}`;
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > LONG ? `${text.slice(0, LONG)} … (${text.length.toLocaleString()} characters)` : text;
}

/** Short lists of numbers are told at once: a vector, or a row of a cell. */
const isVector = (value) =>
  Array.isArray(value) && value.length && value.length <= 9 && value.every((each) => typeof each === "number");

export function Tree({ name, value, open = false }) {
  const [isOpen, setOpen] = useState(open);
  const nested = value && typeof value === "object" && Object.keys(value).length && !isVector(value);
  if (!nested) {
    return html`<li role="treeitem"><span class="key">${name}</span> <span class="value">${isVector(value) ? JSON.stringify(value) : brief(value)}</span></li>`;
  }
  const members = isOpen ? Object.entries(value).slice(0, MOST) : [];
  const rest = Object.keys(value).length - MOST;
  return html`<li role="treeitem" aria-expanded=${String(isOpen)}>
    <button class="quiet key" onClick=${() => setOpen(!isOpen)}>${isOpen ? "▾" : "▸"} ${name}</button>
    <span class="note">${brief(value)}</span>
    ${isOpen &&
    html`<ul role="group">
      ${members.map(([key, each]) => html`<${Tree} key=${key} name=${key} value=${each} />`)}
      ${rest > 0 && html`<li class="note">${rest.toLocaleString()} more</li>`}
    </ul>`}
  </li>`;
}
