// Curves, drawn by uPlot: over the ionic steps of a job, and of several jobs.

import uPlot from "./vendor/uPlot.js";
import { html, useEffect, useRef } from "./lib.js";

const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

/** Write the numbers of an axis with as many digits as tell them apart. */
function written(_, values) {
  const apart = values.length > 1 ? Math.abs(values[1] - values[0]) : 1;
  let digits = 0;
  while (digits < 8 && Math.abs(apart * 10 ** digits - Math.round(apart * 10 ** digits)) > 1e-6) digits += 1;
  return values.map((value) => (value === null ? "" : value.toFixed(digits)));
}

/** Write the powers of ten of an axis, and what between them is drawn. */
const powers = (_, values) => values.map((value) => (value === null ? "" : String(Number(value.toPrecision(2)))));

/** Draw series over x; each has a label, values, and perhaps a logarithmic scale, and the colour of its place. */
export function Plot({ x, series, xLabel, height = 190, label }) {
  const box = useRef();
  const plot = useRef();
  useEffect(() => {
    const element = box.current;
    const style = getComputedStyle(element);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const font = `11px ${style.fontFamily}`;
    const own = (number) => colour(number ? "--second" : "--accent");
    const isLog = (each) => each.log && each.values.every((value) => value === null || value > 0);
    plot.current = new uPlot(
      {
        width: element.clientWidth, height, cursor: { y: false }, legend: { live: true },
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
            points: { size: 4, show: x.length < 60 }, spanGaps: true,
          })),
        ],
      },
      [x, ...series.map((each) => each.values)],
      element,
    );
    const observer = new ResizeObserver(() => plot.current.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.current.destroy();
    };
  }, [series.length]);
  useEffect(() => plot.current.setData([x, ...series.map((each) => each.values)]), [x, series]);
  return html`<div class="plot" ref=${box} role="img" aria-label=${label}></div>`;
}

const COLOURS = 8;

/**
 * Draw curves in one frame, each with points of its own: `x`, `y`, and what else `onPoint` gets of the one that is
 * clicked. With `xNames`, x counts them.
 */
export function Chart({ curves, xLabel, yLabel, xNames = null, label, height = 340, onPoint }) {
  const box = useRef();
  useEffect(() => {
    const element = box.current;
    const style = getComputedStyle(element);
    const colour = (name) => style.getPropertyValue(name).trim();
    const font = `11px ${style.fontFamily}`;
    const axis = {
      stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font, labelFont: font,
    };
    // A row for each point, so that two of one curve may have the same x.
    const rows = curves.flatMap((curve, number) => curve.points.map((point) => ({ ...point, number })));
    rows.sort((one, other) => one.x - other.x);
    const names = xNames && { incrs: STEPS, values: (_, splits) => splits.map((at) => xNames[at] ?? "") };
    const margin = xNames ? 0.5 : (rows.at(-1).x - rows[0].x) / 40 || 1;
    const plot = new uPlot(
      {
        width: element.clientWidth, height, cursor: { y: false },
        scales: { x: { time: false, range: (_, low, high) => [low - margin, high + margin] } },
        axes: [
          { ...axis, label: xLabel, labelSize: 16, size: 30, ...(names ?? { values: written }) },
          { ...axis, label: yLabel, labelSize: 18, size: 70, values: written },
        ],
        series: [
          { label: xLabel, ...(xNames && { value: (_, at) => xNames[at] ?? "" }) },
          ...curves.map((curve, number) => ({
            label: curve.label, class: curve.label ? "named" : "unnamed", stroke: colour(`--series-${(curve.colour ?? number) % COLOURS}`), spanGaps: true,
            width: curve.line === false ? 0 : 1.5, points: { show: curve.dots !== false, size: 6 },
            value: (_, value) => (value === null ? "" : String(Number(value.toPrecision(8)))),
          })),
        ],
      },
      [rows.map((row) => row.x), ...curves.map((_, number) => rows.map((row) => (row.number === number ? row.y : null)))],
      element,
    );
    const click = () => plot.cursor.idx !== null && onPoint?.(rows[plot.cursor.idx]);
    plot.over.addEventListener("click", click);
    const observer = new ResizeObserver(() => plot.setSize({ width: element.clientWidth, height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [curves]);
  return html`<div class="plot" ref=${box} role="img" aria-label=${label}></div>`;
}
