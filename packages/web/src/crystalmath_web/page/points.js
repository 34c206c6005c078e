// Points in a plane, by the ten thousand: uPlot draws the axes, and a canvas the points.

import uPlot from "./vendor/uPlot.js";
import { written } from "./plot.js";
import { html, useEffect, useRef, useState } from "./lib.js";

/** Of more points each is a square, which is drawn faster than a disc. */
const MANY = 3000;
/** The pointer is on a point that lies no further from it, in pixels; and has clicked if it moved no further. */
const [NEAR, STILL] = [18, 4];
/** Colours of a scale from low to high, which are seen on light and dark ground. */
const SCALE = ["#2f5fb3", "#1f93a6", "#3aa35b", "#c7a11c", "#d9661f", "#b3261e"];
/** A scale has so many steps; values of text have the colours of curves, and those beyond these are grey. */
const SHADES = 24;
const SERIES = 7;
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];

const part = (text, at) => parseInt(text.slice(at, at + 2), 16);

/** Return the colour of a share of the scale, of 0 to 1. */
function shade(share) {
  const place = Math.max(0, Math.min(1, share)) * (SCALE.length - 1);
  const low = Math.min(SCALE.length - 2, Math.floor(place));
  const mixed = [1, 3, 5].map((at) => Math.round(part(SCALE[low], at) + (place - low) * (part(SCALE[low + 1], at) - part(SCALE[low], at))));
  return `rgb(${mixed.join(" ")})`;
}

/** Return what colours values: the number of the colour of each, the colours, and a legend. */
export function colouring(values) {
  const known = values.filter((value) => value !== undefined && value !== null);
  if (!known.length) return { of: () => 0, colours: ["var(--series-0)"], legend: null };
  if (known.every((value) => typeof value === "number")) {
    const [low, high] = rangeOf(known);
    const of = (value) => (value === undefined ? SHADES : Math.min(SHADES - 1, Math.floor(((value - low) / (high - low || 1)) * SHADES)));
    const colours = Array.from({ length: SHADES }, (_, step) => shade((step + 0.5) / SHADES));
    return { of, colours: [...colours, "var(--series-7)"], legend: { low, high } };
  }
  const counts = new Map();
  for (const value of known) counts.set(String(value), (counts.get(String(value)) ?? 0) + 1);
  const names = [...counts.keys()].sort((one, other) => counts.get(other) - counts.get(one)).slice(0, SERIES);
  const numbers = new Map(names.map((name, number) => [name, number]));
  const colours = Array.from({ length: SERIES + 1 }, (_, number) => `var(--series-${number})`);
  return { of: (value) => numbers.get(String(value)) ?? SERIES, colours, legend: { names, others: counts.size - names.length } };
}

