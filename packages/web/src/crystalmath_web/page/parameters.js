// The parameters of a recipe as fields, where its job runs, and what the server says of each field.

import { Fragment, html, useEffect, useMemo, useState, visible } from "./lib.js";
import { call } from "./server.js";

/** Tables with at most so many members are open at first; so many keywords are shown without a choice. */
const FEW = 12;
/** Settings of presets that are a table of elements are told by their number. */
const LONG = 60;

/** What is typed and cannot be read, as findings at its place. */
export class Misread extends Error {
  constructor(findings) {
    super(findings.map((one) => one.message).join("\n"));
    this.findings = findings;
  }

  static at(place, message) {
    return new Misread([{ severity: "error", code: "misread", message, place, remedy: null }]);
  }
}

/** Ask once for something that stays the same. */
export function useOnce(method, pick, params = {}) {
  const [value, setValue] = useState(null);
  useEffect(() => {
    call(method, params).then((told) => setValue(pick(told)), () => setValue([]));
  }, []);
  return value;
}

// --- schemas -----------------------------------------------------------------------------------

const typesOf = (schema) =>
  [schema.type, ...(schema.anyOf ?? []).map((one) => one.type)].flat().filter((one) => one && one !== "null");

const typeOf = (schema) => {
  const types = typesOf(schema);
  if (schema.enum) return "enum";
  if (types.length === 1) return types[0];
  return types.length && types.every((one) => one === "number" || one === "integer") ? "number" : "any";
};

const KINDS = {
  number: "number", integer: "whole number", boolean: "true or false", string: "text", object: "table in JSON", array: "list in JSON",
};

const isTable = (schema) => typeOf(schema) === "object" && schema.properties && Object.keys(schema.properties).length > 0;

/** List the fields of a schema's tables by their dotted names. */
function* leavesOf(properties, before = "") {
  for (const [name, schema] of Object.entries(properties)) {
    if (isTable(schema)) yield* leavesOf(schema.properties, `${before}${name}.`);
    else yield [before + name, schema];
  }
}

const keywordsOf = (described) => Object.fromEntries(leavesOf(described.parameters?.["x-keywords"] ?? {}));

/** Return the schema of a parameter by its dotted name, as `opt_params.fmax`. */
export function schemaAt(described, path) {
  const parts = path.split(".");
  for (const properties of [described.parameters?.properties, described.parameters?.["x-keywords"]]) {
    let found = { properties };
    for (const part of parts) found = found && Object.hasOwn(found.properties ?? {}, part) ? found.properties[part] : null;
    if (found) return found;
  }
  return null;
}

/** Return a value of nested tables by its dotted name. */
export const valueAt = (values, path) => path.split(".").reduce((inner, name) => inner?.[name], values);

// --- what is typed -----------------------------------------------------------------------------

/** Read what was typed as a value of the parameter's kind; JSON where that may be anything. */
function valueOf(path, schema, text) {
  const type = typeOf(schema);
  const place = `params.${path}`;
  if (type === "enum") return JSON.parse(text);
  if (type === "string") return text;
  if (type === "boolean") return text === "true";
  const wrong = (due) => Misread.at(place, `${path}: ${due}, and not ${visible(text.length > 60 ? `${text.slice(0, 60)} …` : text)}`);
  if (type === "number" || type === "integer") {
    const value = Number(text);
    const due = `a ${KINDS[type]}${schema["x-unit"] ? ` in ${schema["x-unit"]}` : ""} is wanted`;
    if (!text.trim() || !Number.isFinite(value) || (type === "integer" && !Number.isInteger(value))) throw wrong(due);
    return value;
  }
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    if (type === "any") return text;
    throw wrong(`a ${KINDS[type]} is wanted, as ${type === "array" ? "[2, 2, 2]" : '{"fmax": 0.01}'}`);
  }
  const isRight = type === "array" ? Array.isArray(value) : type !== "object" || (value !== null && typeof value === "object" && !Array.isArray(value));
  if (!isRight) throw wrong(`a ${KINDS[type]} is wanted`);
  return value;
}

