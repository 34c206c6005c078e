// A form that submits jobs: structures, a recipe, its parameters, where; and the verdict while one types.

import {
  Fragment, Trouble, address, change, formula, go, html, link, shortRecipe, useEffect, useMemo, useRef, useState,
} from "./lib.js";
import { Steps } from "./job_parts.js";
import { Structure, formulaOf } from "./structure.js";
import { call } from "./server.js";

/** How long after the last key the server is asked for its verdict, in milliseconds. */
const PAUSE = 500;
const MOST_SHOWN = 60;
const AT_ONCE = 5;

function useOnce(method, pick) {
  const [value, setValue] = useState(null);
  useEffect(() => {
    call(method).then((told) => setValue(pick(told)), () => setValue([]));
  }, []);
  return value;
}

export function Submit() {
  const recipe = address.value.get("recipe") ?? "";
  const [structures, setStructures] = useState([]);
  const [values, setValues] = useState({});
  const [terms, setTerms] = useState({ name: "", labels: "", cluster: "", walltime: "", sweep: "" });
  const [described, setDescribed] = useState(null);
  const [error, setError] = useState(null);
  useEffect(() => {
    setDescribed(null);
    setValues({});
    if (!recipe) return;
    call("recipes.describe", { recipe: `quacc.recipes.${shortRecipe(recipe)}` })
      .catch(() => call("recipes.describe", { recipe }))
      .then(setDescribed, setError);
  }, [recipe]);
  const ready = described && (structures.length || described.structure !== "required");
  const press = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.querySelector(".act:enabled")?.click();
  };
  return html`<div class="submission" onKeyDown=${press}>
    <h1 class="unseen">Submit</h1>
    <div class="form">
      ${described?.structure !== "none" && html`<${Drop} structures=${structures} onStructures=${setStructures} />`}
      <${Recipes} chosen=${recipe} />
      <${Trouble} error=${error} />
      ${described && html`<${Parameters} described=${described} values=${values} onValues=${setValues} />`}
      ${described && html`<${Terms} described=${described} terms=${terms} onTerms=${setTerms} />`}
    </div>
    <div class="beside">
      ${structures[0] && html`<${Structure} frame=${structures[0].frame} key=${structures[0].name} />`}
      ${described && !ready && html`<p class="empty">This recipe takes a structure: drop a file.</p>`}
      ${ready && html`<${Verdict} described=${described} structures=${structures} values=${values} terms=${terms} />`}
      ${described && html`<${Documentation} described=${described} />`}
    </div>
  </div>`;
}

// --- structures --------------------------------------------------------------------------------

/** Have the server read a file of structures. */
async function read(file) {
  const told = await call("structures.read", { text: await file.text(), name: file.name });
  if (told.more) throw new Error(`${file.name} has ${told.more} structures more than can be read here`);
  return told.structures.map((one, number) => ({
    id: crypto.randomUUID(),
    name: told.structures.length > 1 ? `${file.name} ${number + 1}` : file.name,
    sent: one.structure,
    frame: { numbers: one.numbers, positions: one.positions.flat(), cell: one.cell.flat(), pbc: one.pbc },
  }));
}

function Drop({ structures, onStructures }) {
  const [over, setOver] = useState(false);
  const [error, setError] = useState(null);
  const take = async (files) => {
    setOver(false);
    setError(null);
    try {
      onStructures([...structures, ...(await Promise.all([...files].map(read))).flat()]);
    } catch (problem) {
      setError(problem);
    }
  };
  const drop = (event) => {
    event.preventDefault();
    take(event.dataTransfer.files);
  };
  const hover = (event) => {
    event.preventDefault();
    setOver(true);
  };
  return html`<fieldset class=${over ? "drop over" : "drop"} onDragOver=${hover} onDragLeave=${() => setOver(false)} onDrop=${drop}>
    <legend>Structures</legend>
    <label>Drop CIF, XYZ or POSCAR files here, or <input type="file" multiple onChange=${(event) => take(event.target.files)} /></label>
    <ul>
      ${structures.map(
        (one, number) => html`<li key=${number}>
          ${one.name} <b>${formula(formulaOf(one.frame.numbers))}</b> ${one.frame.numbers.length} atoms
          <button class="quiet" aria-label=${`Leave out ${one.name}`} onClick=${() => onStructures(structures.filter((each) => each !== one))}>×</button>
        </li>`,
      )}
    </ul>
    <${Trouble} error=${error} />
  </fieldset>`;
}

