// Short messages about what was just done: each with the way to what was made, or what undoes it.

import { html, signal, useEffect, useState } from "./lib.js";

/** How long a message stays, in milliseconds, unless the pointer or the focus is on it. */
const STAYS = 8000;
const shown = signal([]);
let number = 0;

/** Show a message; `href` leads to what was made, `undo` takes back what was done. */
export function toast(text, { href, label = "Show", undo } = {}) {
  number += 1;
  shown.value = [...shown.value.slice(-2), { number, text, href, label, undo }];
}

const close = (one) => (shown.value = shown.value.filter((each) => each !== one));

function Toast({ one }) {
  const [held, setHeld] = useState(false);
  useEffect(() => {
    if (held) return undefined;
    const ending = setTimeout(() => close(one), STAYS);
    return () => clearTimeout(ending);
  }, [held]);
  const undo = () => {
    close(one);
    one.undo();
  };
  return html`<li onMouseEnter=${() => setHeld(true)} onMouseLeave=${() => setHeld(false)}
    onFocusIn=${() => setHeld(true)} onFocusOut=${() => setHeld(false)}>
    <span>${one.text}</span>
    ${one.href && html`<a href=${one.href} onClick=${() => close(one)}>${one.label}</a>`}
    ${one.undo && html`<button onClick=${undo}>Undo</button>`}
    <button class="quiet" aria-label="Close the message" onClick=${() => close(one)}>×</button>
  </li>`;
}

export const Toasts = () => html`<div class="toasts" role="status" aria-live="polite">
  <ul>${shown.value.map((one) => html`<${Toast} key=${one.number} one=${one} />`)}</ul>
</div>`;
