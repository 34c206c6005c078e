// Curves over the ionic steps of a job, drawn by uPlot.

import uPlot from "./vendor/uPlot.js";
import { html, useEffect, useRef } from "./lib.js";

const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

/** Write the numbers of an axis with as many digits as tell them apart. */
function written(_, values) {
  const apart = values.length > 1 ? Math.abs(values[1] - values[0]) : 1;
  const digits = Math.min(8, Math.max(0, Math.ceil(-Math.log10(apart)) + (apart < 1 ? 1 : 0)));
  return values.map((value) => (value === null ? "" : value.toFixed(digits)));
}

/** Draw series over x; each has a label and values, and is drawn in the colour of its place. */
export function Plot({ x, series, xLabel, height = 190, label }) {
  const box = useRef();
  const plot = useRef();
  useEffect(() => {
    const element = box.current;
    const style = getComputedStyle(element);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const font = `11px ${style.fontFamily}`;
    plot.current = new uPlot(
      {
        width: element.clientWidth, height, cursor: { y: false }, legend: { live: true },
        scales: { x: { time: false } },
        axes: [
          { ...axis, font, label: xLabel, labelFont: font, labelSize: 16, size: 30, incrs: STEPS },
          ...series.map((_, number) => ({ ...axis, font, scale: String(number), side: number ? 1 : 3, size: 64, grid: { show: !number, ...axis.grid }, values: written })),
        ],
        series: [
          { label: xLabel },
          ...series.map((each, number) => ({
            label: each.label, scale: String(number), stroke: colour(number ? "--second" : "--accent"), width: 1.5,
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