// --- the recipe --------------------------------------------------------------------------------

function Recipes({ chosen }) {
  const recipes = useOnce("recipes.list", (told) => told.recipes);
  const [text, setText] = useState("");
  const found = useMemo(() => {
    const words = text.toLowerCase().split(/\s+/);
    return (recipes ?? []).filter((one) => words.every((word) => `${one.name} ${one.summary}`.toLowerCase().includes(word)));
  }, [recipes, text]);
  if (chosen) {
    return html`<fieldset><legend>Recipe</legend>
      <b>${shortRecipe(chosen)}</b> <button onClick=${() => change({ recipe: "" })}>Another</button>
    </fieldset>`;
  }
  return html`<fieldset><legend>Recipe</legend>
    <input type="search" aria-label="Search recipes" placeholder="relax emt, static vasp, phonon …" value=${text}
      onInput=${(event) => setText(event.target.value)} />
    <ul class="recipes">
      ${found.slice(0, MOST_SHOWN).map(
        (one) => html`<li key=${one.name}>
          <a href=${link({ view: "submit", recipe: one.name })}>${shortRecipe(one.name)}</a> <span class="note">${one.summary}</span>
        </li>`,
      )}
    </ul>
    ${found.length > MOST_SHOWN && html`<small>${found.length - MOST_SHOWN} more: search for some of them</small>`}
  </fieldset>`;
}

const Documentation = ({ described }) => html`<section>
  <h2>${shortRecipe(described.name)}</h2>
  <pre class="doc" tabindex="0">${described.docstring ?? "It has no docstring."}</pre>
</section>`;

// --- its parameters ----------------------------------------------------------------------------

const typeOf = (schema) => {
  const types = [schema.type, ...(schema.anyOf ?? []).map((one) => one.type)].flat().filter((one) => one && one !== "null");
  return schema.enum ? "enum" : types.length === 1 ? types[0] : types.length && types.every((one) => one === "number" || one === "integer") ? "number" : "any";
};

/** Read what was typed as a value of the parameter's kind; JSON where that may be anything. */
function valueOf(schema, text) {
  const type = typeOf(schema);
  if (type === "enum") return JSON.parse(text);
  if (type === "string") return text;
  if (type === "boolean") return text === "true";
  try {
    return JSON.parse(text);
  } catch {
    if (type === "any") return text;
    throw new Error(`${text}: a value in JSON is wanted, as 500, [2, 2, 2] or {"fmax": 0.01}`);
  }
}

function Field({ name, schema, value, required, before, onValue }) {
  const type = typeOf(schema);
  const id = `parameter-${name}`;
  const initial = JSON.stringify(before ?? schema.default ?? undefined) ?? schema["x-default"] ?? "";
  const common = { id, value: value ?? "", required, "aria-describedby": `${id}-told` };
  const listen = (event) => onValue(event.target.value);
  let input;
  if (type === "boolean" || type === "enum") {
    const choices = type === "boolean" ? ["true", "false"] : schema.enum.map((one) => JSON.stringify(one));
    input = html`<select ...${common} onChange=${listen}>
      <option value="">${initial && `${before === undefined ? "default" : "as before"}: ${initial}`}</option>
      ${choices.map((one) => html`<option value=${one}>${one}</option>`)}
    </select>`;
  } else if (type === "object" || type === "array") {
    input = html`<textarea ...${common} rows="2" placeholder=${initial || (type === "object" ? "{}" : "[]")} onInput=${listen} spellcheck="false"></textarea>`;
  } else {
    input = html`<input ...${common} placeholder=${initial} onInput=${listen} spellcheck="false" inputmode=${type === "number" || type === "integer" ? "decimal" : null} />`;
  }
  return html`<div class="field">
    <label for=${id}>${name === "**" ? "others" : name}</label>${input}<small id=${`${id}-told`}>${schema.description}</small>
  </div>`;
}

