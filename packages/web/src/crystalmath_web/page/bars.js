// A histogram, drawn as elements of the page: each bar is a button.

import { html } from "./lib.js";

/** Write the ends of a bar with as many digits as tell them apart. */
function writer(bars) {
  const apart = bars[0].high - bars[0].low || 1;
  const digits = Math.max(0, Math.min(8, 1 - Math.floor(Math.log10(apart))));
  return (value) => value.toFixed(digits);
}

/** Draw bars, each from its `low` to its `high` end; a click calls `onBar` with these. */
export function Bars({ bars, title, onBar, label }) {
  const most = Math.max(...bars.map(({ count }) => count));
  const write = writer(bars);
  return html`<div class="histogram" role="group" aria-label=${label}>
    <div class="columns-of">
      ${bars.map(
        ({ low, high, count }) => html`<button title=${`${write(low)} to ${write(high)}: ${count}`} aria-label=${`${count} jobs from ${write(low)} to ${write(high)}`}
          disabled=${!count} onClick=${() => onBar([low, high])}><span>${count || ""}</span><i style=${{ height: `${(100 * count) / most}%` }}></i></button>`,
      )}
    </div>
    <p class="ends"><span>${write(bars[0].low)}</span><span>${title}</span><span>${write(bars.at(-1).high)}</span></p>
  </div>`;
}
