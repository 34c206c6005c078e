// Curves, drawn by uPlot: over the ionic steps of a job, and of several jobs.

import uPlot from "./vendor/uPlot.js";
import { fixed, html, useEffect, useRef } from "./lib.js";

/** A structure is no higher, in pixels (style.css), and less of it is left for a chart beside it. */
const [HIGHEST, BESIDE] = [704, 115];
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

/** Write the numbers of an axis with as many digits as tell them apart. */
export function written(_, values) {
  const apart = values.length > 1 ? Math.abs(values[1] - values[0]) : 1;
  let digits = 0;
  while (digits < 8 && Math.abs(apart * 10 ** digits - Math.round(apart * 10 ** digits)) > 1e-6) digits += 1;
  return values.map((value) => (value === null ? "" : value.toFixed(digits)));
}

/** Write the powers of ten of an axis, and what between them is drawn. */
const powers = (_, values) => values.map((value) => (value === null ? "" : String(Number(value.toPrecision(2)))));

/**
 * Draw series over x; each has a label, values with so many `digits` behind the point, and perhaps a logarithmic
 * scale, and the colour of its place. The line stands at the row `at`, and `onAt` is called with that under the pointer. One that is to `fill` its place is
 * as high as a structure beside it.
 */
export function Plot({ x, series, xLabel, height = 190, label, at = null, onAt, fill = false }) {
  const box = useRef();
  const plot = useRef();
  const line = useRef({ own: false });
  Object.assign(line.current, { at, onAt });
  /** Put the line where it belongs, if no pointer leads it. */
  const put = () => {
    const { at: row, own } = line.current;
    const left = row === null ? undefined : plot.current.data[0][row];
    if (own || left === undefined || plot.current.over.matches(":hover")) return;
    line.current.own = true;
    plot.current.setCursor({ left: plot.current.valToPos(left, "x"), top: 0 });
    line.current.own = false;
  };
  useEffect(() => {
    const element = box.current;
    const sized = () => ({ width: element.clientWidth, height: fill ? Math.max(height, Math.min(innerHeight / 2, HIGHEST) - BESIDE) : height });
    const style = getComputedStyle(element);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const font = `11px ${style.fontFamily}`;
    const own = (number) => colour(number ? "--second" : "--accent");
    const isLog = (each) => each.log && each.values.every((value) => value === null || value > 0);
    plot.current = new uPlot(
      {
        ...sized(), cursor: { y: false }, legend: { live: true },
        hooks: {
          setCursor: [({ cursor: { idx } }) => {
            const { own, onAt: lead, at: row } = line.current;
            if (!own && idx !== null && idx !== undefined && idx !== row) lead?.(idx);
          }],
          draw: [put],
        },
        scales: { x: { time: false }, ...Object.fromEntries(series.map((each, number) => [number, { distr: isLog(each) ? 3 : 1 }])) },
        axes: [
          { ...axis, font, label: xLabel, labelFont: font, labelSize: 16, size: 30, incrs: STEPS },
          ...series.map((each, number) => ({
            ...axis, stroke: own(number), font, scale: String(number), side: number ? 1 : 3, size: 64,
            grid: { show: !number, ...axis.grid }, values: isLog(each) ? powers : written,
          })),
        ],
        series: [
          { label: xLabel },
          ...series.map((each, number) => ({
            label: each.label, scale: String(number), stroke: own(number), width: 1.5,
            points: { size: 4, show: x.length < 60 }, spanGaps: true, value: (_, value) => fixed(value, each.digits),
          })),
        ],
      },
      [x, ...series.map((each) => each.values)],
      element,
    );
    const observer = new ResizeObserver(() => plot.current.setSize(sized()));
    observer.observe(element);
    plot.current.over.addEventListener("pointerleave", put);
    return () => {
      observer.disconnect();
      plot.current.destroy();
    };
  }, [series.length]);
  useEffect(() => plot.current.setData([x, ...series.map((each) => each.values)]), [x, series]);
  useEffect(put, [at]);
  return html`<div class="plot" ref=${box} role="img" aria-label=${label}></div>`;
}

const COLOURS = 8;
/** The least height of a chart, in pixels. */
const LEAST = 340;
/** A click opens what lies no further from it, in pixels. */
const NEAR = 24;
/** The edge of a square that marks a point, in pixels of the screen. */
const SQUARE = 7;

/** Put points into rows, one for each x; a curve with several points at one x has a row for each of them. */
function rowsOfCurves(curves) {
  const rows = new Map();
  curves.forEach(({ points }, number) => {
    const seen = new Map();
    for (const point of points) {
      const before = seen.get(point.x) ?? 0;
      seen.set(point.x, before + 1);
      const key = `${point.x} ${before}`;
      if (!rows.has(key)) rows.set(key, { x: point.x, points: new Map() });
      rows.get(key).points.set(number, point);
    }
  });
  return [...rows.values()].sort((one, other) => one.x - other.x);
}