/** Set a value in the parameters by its dotted name. */
export function setIn(params, [first, ...rest], value) {
  if (!rest.length) return { ...params, [first]: value };
  return { ...params, [first]: setIn(params[first] ?? {}, rest, value) };
}

/** Read what was typed of a recipe's parameters, by dotted names; `Misread` with all that is wrong. */
export function paramsOf(described, values) {
  const wrong = [];
  let params = {};
  // A table as JSON comes before its members.
  const typed = Object.entries(values).filter(([, text]) => text !== "");
  typed.sort(([one], [other]) => one.split(".").length - other.split(".").length);
  for (const [path, text] of typed) {
    try {
      if (path === "**") params = { ...valueOf(path, { type: "object" }, text), ...params };
      else {
        const schema = schemaAt(described, path) ?? {};
        params = setIn(params, path.split("."), valueOf(path, schema, text));
      }
    } catch (problem) {
      if (!(problem instanceof Misread)) throw problem;
      wrong.push(...problem.findings);
    }
  }
  if (wrong.length) throw new Misread(wrong);
  return params;
}

// --- findings beside their fields --------------------------------------------------------------

/** List the places that have a field: those of the parameters, and those of the job. */
export function placesOf(described) {
  const places = ["structure", "name", "labels", "cluster", "engine", "walltime_s", "resources", "sweep", "params.**"];
  const walk = (properties, before) => {
    for (const [name, schema] of Object.entries(properties ?? {})) {
      places.push(`${before}.${name}`);
      walk(schema.properties, `${before}.${name}`);
    }
  };
  walk(described?.parameters?.properties, "params");
  walk(described?.parameters?.["x-keywords"], "params");
  return new Set(places);
}

const parentOf = (place) => place.slice(0, Math.max(0, place.lastIndexOf(".")));

/** Return the place of the field that a finding is about, or the empty text. */
function placeOfFinding(finding, places) {
  const quoted = [...(finding.message ?? "").matchAll(/'([\w.]+)'/g)].map(([, name]) => `params.${name}`);
  const named = (finding.place ?? "") === "params" ? quoted.find((place) => places.has(place)) : null;
  let place = named ?? finding.place ?? "";
  while (place && !places.has(place)) place = parentOf(place);
  return place;
}

/** Sort findings by the places of their fields; those of no field are at the empty text. */
export function findingsByPlace(findings, places) {
  const sorted = new Map();
  for (const finding of findings) {
    const place = placeOfFinding(finding, places);
    const there = sorted.get(place) ?? sorted.set(place, []).get(place);
    if (!there.some((one) => one.message === finding.message)) there.push(finding);
  }
  return sorted;
}

/** What the server says of one field. */
export const Told = ({ id, findings }) =>
  findings?.length
    ? html`<ul class="findings" id=${id}>${findings.map(
        (one) => html`<li class=${one.severity}>${visible(one.message)} ${one.remedy && html`<small>${visible(one.remedy)}</small>`}</li>`,
      )}</ul>`
    : null;

/** Return the attributes of a field about which there are findings. */
export const marks = (id, findings, described = true) => ({
  "aria-invalid": String(Boolean(findings?.some((one) => one.severity === "error"))),
  "aria-describedby": [described && `${id}-told`, findings?.length && `${id}-findings`].filter(Boolean).join(" ") || null,
});

// --- fields ------------------------------------------------------------------------------------

/** Let a long name break behind its underscores and dots. */
const broken = (name) => name.split(/(?<=[_.])/).map((part, number) => html`${number > 0 && html`<wbr />`}${part}`);

const json = (value) => (value === undefined ? undefined : JSON.stringify(value));