/** Return the least and the largest of numbers, however many there are. */
export function rangeOf(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/** Return the colours of a chart, for its canvas, where the page's own names are not known. */
function resolved(colours, style) {
  return colours.map((colour) => (colour.startsWith("var(") ? style.getPropertyValue(colour.slice(4, -1)).trim() : colour));
}

/**
 * Draw points, each with `x`, `y`, the number of its `colour`, and an id; and lines through places. `tip` writes what
 * is shown of the point under the pointer; a click on it, or arrows, call `onPick`. With `xNames`, x counts them.
 * A `triangle` has no axes, and its corners have names.
 */
export function Points({ points, colours, lines = [], xTitle, yTitle, xNames = null, triangle = null, picked, onPick, tip, label }) {
  const box = useRef();
  const kept = useRef({});
  const [under, setUnder] = useState(null);
  Object.assign(kept.current, { picked, onPick });
  useEffect(() => {
    const state = kept.current;
    const element = box.current;
    const style = getComputedStyle(element);
    const colour = (name) => style.getPropertyValue(name).trim();
    const font = `11px ${style.fontFamily}`;
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font, labelFont: font, show: !triangle };
    const sorted = [...points].sort((one, other) => one.x - other.x);
    const counted = [...sorted.map(({ x, y }) => [x, y]), ...lines.flat()].sort(([one], [other]) => one - other);
    const ofColour = Object.groupBy(sorted.keys(), (row) => sorted[row].colour);
    const fills = resolved(colours, style);
    const place = { x: new Float64Array(sorted.length), y: new Float64Array(sorted.length) };
    const sized = () => ({ width: element.clientWidth, height: element.clientHeight });
    const draw = (plot) => {
      const { ctx, bbox } = plot;
      const ratio = devicePixelRatio;
      const size = (sorted.length > MANY ? 4 : 7) * ratio;
      sorted.forEach(({ x, y }, row) => {
        place.x[row] = plot.valToPos(x, "x", true);
        place.y[row] = plot.valToPos(y, "y", true);
      });
      ctx.save();
      ctx.beginPath();
      ctx.rect(bbox.left - size, bbox.top - size, bbox.width + 2 * size, bbox.height + 2 * size);
      ctx.clip();
      ctx.strokeStyle = colour("--muted");
      ctx.lineWidth = 1.5 * ratio;
      for (const line of lines) {
        ctx.beginPath();
        for (const [x, y] of line) ctx.lineTo(plot.valToPos(x, "x", true), plot.valToPos(y, "y", true));
        ctx.stroke();
      }
      ctx.globalAlpha = sorted.length > MANY ? 0.75 : 0.9;
      for (const [number, rows] of Object.entries(ofColour)) {
        ctx.fillStyle = fills[number];
        ctx.beginPath();
        for (const row of rows) {
          const [x, y] = [place.x[row], place.y[row]];
          if (sorted.length > MANY) ctx.rect(x - size / 2, y - size / 2, size, size);
          else {
            ctx.moveTo(x + size / 2, y);
            ctx.arc(x, y, size / 2, 0, 7);
          }
        }
        ctx.fill();
      }
      const row = sorted.findIndex(({ id }) => id === state.picked);
      if (row >= 0) {
        ctx.globalAlpha = 1;
        ctx.strokeStyle = colour("--text");
        ctx.beginPath();
        ctx.arc(place.x[row], place.y[row], 7 * ratio, 0, 7);
        ctx.stroke();
      }
      ctx.restore();
    };
    const spread = (low, high) => {
      const margin = (high - low) / (triangle ? 12 : 30) || 0.5; // a corner has its name there
      return [low - margin, high + margin];
    };
    const names = xNames && { incrs: STEPS, values: (_, splits) => splits.map((at) => xNames[at] ?? "") };
    const plot = new uPlot(
      {
        ...sized(), legend: { show: false },
        cursor: { x: false, y: false, points: { show: false }, drag: { x: !triangle, y: !triangle, uni: 30, dist: 5 } },
        scales: { x: { time: false, range: (_, low, high) => spread(low, high) }, y: { range: (_, low, high) => spread(low, high) } },
        axes: [
          { ...axis, label: xTitle, labelSize: 18, size: 30, ...(names ?? { values: written }) },
          { ...axis, label: yTitle, labelSize: 18, size: 66, values: written },
        ],
        series: [{}, { paths: () => null, points: { show: false } }],
        hooks: { draw: [draw] },
      },
      // What is seen is drawn above; lines count for the scales, too, which begin and end with the first and last x.
      [counted.map(([x]) => x), counted.map(([, y]) => y)],
      element,
    );
    state.sorted = sorted;
    const nearest = ({ left, top }) => {
      const ratio = devicePixelRatio;
      const [x, y] = [left * ratio + plot.bbox.left, top * ratio + plot.bbox.top];
      let found = null;
      let least = (NEAR * ratio) ** 2;
      for (let row = 0; row < sorted.length; row += 1) {
        const away = (place.x[row] - x) ** 2 + (place.y[row] - y) ** 2;
        if (away < least) [found, least] = [row, away];
      }
      return found;
    };
    const inside = (event) => {
      const { left, top } = plot.over.getBoundingClientRect();
      return { left: event.clientX - left, top: event.clientY - top };
    };
    const move = (event) => {
      const row = event.buttons ? null : nearest(inside(event));
      const [left, top] = row === null ? [] : [(place.x[row]) / devicePixelRatio, place.y[row] / devicePixelRatio];
      setUnder(row === null ? null : { point: sorted[row], left, top, isRight: left > element.clientWidth / 2 });
    };
    let pressed = [0, 0];
    const press = (event) => (pressed = [event.clientX, event.clientY]);
    const click = (event) => {
      if (Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > STILL) return;
      const row = nearest(inside(event));
      if (row !== null) state.onPick?.(sorted[row]);
    };
    const leave = () => setUnder(null);
    const heard = { pointermove: move, pointerdown: press, pointerup: click, pointerleave: leave };
    for (const [name, listener] of Object.entries(heard)) plot.over.addEventListener(name, listener);
    const observer = new ResizeObserver(() => plot.setSize(sized()));
    observer.observe(element);
    state.redraw = () => plot.redraw(false);
    return () => {
      observer.disconnect();
      plot.destroy();
      setUnder(null);
    };
  }, [points, colours, lines, xTitle, yTitle]);
  useEffect(() => kept.current.redraw?.(), [picked]);
  useEffect(() => {
    // Who came by keys goes on from point to point.
    if (document.activeElement === document.body) box.current.parentElement.focus({ preventScroll: true });
  }, []);
  const press = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const { sorted } = kept.current;
    if (!step || !sorted.length) return;
    const row = sorted.findIndex(({ id }) => id === picked);
    onPick?.(sorted[(row + step + sorted.length) % sorted.length]);
    event.preventDefault();
  };
  return html`<div class="points" role="img" tabindex="0" aria-label=${label} onKeyDown=${press}>
    <div class="canvas" ref=${box}></div>
    ${triangle?.map((name, corner) => html`<b class=${`corner at-${corner}`}>${name}</b>`)}
    ${under && html`<div class=${`tip ${under.isRight ? "right" : ""}`} style=${{ left: `${under.left}px`, top: `${under.top}px` }}>${tip(under.point)}</div>`}
  </div>`;
}

/** What the colours mean. */
export function Colours({ legend, title, write }) {
  if (!legend) return null;
  if (legend.names) {
    return html`<ul class="legend" aria-label=${`Colours: ${title}`}>
      ${legend.names.map((name, number) => html`<li><i style=${{ background: `var(--series-${number})` }}></i> ${name}</li>`)}
      ${legend.others > 0 && html`<li><i style=${{ background: `var(--series-${SERIES})` }}></i> ${legend.others} others</li>`}
    </ul>`;
  }
  const ramp = `linear-gradient(to right, ${[0, 0.2, 0.4, 0.6, 0.8, 1].map(shade).join(", ")})`;
  return html`<p class="ramp"><span>${write(legend.low)}</span><i style=${{ background: ramp }}></i><span>${write(legend.high)}</span> ${title}</p>`;
}