/** Return the nearest row in which a series has a value, no further from a row than so much of x; else that row. */
function nearest([xs, ...series], number, at, most) {
  const values = series[number];
  let found = at;
  let distance = values[at] === null ? Infinity : 0;
  for (const step of [-1, 1]) {
    for (let row = at + step; Math.abs(xs[row] - xs[at]) <= most && Math.abs(xs[row] - xs[at]) < distance; row += step) {
      if (values[row] !== null) [found, distance] = [row, Math.abs(xs[row] - xs[at])];
    }
  }
  return found;
}

/** Mark the points of a series by squares. */
function squares(plot, series, first, last) {
  const path = new Path2D();
  const size = SQUARE * devicePixelRatio;
  const [xs, ys] = [plot.data[0], plot.data[series]];
  for (let row = first; row <= last; row += 1) {
    if (ys[row] === null) continue;
    path.rect(plot.valToPos(xs[row], "x", true) - size / 2, plot.valToPos(ys[row], "y", true) - size / 2, size, size);
  }
  return { stroke: path, fill: path, flags: 3 }; // clipped as the library's own points are
}

/** How a curve looks: each of the first eight has a colour, the next ones have squares and broken lines as well. */
function lookOf({ colour: place, line, dots }, number, colour) {
  const at = place ?? number;
  const again = at >= COLOURS;
  return {
    stroke: colour(`--series-${at % COLOURS}`), width: line === false ? 0 : 1.5, ...(again && { dash: [6, 4] }),
    points: { show: dots !== false, size: 6, ...(again && { paths: squares }) },
  };
}

/**
 * Draw curves in one frame, each with points of its own: `x`, `y`, and what else `onPoint` gets of the one that is
 * clicked. With `xNames`, x counts them; values of y have so many `digits` behind the point, or six in all. The chart reaches down to
 * the end of the window, but for so many pixels `below` it.
 */
export function Chart({ curves, xLabel, yLabel, xNames = null, digits = null, label, below = 70, onPoint }) {
  const box = useRef();
  useEffect(() => {
    const element = box.current;
    const style = getComputedStyle(element);
    const colour = (name) => style.getPropertyValue(name).trim();
    const font = `11px ${style.fontFamily}`;
    const axis = {
      stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font, labelFont: font,
    };
    const rows = rowsOfCurves(curves);
    const data = [rows.map((row) => row.x), ...curves.map((_, number) => rows.map((row) => row.points.get(number)?.y ?? null))];
    const looks = curves.map((curve, number) => lookOf(curve, number, colour));
    const names = xNames && { incrs: STEPS, values: (_, splits) => splits.map((at) => xNames[at] ?? "") };
    const margin = xNames ? 0.5 : (rows.at(-1).x - rows[0].x) / 40 || 1;
    const sized = () => ({ width: element.clientWidth, height: Math.max(LEAST, innerHeight - element.offsetTop - below) });
    const told = (value) => (digits === null ? String(Number(value.toPrecision(6))) : value.toFixed(digits));
    const plot = new uPlot(
      {
        ...sized(),
        // Each series tells its value where the pointer is.
        cursor: { y: false, dataIdx: (_, series, at) => (series ? nearest(data, series - 1, at, margin) : at) },
        legend: { markers: { dash: (_, series) => (looks[series - 1]?.dash ? "dashed" : "solid") } },
        scales: { x: { time: false, range: (_, low, high) => [low - margin, high + margin] } },
        axes: [
          { ...axis, label: xLabel, labelSize: 16, size: 30, ...(names ?? { values: written }) },
          { ...axis, label: yLabel, labelSize: 18, size: 70, values: written },
        ],
        series: [
          { label: xLabel, ...(xNames && { value: (_, at) => xNames[at] ?? "" }) },
          ...curves.map((curve, number) => ({
            label: curve.label, class: curve.label ? "named" : "unnamed", spanGaps: true, ...looks[number],
            value: (_, value) => (value === null ? "" : told(value)),
          })),
        ],
      },
      data,
      element,
    );
    const click = () => {
      const { left, top } = plot.cursor;
      const away = ({ x, y }) => Math.hypot(plot.valToPos(x, "x") - left, plot.valToPos(y, "y") - top);
      const near = curves.flatMap(({ points }) => points).filter((point) => away(point) <= NEAR);
      const [found] = near.sort((one, other) => away(one) - away(other));
      if (found) onPoint?.(found);
    };
    plot.over.addEventListener("click", click);
    const observer = new ResizeObserver(() => plot.setSize(sized()));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [curves]);
  return html`<div class="plot" ref=${box} role="img" aria-label=${label}></div>`;
}
