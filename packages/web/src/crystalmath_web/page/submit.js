// A form that submits jobs: structures, a recipe, its parameters, where; and the verdicts while one types.

import {
  Trouble, address, change, go, html, link, shortRecipe, useEffect, useMemo, useRef, useState, visible,
} from "./lib.js";
import { Steps } from "./job_parts.js";
import { Misread, Parameters, Place, Told, findingsByPlace, marks, paramsOf, placeOf, placesOf, setIn, useOnce } from "./parameters.js";
import { Structure } from "./structure.js";
import { Structures, useStructureOfJob } from "./structures.js";
import { call } from "./server.js";

/** How long after the last key the server is asked for its verdict, in milliseconds. */
const PAUSE = 500;
const MOST_SHOWN = 60;
/** So many verdicts are asked for at once, and so many of one form; submission judges all. */
const AT_ONCE = 3;
const MOST_CHECKED = 200;
const MOST_JOBS = 10_000; // of one request
/** So many findings are listed beside the form. */
const MOST_FINDINGS = 12;

const NO_TERMS = { name: "", labels: "", cluster: "", walltime: "", sweep: "" };

export function Submit() {
  const recipe = address.value.get("recipe") ?? "";
  const [structures, setStructures] = useState([]);
  const [chosen, setChosen] = useState(null);
  const [values, setValues] = useState({});
  const [terms, setTerms] = useState(NO_TERMS);
  const [described, setDescribed] = useState(null);
  const [error, setError] = useState(null);
  const ofJob = useStructureOfJob(address.value.get("structure"), setStructures);
  useEffect(() => {
    setDescribed(null);
    setError(null);
    setValues({});
    if (!recipe) return undefined;
    let ended = false;
    call("recipes.describe", { recipe: `quacc.recipes.${shortRecipe(recipe)}`, members: true })
      .catch(() => call("recipes.describe", { recipe, members: true }))
      .then((told) => ended || setDescribed(told), (problem) => ended || setError(problem));
    return () => (ended = true);
  }, [recipe]);
  const ready = described && (structures.length || described.structure !== "required");
  const given = described?.structure === "none" ? [] : structures;
  const verdicts = useVerdicts({ described: ready ? described : null, structures: given, values, terms });
  const findings = useMemo(() => findingsByPlace(verdicts.findings, placesOf(described)), [verdicts.findings, described]);
  const press = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.querySelector(".act:enabled")?.click();
  };
  const shown = given.includes(chosen) ? chosen : given[0];
  return html`<div class="submission" onKeyDown=${press}>
    <h1 class="unseen">Submit</h1>
    <div class="form">
      ${described?.structure !== "none" &&
      html`<${Structures} structures=${structures} shown=${shown} findings=${findings} onStructures=${setStructures} onShown=${setChosen} />`}
      <${Trouble} error=${ofJob} />
      <${Recipes} chosen=${recipe} />
      <${Trouble} error=${error} />
      ${described && html`<${Parameters} key=${recipe} described=${described} values=${values} findings=${findings} onValues=${setValues} />`}
      ${described && html`<${Terms} described=${described} terms=${terms} findings=${findings} onTerms=${setTerms} />`}
    </div>
    <div class="beside">
      ${shown?.frame && html`<${Structure} frame=${shown.frame} key=${shown.id} />`}
      ${!ready && html`<p class="empty">${
        !recipe ? "Drop or paste a structure, and choose a recipe." : described ? "This recipe takes a structure: drop a file, or paste one." : error ? "" : "Looking …"
      }</p>`}
      ${ready && html`<${Verdict} verdicts=${verdicts} findings=${findings} onShown=${setChosen} />`}
      ${described && html`<${Documentation} described=${described} />`}
    </div>
  </div>`;
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
  const structure = address.value.get("structure");
  return html`<fieldset><legend>Recipe</legend>
    <input type="search" aria-label="Search recipes" placeholder="relax emt, static vasp, phonon …" value=${text}
      onInput=${(event) => setText(event.target.value)} />
    <ul class="recipes">
      ${found.slice(0, MOST_SHOWN).map(
        (one) => html`<li key=${one.name}>
          <a href=${link({ view: "submit", recipe: one.name, structure })}>${shortRecipe(one.name)}</a> <span class="note">${one.summary}</span>
        </li>`,
      )}
    </ul>
    ${found.length > MOST_SHOWN && html`<small>${found.length - MOST_SHOWN} more: search for some of them</small>`}
    ${recipes && !found.length && html`<p class="note">No recipe fits.</p>`}
  </fieldset>`;
}