export function Field({ path, label = path, schema, value, required, before, preset, findings, within = "", onValue, onRemove }) {
  const type = typeOf(schema);
  const id = `${within}parameter-${path}`;
  const byDefault = json(schema.default ?? undefined) ?? schema["x-default"];
  const initial = json(before) ?? json(preset) ?? byDefault ?? "";
  const origin = before !== undefined ? "as before" : preset !== undefined ? "preset" : "default";
  const common = { id, value: value ?? "", required, spellcheck: false, ...marks(id, findings) };
  const listen = (event) => onValue(event.target.value);
  let input;
  if (type === "boolean" || type === "enum") {
    const choices = type === "boolean" ? ["true", "false"] : schema.enum.map((one) => JSON.stringify(one));
    input = html`<select ...${common} onChange=${listen}>
      <option value="">${initial && `${origin}: ${initial}`}</option>
      ${choices.map((one) => html`<option value=${one}>${one}</option>`)}
    </select>`;
  } else if (type === "object") {
    input = html`<textarea ...${common} rows="1" placeholder=${initial || "{}"} onInput=${listen}></textarea>`;
  } else {
    const decimal = type === "number" || type === "integer";
    input = html`<input ...${common} placeholder=${initial || (type === "array" ? "[]" : "")} onInput=${listen}
      autocomplete="off" inputmode=${decimal ? "decimal" : null} />`;
  }
  const kind = [KINDS[type], byDefault && `default ${byDefault}`, preset !== undefined && `preset ${brief(preset)}`].filter(Boolean).join(", ");
  return html`<div class="field">
    <label for=${id}>${broken(label)}</label>
    <div class="entry">${input}${schema["x-unit"] && html`<span class="unit">${schema["x-unit"]}</span>`}
      ${onRemove && html`<button type="button" class="quiet" aria-label=${`Leave out ${path}`} onClick=${onRemove}>×</button>`}</div>
    <small id=${`${id}-told`}>${kind && html`<i>${kind}</i> `}${schema.description}</small>
    <${Told} id=${`${id}-findings`} findings=${findings} />
  </div>`;
}

/** A parameter, or a table of parameters with a field for each member. */
function Entry({ path, label, schema, form, depth = 0 }) {
  const { values, before, required, findings, within, set } = form;
  const own = findings?.get(`params.${path}`);
  if (!isTable(schema)) {
    return html`<${Field} path=${path} label=${label} schema=${schema} value=${values[path]} findings=${own} within=${within}
      required=${!before && required.includes(path)} before=${before ? valueAt(before, path) : undefined} onValue=${set(path)} />`;
  }
  const members = Object.entries(schema.properties);
  const touched = [...Object.keys(values), ...[...(findings?.keys() ?? [])].map((place) => place.slice("params.".length))];
  const isOpen = (depth === 0 && members.length <= FEW) || touched.some((name) => name === path || name.startsWith(`${path}.`));
  const asText = { type: "object", description: "A table in JSON; the fields above come before it." };
  return html`<${Table} title=${label} text=${schema.description} isOpen=${isOpen}>
    ${members.map(([name, each]) => html`<${Entry} key=${name} path=${`${path}.${name}`} label=${name} schema=${each} form=${form} depth=${depth + 1} />`)}
    <${Field} path=${path} label=${`${label} as JSON`} schema=${asText} value=${values[path]} findings=${own} within=${within}
      before=${before ? valueAt(before, path) : undefined} onValue=${set(path)} />
  <//>`;
}

function Table({ title, text, isOpen, children }) {
  const [open, setOpen] = useState(isOpen);
  useEffect(() => {
    if (isOpen) setOpen(true);
  }, [isOpen]);
  return html`<details class="members" open=${open} onToggle=${(event) => event.target === event.currentTarget && setOpen(event.target.open)}>
    <summary><b>${title}</b> <small>${text}</small></summary>
    <div role="group" aria-label=${title}>${open && children}</div>
  </details>`;
}