/** The parameters of a recipe as a form; `before` are those of the job that runs again. */
export function Parameters({ described, values, before = null, onValues }) {
  const { properties = {}, required = [], additionalProperties } = described.parameters ?? {};
  const set = (name) => (text) => onValues({ ...values, [name]: text });
  return html`<fieldset><legend>Parameters</legend>
    ${Object.entries(properties).map(
      ([name, schema]) => html`<${Field} key=${name} name=${name} schema=${schema} value=${values[name]}
        required=${!before && required.includes(name)} before=${before?.[name]} onValue=${set(name)} />`,
    )}
    ${(additionalProperties || !described.parameters) &&
    html`<${Field} name="**" schema=${{ type: "object", description: "Further parameters, as JSON." }} value=${values["**"]} onValue=${set("**")} />`}
  </fieldset>`;
}

const RESOURCES = {
  nodes: "Nodes", ranks: "Ranks", ranks_per_node: "Ranks per node", cores_per_rank: "Cores per rank",
  gpus_per_rank: "GPUs per rank", memory_mb: "Memory (MB)", queue: "Queue", account: "Account",
};
const TEXTS = ["queue", "account"];

/** Where a job runs, how long, and on how much; `before` is what the job had that runs again. */
export function Place({ terms, before = null, onTerms }) {
  const clusters = useOnce("clusters.list", (told) => told.clusters);
  const engines = useOnce("engines.list", (told) => told.engines.filter((one) => one.loads));
  const set = (name) => (event) => onTerms({ ...terms, [name]: event.target.value });
  const usual = engines?.find((one) => one.configured)?.name ?? "local";
  const places = [
    ...(before ? [["", "as before"]] : []),
    ...(engines ?? []).map((one) => [
      one.name === usual && !before ? "" : `engine ${one.name}`, `${one.name}, on this machine`,
    ]),
    ...(clusters ?? []).map((one) => [`cluster ${one.name}`, `${one.name}, by ${one.engine}`]),
  ];
  const hours = before?.walltime_s ? String(before.walltime_s / 3600) : "";
  return html`<${Fragment}>
    <div class="field"><label for="where">Where</label>
      <select id="where" value=${terms.cluster} onChange=${set("cluster")}>
        ${places.map(([value, title]) => html`<option value=${value}>${title}</option>`)}
      </select></div>
    <div class="field"><label for="walltime">Walltime (h)</label>
      <input id="walltime" value=${terms.walltime ?? ""} placeholder=${hours} onInput=${set("walltime")} inputmode="decimal" /></div>
    <details><summary>Resources</summary><div class="resources">
      ${Object.entries(RESOURCES).map(
        ([name, title]) => html`<label>${title}
          <input value=${terms[name] ?? ""} placeholder=${before?.resources?.[name] ?? ""} onInput=${set(name)}
            inputmode=${TEXTS.includes(name) ? null : "numeric"} spellcheck="false" /></label>`,
      )}
    </div></details>
  <//>`;
}