const Documentation = ({ described }) => html`<section>
  <h2>${shortRecipe(described.name)}</h2>
  <pre class="doc" tabindex="0">${described.docstring ?? "It has no docstring."}</pre>
</section>`;

// --- the job -----------------------------------------------------------------------------------

function Terms({ described, terms, findings, onTerms }) {
  const inOne = (event) => onTerms((all) => ({ ...all, in_one_job: event.target.checked }));
  const set = (name) => (event) => onTerms((all) => ({ ...all, [name]: event.target.value }));
  const [name, labels, sweep] = ["name", "labels", "sweep"].map((place) => findings.get(place));
  return html`<fieldset><legend>Job</legend>
    <div class="field"><label for="name">Name</label><input id="name" value=${terms.name} onInput=${set("name")} ...${marks("name", name, false)} />
      <${Told} id="name-findings" findings=${name} /></div>
    <div class="field"><label for="labels">Labels</label>
      <input id="labels" value=${terms.labels} onInput=${set("labels")} placeholder="project=alloys set=a" spellcheck=${false} ...${marks("labels", labels, false)} />
      <${Told} id="labels-findings" findings=${labels} /></div>
    <${Place} terms=${terms} findings=${findings} onTerms=${onTerms} />
    <div class="field"><label for="sweep">Sweep</label>
      <textarea id="sweep" rows="2" value=${terms.sweep} onInput=${set("sweep")} spellcheck=${false} placeholder="opt_params.fmax=0.05,0.01" ...${marks("sweep", sweep)}></textarea>
      <small id="sweep-told">A line for each parameter; there is a job for each combination of values, with a label for each value.</small>
      <${Told} id="sweep-findings" findings=${sweep} /></div>
    ${described.kind === "flow" && html`<label><input type="checkbox" onChange=${inOne} /> All steps in one job</label>`}
  </fieldset>`;
}

/** Read the sweep: for each combination of values, the last line varying fastest, the values by name. */
function combinationsOf(text) {
  let all = [{}];
  for (const line of text.split("\n").map((each) => each.trim()).filter(Boolean)) {
    const [, name, given] = /^([\w.]+)=(.+)$/.exec(line) ?? [];
    if (!name) throw Misread.at("sweep", `${visible(line)}: a sweep is written NAME=VALUE,VALUE`);
    let values;
    try {
      values = JSON.parse(`[${given}]`);
    } catch {
      values = given.split(",").map((each) => each.trim());
    }
    if (all.length * values.length > MOST_JOBS) throw Misread.at("sweep", `these are more than ${MOST_JOBS.toLocaleString()} jobs`);
    all = all.flatMap((before) => values.map((value) => ({ ...before, [name]: value })));
  }
  return all;
}

/** Write what is in the form, as the parameters of jobs.submit: one for each structure and combination of values. */
function jobsOf({ described, structures, values, terms }) {
  const params = paramsOf(described, values);
  const place = placeOf(terms);
  const labels = terms.labels.split(/\s+/).filter(Boolean).map((each) => each.split(/=(.*)/s).slice(0, 2));
  if (labels.some((pair) => pair.length < 2)) throw Misread.at("labels", "labels are written NAME=VALUE, with blanks between them");
  const combinations = combinationsOf(terms.sweep);
  const given = structures.length ? structures : [null];
  if (given.length * combinations.length > MOST_JOBS) throw Misread.at("sweep", `these are more than ${MOST_JOBS.toLocaleString()} jobs`);
  return given.flatMap((structure) =>
    combinations.map((swept) => {
      const asked = { recipe: described.name, params, ...place };
      const names = [terms.name || (structures.length > 1 ? structure.name : "")];
      if (structure) asked.structure = structure.sent;
      if (labels.length) asked.labels = Object.fromEntries(labels);
      for (const [name, value] of Object.entries(swept)) {
        const text = typeof value === "string" ? value : JSON.stringify(value);
        asked.params = setIn(asked.params, name.split("."), value);
        asked.labels = { ...asked.labels, [name]: text };
        names.push(`${name}=${text}`);
      }
      const name = names.filter(Boolean).join(" ");
      if (name) asked.name = name;
      if (terms.in_one_job && described.kind === "flow") asked.in_one_job = true;
      return { asked, structure, swept };
    }),
  );
}