/** The further parameters that a recipe's program reads: few as fields, of many those that are chosen. */
function Keywords({ described, form }) {
  const known = useMemo(() => keywordsOf(described), [described]);
  const names = Object.keys(known);
  const [typed, setTyped] = useState("");
  const [added, setAdded] = useState([]);
  const { values, set, findings, within, drop } = form;
  const shown = names.length <= FEW ? names : names.filter((name) => added.includes(name) || name in values);
  if (!names.length) return null;
  const name = names.find((each) => each === typed.trim() || each.toLowerCase() === typed.trim().toLowerCase())
    ?? names.find((each) => each.toLowerCase().endsWith(`.${typed.trim().toLowerCase()}`));
  const add = () => {
    if (!name) return;
    setAdded([...added, name]);
    setTyped("");
    setTimeout(() => document.getElementById(`${within}parameter-${name}`)?.focus());
  };
  const press = (event) => {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    add();
  };
  const remove = (path) => () => {
    setAdded(added.filter((each) => each !== path));
    drop(path);
  };
  return html`<${Fragment}>
    ${shown.map(
      (path) => html`<${Field} key=${path} path=${path} schema=${known[path]} value=${values[path]} findings=${findings?.get(`params.${path}`)} within=${within}
        before=${form.before ? valueAt(form.before, path) : undefined} preset=${valueAt(form.preset, path)} onValue=${set(path)} onRemove=${names.length > FEW && remove(path)} />`,
    )}
    ${names.length > FEW &&
    html`<div class="field"><label for=${`${within}keyword`}>Add a keyword</label>
      <div class="entry">
        <input id=${`${within}keyword`} list=${`${within}keywords`} value=${typed} onInput=${(event) => setTyped(event.target.value)} onKeyDown=${press} spellcheck=${false}
          autocomplete="off" placeholder="encut, ismear, ecutwfc …" aria-describedby=${`${within}keyword-told`} aria-invalid=${String(Boolean(typed.trim() && !name && typed.length > 2))} />
        <button type="button" disabled=${!name} onClick=${add}>Add</button>
      </div>
      <datalist id=${`${within}keywords`}>${names.map((each) => html`<option value=${each}>${known[each].description ?? ""}</option>`)}</datalist>
      <small id=${`${within}keyword-told`}>${
        name ? html`<b>${name}</b> ${known[name]["x-unit"] && `in ${known[name]["x-unit"]}: `}${known[name].description}`
        : typed.trim().length > 2 ? `no keyword that is known here; write others as JSON below` : `${names.length} are known, each with its kind and what it does`
      }</small>
    </div>`}
  <//>`;
}

/**
 * The parameters of a recipe as a form; `before` are those of the job that runs again. The ids of fields begin with
 * `within`, as those of a window above another form.
 */
export function Parameters({ described, values, before = null, findings = null, within = "", onValues }) {
  const { properties = {}, required = [], additionalProperties } = described.parameters ?? {};
  const set = (name) => (text) => onValues((all) => ({ ...all, [name]: text }));
  const drop = (name) => onValues(({ [name]: left, ...rest }) => rest);
  const presets = usePresets(properties.preset);
  const preset = presets?.find((one) => one.name === (values.preset || (before?.preset ?? properties.preset.default)))?.settings;
  const form = { values, before, required, findings, preset, presets, within, set, drop };
  const others = { type: "object", description: "Further parameters, as a table in JSON." };
  return html`<fieldset class="parameters"><legend>Parameters</legend>
    ${Object.entries(properties).map(([name, schema]) =>
      name === "preset"
        ? html`<${Preset} key=${name} schema=${schema} form=${form} />`
        : html`<${Entry} key=${name} path=${name} label=${name} schema=${schema} form=${form} />`,
    )}
    <${Keywords} described=${described} form=${form} />
    ${(additionalProperties || !described.parameters) &&
    html`<${Field} path="**" label="others" schema=${others} value=${values["**"]} findings=${findings?.get("params.**")} within=${within} onValue=${set("**")} />`}
  </fieldset>`;
}

// --- presets -----------------------------------------------------------------------------------

const brief = (value) => {
  if (value === undefined) return "–";
  const text = typeof value === "string" ? value : JSON.stringify(value);
  if (text.length <= LONG) return text;
  return typeof value === "object" ? `${Object.keys(value).length} entries` : `${text.slice(0, LONG)} …`;
};