function Terms({ described, terms, onTerms }) {
  const inOne = (event) => onTerms({ ...terms, in_one_job: event.target.checked });
  const set = (name) => (event) => onTerms({ ...terms, [name]: event.target.value });
  return html`<fieldset><legend>Job</legend>
    <div class="field"><label for="name">Name</label><input id="name" value=${terms.name} onInput=${set("name")} /></div>
    <div class="field"><label for="labels">Labels</label>
      <input id="labels" value=${terms.labels} onInput=${set("labels")} placeholder="project=alloys set=a" spellcheck="false" /></div>
    <${Place} terms=${terms} onTerms=${onTerms} />
    <div class="field"><label for="sweep">Sweep</label>
      <textarea id="sweep" rows="2" value=${terms.sweep} onInput=${set("sweep")} spellcheck="false" placeholder="opt_params.fmax=0.05,0.01"></textarea>
      <small>A line for each parameter; there is a job for each combination of values, with a label for each value.</small></div>
    ${described.kind === "flow" && html`<label><input type="checkbox" onChange=${inOne} /> All steps in one job</label>`}
  </fieldset>`;
}

/** Read the sweep: for each combination of values, the last line varying fastest, the values by name. */
function combinationsOf(text) {
  let all = [{}];
  for (const line of text.split("\n").map((each) => each.trim()).filter(Boolean)) {
    const [, name, given] = /^([\w.]+)=(.+)$/.exec(line) ?? [];
    if (!name) throw new Error(`${line}: a sweep is written NAME=VALUE,VALUE`);
    let values;
    try {
      values = JSON.parse(`[${given}]`);
    } catch {
      values = given.split(",").map((each) => each.trim());
    }
    all = all.flatMap((before) => values.map((value) => ({ ...before, [name]: value })));
  }
  return all;
}

/** Set a value in the parameters by its dotted name. */
function setIn(params, [first, ...rest], value) {
  if (!rest.length) return { ...params, [first]: value };
  return { ...params, [first]: setIn(params[first] ?? {}, rest, value) };
}

// --- the verdict -------------------------------------------------------------------------------

/** Read what was typed of a recipe's parameters. */
export function paramsOf(described, values) {
  const { properties = {} } = described.parameters ?? {};
  const params = {};
  for (const [name, text] of Object.entries(values)) {
    if (text === "") continue;
    if (name === "**") Object.assign(params, valueOf({ type: "object" }, text));
    else params[name] = valueOf(properties[name] ?? {}, text);
  }
  return params;
}

/** Read what was typed of a place, as jobs.submit and jobs.retry take it. */
export function placeOf(terms) {
  const asked = {};
  const [kind, place] = (terms.cluster ?? "").split(/ (.*)/s);
  if (place) asked[kind] = place;
  if (terms.walltime) asked.walltime_s = Number(terms.walltime) * 3600;
  if (Number.isNaN(asked.walltime_s)) throw new Error(`${terms.walltime}: the walltime is a number of hours`);
  for (const name of Object.keys(RESOURCES)) {
    if (!terms[name]) continue;
    const value = TEXTS.includes(name) ? terms[name] : Number(terms[name]);
    if (Number.isNaN(value)) throw new Error(`${terms[name]}: ${RESOURCES[name]} is a number`);
    asked.resources = { ...asked.resources, [name]: value };
  }
  return asked;
}

/** Write what is in the form as the parameters of jobs.submit. */
function submissionOf(described, structure, values, terms, swept = {}) {
  const asked = { recipe: described.name, params: paramsOf(described, values), ...placeOf(terms) };
  if (structure) asked.structure = structure.sent;
  if (terms.name) asked.name = terms.name;
  const labels = terms.labels.split(/\s+/).filter(Boolean).map((each) => each.split(/=(.*)/s).slice(0, 2));
  if (labels.some((pair) => pair.length < 2)) throw new Error("labels are written NAME=VALUE, with blanks between them");
  if (labels.length) asked.labels = Object.fromEntries(labels);
  for (const [name, value] of Object.entries(swept)) {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    asked.params = setIn(asked.params, name.split("."), value);
    asked.labels = { ...asked.labels, [name]: text };
    asked.name = [asked.name, `${name}=${text}`].filter(Boolean).join(" ");
  }
  if (terms.in_one_job && described.kind === "flow") asked.in_one_job = true;
  return asked;
}

