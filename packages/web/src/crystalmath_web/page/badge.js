// The page's mark in the browser's tab, with the number of jobs that failed in the last day.

import { call, onChange } from "./server.js";

/** How often failures are counted, and how soon after one of them, in milliseconds. */
const AGAIN = 60_000;
const SOON = 1000;
const SIZE = 64;

function draw(image, count) {
  const canvas = Object.assign(document.createElement("canvas"), { width: SIZE, height: SIZE });
  const pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0, SIZE, SIZE);
  const text = count > 99 ? "99+" : String(count);
  pen.font = `bold ${text.length > 2 ? 30 : 38}px sans-serif`;
  const width = Math.max(40, pen.measureText(text).width + 14);
  pen.fillStyle = "#b3261e";
  pen.beginPath();
  pen.roundRect(SIZE - width, SIZE - 42, width, 42, 14);
  pen.fill();
  pen.fillStyle = "#ffffff";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(text, SIZE - width / 2, SIZE - 20);
  return canvas.toDataURL();
}

/** Have the tab's mark follow the failures. */
export async function mark() {
  const icon = document.querySelector("link[rel=icon]");
  const plain = icon.getAttribute("href");
  const image = Object.assign(new Image(), { src: plain });
  await image.decode();
  let shown = 0;
  const count = async () => {
    const { states } = await call("jobs.counts", { bucket_s: 3600 });
    const failed = states.failed ?? 0;
    if (failed === shown) return;
    shown = failed;
    icon.dataset.failed = failed;
    icon.setAttribute("href", failed ? draw(image, failed) : plain);
  };
  const quietly = () => count().catch(() => null); // the next time will do
  let soon = null;
  onChange((change) => {
    if (change.status !== "failed") return;
    soon ??= setTimeout(() => {
      soon = null;
      quietly();
    }, SOON);
  });
  setInterval(() => document.hidden || quietly(), AGAIN);
  await quietly();
}