/** List the settings by their dotted names; a table of elements is one setting. */
function* settingsOf(settings, before = "") {
  for (const [name, value] of Object.entries(settings ?? {})) {
    const nested = value && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length <= FEW * 2;
    if (nested) yield* settingsOf(value, `${before}${name}.`);
    else yield [before + name, value];
  }
}

/** Ask for the presets of a recipe's program, if the recipe takes one. */
function usePresets(schema) {
  const [presets, setPresets] = useState(null);
  useEffect(() => {
    if (!schema) return;
    const isOwn = (one) => !schema["x-program"] || one.program === schema["x-program"];
    call("presets.list").then((told) => setPresets(told.presets.filter(isOwn)), () => setPresets([]));
  }, []);
  return presets;
}

/** A preset to choose, and how it differs from the recipe's own one. */
function Preset({ schema, form }) {
  const { values, before, presets, findings, within, set } = form;
  const id = `${within}parameter-preset`;
  const usual = before?.preset ?? schema.default;
  const own = presets ?? [];
  const found = (name) => own.find((one) => one.name === name);
  const chosen = values.preset || usual;
  const differing = useMemo(() => {
    const [one, other] = [usual, chosen].map((name) => Object.fromEntries(settingsOf(found(name)?.settings)));
    const names = [...new Set([...Object.keys(one), ...Object.keys(other)])].sort();
    return names.filter((name) => JSON.stringify(one[name]) !== JSON.stringify(other[name])).map((name) => [name, one[name], other[name]]);
  }, [presets, usual, chosen]);
  const told = findings?.get("params.preset");
  const listen = (event) => set("preset")(event.target.value);
  return html`<${Fragment}>
    <div class="field"><label for=${id}>preset</label>
      <div class="entry">
        <input id=${id} list=${`${within}presets`} value=${values.preset ?? ""} placeholder=${usual ?? ""} onInput=${listen} spellcheck=${false}
          autocomplete="off" ...${marks(id, told)} />
        <datalist id=${`${within}presets`}>${own.map((one) => html`<option value=${one.name}></option>`)}</datalist>
      </div>
      <small id=${`${id}-told`}><i>name of a preset${usual ? `, default ${usual}` : ""}</i> ${schema.description}</small>
      <${Told} id=${`${id}-findings`} findings=${told} />
    </div>
    ${own.length > 0 && html`<div class="presets" role="group" aria-label="Presets">
      ${own.map((one) => html`<button type="button" key=${one.name} aria-pressed=${String(one.name === chosen)}
        onClick=${() => set("preset")(one.name === usual ? "" : one.name)}>${one.name}</button>`)}
    </div>`}
    ${chosen !== usual && found(chosen) && html`<table class="difference">
      <caption>${differing.length ? `${chosen} differs from ${usual ?? "no preset"} in ${differing.length} settings` : `${chosen} has the settings of ${usual}`}</caption>
      ${differing.length > 0 && html`<thead><tr><th scope="col">Setting</th><th scope="col">${usual ?? "none"}</th><th scope="col">${chosen}</th></tr></thead>
      <tbody>${differing.map(([name, one, other]) => html`<tr><th scope="row">${name}</th><td>${brief(one)}</td><td>${brief(other)}</td></tr>`)}</tbody>`}
    </table>`}
  <//>`;
}

// --- where a job runs --------------------------------------------------------------------------

const RESOURCES = {
  nodes: "Nodes", ranks: "Ranks", ranks_per_node: "Ranks per node", cores_per_rank: "Cores per rank",
  gpus_per_rank: "GPUs per rank", memory_mb: "Memory (MB)", queue: "Queue", account: "Account",
};
const TEXTS = ["queue", "account"];