// --- the verdicts ------------------------------------------------------------------------------

/** Ask for the verdict of one job; findings of a refused request are a verdict, too. */
async function check(asked, inputs) {
  return call("jobs.check", { ...asked, inputs }).catch((problem) => {
    if (!problem.findings?.length) throw problem;
    return { ok: false, findings: problem.findings };
  });
}

const NOTHING = [];

/** Have each job of the form judged while one types; an answer about another form is none. */
function useVerdicts(form) {
  const [answer, setAnswer] = useState({});
  const wanted = JSON.stringify([form.described?.name, form.structures.map((one) => one.id), form.values, form.terms]);
  const written = useMemo(() => {
    try {
      return { jobs: form.described ? jobsOf(form) : NOTHING, error: null };
    } catch (error) {
      return { jobs: NOTHING, error };
    }
  }, [wanted]);
  useEffect(() => {
    const { jobs } = written;
    let ended = false;
    const told = new Array(Math.min(jobs.length, MOST_CHECKED)).fill(null);
    let next = 0;
    const work = async () => {
      while (next < told.length && !ended) {
        const number = next++;
        const verdict = await check(jobs[number].asked, number === 0).catch((problem) => ({ ok: false, problem, findings: [] }));
        told[number] = verdict;
        if (!ended) setAnswer({ wanted, told: [...told] });
      }
    };
    const waiting = setTimeout(() => Promise.all(Array.from({ length: AT_ONCE }, work)), PAUSE);
    return () => {
      ended = true;
      clearTimeout(waiting);
    };
  }, [wanted]);
  const { told = NOTHING, refused = null } = answer.wanted === wanted ? answer : {};
  const misread = written.error instanceof Misread ? written.error.findings : NOTHING;
  const findings = useMemo(() => [...misread, ...told.flatMap((one) => one?.findings ?? []), ...(refused?.findings ?? [])], [told, misread, refused]);
  const refuse = (error, all = told) => setAnswer({ wanted, told: all, refused: error });
  return { ...written, wanted, told, findings, refused, refuse };
}

/** Go to a field, whatever is folded around it. */
function focusOn(place) {
  const id = place === "cluster" || place === "engine" ? "where" : place === "walltime_s" ? "walltime" : place.replace(/^params\./, "parameter-");
  const field = document.getElementById(id);
  for (let around = field?.closest("details"); around; around = around.parentElement.closest("details")) around.open = true;
  field?.focus();
}

