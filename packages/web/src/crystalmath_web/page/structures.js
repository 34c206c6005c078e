// The structures of a submission: dropped, chosen or pasted texts, and the structures of jobs.

import { Trouble, bytes, formula, html, useEffect, useRef, useState } from "./lib.js";
import { Told } from "./parameters.js";
import { formulaOf } from "./structure.js";
import { call } from "./server.js";
import { trajectoryOf } from "./trajectory.js";

/** The longest text that the server reads, in characters. */
const LONGEST = 4 * 2 ** 20;
/** So many structures have a line; the others are told by their number. */
const SHOWN = 200;

const tooLarge = (name, size) =>
  new Error(`${name} has ${bytes(size)}, and the page reads ${bytes(LONGEST)} at most: \`crystalmath submit RECIPE FILE\` reads larger files`);

/** Have the server read a text of structures. */
async function readText(text, name) {
  if (!text.trim()) throw new Error(`${name} is empty`);
  if (text.length > LONGEST) throw tooLarge(name, text.length);
  const told = await call("structures.read", { text, name });
  if (told.more) throw new Error(`${name} has ${told.more} structures more than can be read here: \`crystalmath submit RECIPE FILE\` reads all`);
  return told.structures.map((one) => ({
    id: crypto.randomUUID(),
    name: one.name,
    sent: one.structure,
    frame: { numbers: one.numbers, positions: one.positions.flat(), cell: one.cell.flat(), pbc: one.pbc },
  }));
}

async function readFile(file) {
  // A file that certainly has too many characters is not loaded.
  if (file.size > 4 * LONGEST) throw tooLarge(file.name, file.size);
  return readText(await file.text(), file.name);
}

/** Return the structure of a job: the final one by reference, so that the record names the job; else the submitted one. */
async function structureOfJob(id) {
  const job = await call("jobs.status", { job_id: id });
  const own = job.name ?? id.slice(0, 8);
  if (job.status === "completed") {
    const trajectory = await trajectoryOf(job, null, () => null);
    if (!trajectory) throw new Error(`job ${id.slice(0, 8)} has no structure`);
    return { id: crypto.randomUUID(), job: id, name: `final structure of ${own}`, sent: { format: "job", job_id: id }, frame: trajectory.frame(trajectory.count - 1) };
  }
  const { structure } = await call("jobs.specification", { job_id: id });
  if (!structure || Array.isArray(structure)) throw new Error(`job ${id.slice(0, 8)} was not submitted with one structure`);
  const trajectory = await trajectoryOf({ job_id: id, status: job.status }, null, () => null);
  return { id: crypto.randomUUID(), job: id, name: `${own} as submitted`, sent: structure, frame: trajectory?.frame(0) ?? null };
}

export function Structures({ structures, shown, findings, onStructures, onShown }) {
  const [over, setOver] = useState(false);
  const [text, setText] = useState("");
  const [error, setError] = useState(null);
  const [busy, setBusy] = useState(false);
  const box = useRef();
  const take = async (reading) => {
    setOver(false);
    setError(null);
    setBusy(true);
    const results = await Promise.allSettled(reading);
    const read = results.filter((one) => one.status === "fulfilled").flatMap((one) => one.value);
    if (read.length) onStructures((before) => [...before, ...read]);
    const wrong = results.filter((one) => one.status === "rejected").map((one) => one.reason);
    if (wrong.length) setError(new Error(wrong.map((one) => one.message).join("\n")));
    setBusy(false);
    return wrong;
  };
  const takeText = async (typed) => {
    const [wrong] = await take([readText(typed, "pasted")]);
    if (!wrong) return setText("");
    // The line that is wrong is selected, where the text can be corrected.
    const line = Number(/\bline (\d+)/.exec(wrong.message)?.[1]);
    const lines = typed.split("\n");
    if (!line || line > lines.length || !box.current) return null;
    const begin = lines.slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    box.current.focus();
    box.current.setSelectionRange(begin, begin + lines[line - 1].length);
    return null;
  };
  const paste = (event) => {
    const files = [...event.clipboardData.files];
    const pasted = event.clipboardData.getData("text");
    if (files.length) {
      event.preventDefault();
      take(files.map(readFile));
    } else if (!text.trim() && pasted.includes("\n")) {
      event.preventDefault();
      setText(pasted);
      takeText(pasted);
    }
  };
  const drop = (event) => {
    event.preventDefault();
    const files = [...event.dataTransfer.files];
    if (files.length) take(files.map(readFile));
    else takeText(event.dataTransfer.getData("text"));
  };
  const hover = (event) => {
    event.preventDefault();
    setOver(true);
  };
  const choose = (event) => {
    take([...event.target.files].map(readFile));
    event.target.value = ""; // so that the same file can be chosen again once it is corrected
  };
  const listen = (event) => {
    setText(event.target.value);
    setError(null);
  };
  const rows = Math.min(12, Math.max(2, text.split("\n").length));
  return html`<fieldset class=${over ? "drop over" : "drop"} onDragOver=${hover} onDragLeave=${() => setOver(false)} onDrop=${drop}>
    <legend>Structures</legend>
    <label>Drop files here, or <input type="file" multiple onChange=${choose} /></label>
    <textarea class="paste" aria-label="Paste a structure" aria-describedby="paste-told" aria-invalid=${String(Boolean(error && text))} ref=${box} rows=${rows}
      value=${text} onInput=${listen} onPaste=${paste} spellcheck=${false} placeholder="or paste the text of one here"></textarea>
    <small id="paste-told">POSCAR, CIF, XYZ, extended XYZ, input of pw.x, XSF, PDB, MOL, SDF, GEN; files may hold several structures</small>
    ${text.trim() && html`<button type="button" disabled=${busy} onClick=${() => takeText(text)}>Read the text</button>`}
    ${busy && html`<p class="note" role="status">Reading …</p>`}
    <${Trouble} error=${error} />
    <${Told} id="structure-findings" findings=${findings?.get("structure")} />
    ${structures.length > 0 && html`<ul class="taken" aria-label="Structures">
      ${structures.slice(0, SHOWN).map(
        (one) => html`<li key=${one.id}>
          <button type="button" class="quiet" aria-pressed=${String(one === shown)} onClick=${() => onShown(one)}>${one.name}</button>
          ${one.frame && html`<span><b>${formula(formulaOf([...one.frame.numbers]))}</b> ${one.frame.numbers.length} ${one.frame.numbers.length === 1 ? "atom" : "atoms"}</span>`}
          <button type="button" class="quiet" aria-label=${`Leave out ${one.name}`} onClick=${() => onStructures(structures.filter((each) => each !== one))}>×</button>
        </li>`,
      )}
    </ul>`}
    ${structures.length > 1 && html`<p class="note">${structures.length.toLocaleString()} structures, a job for each
      <button type="button" class="quiet" onClick=${() => onStructures([])}>leave out all</button></p>`}
  </fieldset>`;
}

/** Take the structure of the job that the address names, once. */
export function useStructureOfJob(id, onStructures) {
  const [error, setError] = useState(null);
  useEffect(() => {
    if (!id) return undefined;
    let ended = false;
    setError(null);
    structureOfJob(id).then(
      (one) => ended || onStructures((before) => (before.some((each) => each.job === id) ? before : [...before, one])),
      (problem) => ended || setError(problem),
    );
    return () => (ended = true);
  }, [id]);
  return error;
}