/** Where a job runs, how long, and on how much; `before` is what the job had that runs again. */
export function Place({ terms, before = null, findings = null, within = "", onTerms }) {
  const [whereId, walltimeId] = [`${within}where`, `${within}walltime`];
  const clusters = useOnce("clusters.list", (told) => told.clusters);
  const engines = useOnce("engines.list", (told) => told.engines.filter((one) => one.loads));
  const set = (name) => (event) => onTerms((all) => ({ ...all, [name]: event.target.value }));
  const usual = engines?.find((one) => one.configured)?.name ?? "local";
  const places = [
    ...(before ? [["", "as before"]] : []),
    ...(engines ?? []).map((one) => [
      one.name === usual && !before ? "" : `engine ${one.name}`, `${one.name}, on this machine`,
    ]),
    ...(clusters ?? []).map((one) => [`cluster ${one.name}`, `${one.name}, by ${one.engine}`]),
  ];
  const hours = before?.walltime_s ? spanText(before.walltime_s) : "";
  const where = [...(findings?.get("cluster") ?? []), ...(findings?.get("engine") ?? [])];
  const walltime = findings?.get("walltime_s");
  const resources = findings?.get("resources") ?? [];
  const isOpen = resources.length > 0 || Object.keys(RESOURCES).some((name) => terms[name]);
  return html`<${Fragment}>
    <div class="field"><label for=${whereId}>Where</label>
      <select id=${whereId} value=${terms.cluster ?? ""} onChange=${set("cluster")} ...${marks(whereId, where, false)}>
        ${places.map(([value, title]) => html`<option value=${value}>${title}</option>`)}
      </select><${Told} id=${`${whereId}-findings`} findings=${where} /></div>
    <div class="field"><label for=${walltimeId}>Walltime (h)</label>
      <input id=${walltimeId} value=${terms.walltime ?? ""} placeholder=${hours} onInput=${set("walltime")} inputmode="decimal" ...${marks(walltimeId, walltime)} />
      <small id=${`${walltimeId}-told`}>hours, or with a unit: 90 s, 30 min, 2 d</small><${Told} id=${`${walltimeId}-findings`} findings=${walltime} /></div>
    <details open=${isOpen || null}><summary>Resources</summary><div class="resources">
      ${Object.entries(RESOURCES).map(
        ([name, title]) => html`<label>${title}
          <input value=${terms[name] ?? ""} placeholder=${before?.resources?.[name] ?? ""} onInput=${set(name)}
            inputmode=${TEXTS.includes(name) ? null : "numeric"} spellcheck=${false} /></label>`,
      )}
    </div><${Told} id=${`${within}resources-findings`} findings=${resources} /></details>
  <//>`;
}

const SECONDS = { s: 1, min: 60, h: 3600, d: 86400 };

/** Write a span of time as the form reads it: in hours, a short one in seconds. */
export const spanText = (seconds) => (seconds < 360 ? `${seconds} s` : String(Number((seconds / 3600).toPrecision(6))));

/** Read a span of time in seconds. */
function spanOf(text) {
  const [, number, unit = "h"] = /^\s*([\d.]+)\s*(s|min|h|d)?\s*$/.exec(text) ?? [];
  const seconds = Number(number) * SECONDS[unit];
  if (!(seconds > 0)) throw Misread.at("walltime_s", `${visible(text)}: the walltime is a number of hours, or has a unit: 90 s, 30 min, 2 d`);
  return seconds;
}

/** Read what was typed of a place, as jobs.submit and jobs.retry take it. */
export function placeOf(terms) {
  const asked = {};
  const [kind, place] = (terms.cluster ?? "").split(/ (.*)/s);
  if (place) asked[kind] = place;
  if (terms.walltime) asked.walltime_s = spanOf(terms.walltime);
  for (const name of Object.keys(RESOURCES)) {
    if (!terms[name]) continue;
    const value = TEXTS.includes(name) ? terms[name] : Number(terms[name]);
    if (Number.isNaN(value)) throw Misread.at("resources", `${visible(terms[name])}: ${RESOURCES[name]} is a number`);
    asked.resources = { ...asked.resources, [name]: value };
  }
  return asked;
}