function Verdict({ verdicts, findings, onShown }) {
  const { jobs, error, told, wanted, refused, refuse } = verdicts;
  const [busy, setBusy] = useState(false);
  const [inputsOpen, setInputsOpen] = useState(false);
  const keys = useRef({});
  const known = told.filter(Boolean);
  const wrong = known.filter((one) => !one.ok);
  const trouble = refused ?? known.find((one) => one.problem)?.problem ?? (error instanceof Misread ? null : error);
  const isDone = jobs.length > 0 && known.length === Math.min(jobs.length, MOST_CHECKED);
  const count = Math.max(1, jobs.length);
  const submit = async () => {
    setBusy(true);
    try {
      // The same form sent twice, as after a lost answer, gives the same jobs.
      keys.current[wanted] ??= crypto.randomUUID();
      const sent = jobs.map(({ asked }, number) => ({ ...asked, key: `page-${keys.current[wanted]}/${number}` }));
      const answer = await call("jobs.submit_many", { jobs: sent, all_or_none: true });
      const bad = answer.jobs.filter((one) => one.error && one.code !== "not_submitted");
      if (bad.length) {
        const all = answer.jobs.map((one, number) => (one.error && one.code !== "not_submitted"
          ? { ok: false, findings: one.findings ?? [{ severity: "error", message: one.error, place: one.place ?? null }] } : told[number] ?? { ok: true, findings: [] }));
        refuse(new Error(`None was submitted: ${bad.length === 1 ? "1 job was" : `${bad.length} jobs were`} refused.`), all);
      } else go(answer.jobs.length === 1 ? link({ view: "job", id: answer.jobs[0].job_id }) : link({ view: "jobs" }));
    } catch (problem) {
      refuse(problem);
    }
    setBusy(false);
  };
  const all = [...findings].flatMap(([place, some]) => some.map((one) => [place, one]));
  all.sort(([, one], [, other]) => (one.severity === "error" ? 0 : 1) - (other.severity === "error" ? 0 : 1));
  const judged = count === 1 ? "It" : `${known.length - wrong.length} of ${count.toLocaleString()}`;
  const says = error ? "It cannot be submitted"
    : trouble && !wrong.some((one) => one.findings.length) ? "It cannot be submitted"
    : wrong.length ? (count === 1 ? "It would be refused" : `${wrong.length} of ${count.toLocaleString()} would be refused`)
    : !isDone ? (known.length ? `Checking … ${known.length} of ${count.toLocaleString()}` : "Checking …")
    : `${judged} would be accepted`;
  const mood = error || trouble || wrong.length ? "state failed" : isDone ? "state completed" : "";
  return html`<section class="verdict">
    <div class="decide"><div role="status"><h2 class=${mood}>${says}</h2></div>
      <button class="act" disabled=${busy || !jobs.length || wrong.length > 0 || null} onClick=${submit}>
        ${busy ? "Submitting …" : `Submit ${count > 1 ? `${count.toLocaleString()} jobs` : "it"}`}
      </button></div>
    <div aria-live="polite">
      <${Trouble} error=${trouble} />
      <ul>${all.slice(0, MOST_FINDINGS).map(([place, one]) => html`<li class=${one.severity}>
          ${place && html`<button type="button" class="place" onClick=${() => focusOn(place)}>${place.replace(/^params\./, "").replace("**", "others")}</button> `}${visible(one.message)}
          ${!place && one.remedy && html` <small>${visible(one.remedy)}</small>`}
        </li>`)}</ul>
      ${all.length > MOST_FINDINGS && html`<p class="note">${all.length - MOST_FINDINGS} more</p>`}
    </div>
    ${jobs.length > 1 && html`<${Each} jobs=${jobs} told=${told} onShown=${onShown} />`}
    ${told[0]?.inputs && html`<details open=${inputsOpen} onToggle=${(event) => setInputsOpen(event.target.open)}>
      <summary>What its programs get${jobs.length > 1 ? ": the first job" : ""}</summary><${Steps} inputs=${told[0].inputs} /></details>`}
  </section>`;
}

/** The verdict of each job of many. */
function Each({ jobs, told, onShown }) {
  const sweeps = jobs.some((one) => Object.keys(one.swept).length);
  return html`<div class="each" tabindex="0" role="region" aria-label="Verdicts">
    <table>
      <thead><tr><th scope="col">Structure</th>${sweeps && html`<th scope="col">Values</th>`}<th scope="col">Verdict</th></tr></thead>
      <tbody>${jobs.slice(0, MOST_CHECKED).map(({ structure, swept }, number) => {
        const verdict = told[number];
        const first = verdict?.findings?.find((one) => one.severity === "error") ?? verdict?.findings?.[0];
        return html`<tr key=${number}>
          <td>${structure ? html`<button type="button" class="quiet" onClick=${() => onShown(structure)}>${structure.name}</button>` : "none"}</td>
          ${sweeps && html`<td>${Object.entries(swept).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(" ")}</td>`}
          <td>${verdict ? html`<span class=${`state ${verdict.ok ? "completed" : "failed"}`}>${verdict.ok ? "accepted" : "refused"}</span>
            ${first && html`<small class=${first.severity}> ${visible(first.message)}</small>`}` : html`<span class="note">…</span>`}</td>
        </tr>`;
      })}</tbody>
    </table>
    ${jobs.length > MOST_CHECKED && html`<p class="note">The other ${(jobs.length - MOST_CHECKED).toLocaleString()} are judged as they are submitted: all, or none of them.</p>`}
  </div>`;
}