function Verdict({ described, structures, values, terms }) {
  const [answer, setAnswer] = useState({});
  const [busy, setBusy] = useState(false);
  const [inputsOpen, setInputsOpen] = useState(false);
  const keys = useRef({});
  const wanted = JSON.stringify([described.name, structures.map((one) => one.id), values, terms]);
  // An answer about another input is none.
  const { verdict = null, error = null } = answer.wanted === wanted ? answer : {};
  useEffect(() => {
    let ended = false;
    const check = async () => {
      try {
        const asked = submissionOf(described, structures[0], values, terms, combinationsOf(terms.sweep)[0]);
        const told = await call("jobs.check", { ...asked, inputs: true }).catch((problem) => {
          if (!problem.findings?.length) throw problem;
          return { ok: false, findings: problem.findings };
        });
        if (!ended) setAnswer({ wanted, verdict: told });
      } catch (problem) {
        if (!ended) setAnswer({ wanted, error: problem });
      }
    };
    const waiting = setTimeout(check, PAUSE);
    return () => {
      ended = true;
      clearTimeout(waiting);
    };
  }, [wanted]);
  useEffect(() => {
    const places = (verdict?.findings ?? []).filter((one) => one.severity === "error").map((one) => one.place ?? "");
    for (const input of document.querySelectorAll(".field [id^='parameter-']")) {
      const name = input.id.replace("parameter-", "params.");
      input.setAttribute("aria-invalid", String(places.some((place) => place === name || place.startsWith(`${name}.`))));
    }
  }, [verdict]);
  let count = Math.max(1, structures.length);
  try {
    count *= combinationsOf(terms.sweep).length;
  } catch {
    // The verdict says what is wrong.
  }
  const submit = async () => {
    setBusy(true);
    try {
      const given = structures.length ? structures : [null];
      const every = given.flatMap((structure) => combinationsOf(terms.sweep).map((swept) => [structure, swept]));
      const jobs = every.map(([structure, swept], number) => {
        // The same form sent twice, as after a lost answer, gives the same jobs.
        keys.current[wanted] ??= crypto.randomUUID();
        return { ...submissionOf(described, structure, values, terms, swept), key: `page-${keys.current[wanted]}/${number}` };
      });
      const told = [];
      // As many at a time as a browser has connections.
      while (told.length < jobs.length) {
        const some = jobs.slice(told.length, told.length + AT_ONCE);
        told.push(...(await Promise.all(some.map((job) => call("jobs.submit", job)))));
      }
      go(told.length === 1 ? link({ view: "job", id: told[0].job_id }) : link({ view: "jobs" }));
    } catch (problem) {
      const { findings } = problem;
      setAnswer({ wanted, error: problem, verdict: findings?.length ? { ok: false, findings } : null });
    }
    setBusy(false);
  };
  return html`<section class="verdict" aria-live="polite">
    <h2 class=${(error || verdict) && `state ${!error && verdict.ok ? "completed" : "failed"}`}>
      ${error ? "It cannot be submitted" : verdict === null ? "Checking …" : verdict.ok ? "It would be accepted" : "It would be refused"}
    </h2>
    <${Trouble} error=${error} />
    <ul>${verdict?.findings?.map(
      (one) => html`<li class=${one.severity}>${one.message} ${one.remedy && html`<small>${one.remedy}</small>`}</li>`,
    )}</ul>
    <button class="act" disabled=${busy || (verdict && !verdict.ok) || null} onClick=${submit}>
      Submit ${count > 1 ? `${count} jobs` : "it"}
    </button>
    ${verdict?.inputs && html`<details open=${inputsOpen} onToggle=${(event) => setInputsOpen(event.target.open)}>
      <summary>What its programs get</summary><${Steps} inputs=${verdict.inputs} /></details>`}
  </section>`;
}
