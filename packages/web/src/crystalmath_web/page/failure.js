// Why a job failed, in words, and the repairs that fit: each prepared as a form, and judged before it is sent.

import {
  Copy, State, Trouble, html, link, shortId, useEffect, useMemo, useRef, useState, visible,
} from "./lib.js";
import { Field, Place, findingsByPlace, paramsOf, placeOf, placesOf, schemaAt, spanText, valueAt } from "./parameters.js";
import { call, session } from "./server.js";

/** How long after the last key the server is asked whether it would take a repair, in milliseconds. */
const PAUSE = 500;
/** So many last lines of a traceback are shown. */
const LAST = 12;
/** A relaxation that was cut after few steps gets at least so many. */
const FEW_STEPS = 100;
const DEFAULT_NELM = 60; // of VASP
const DEFAULT_MAXSTEP = 100; // of pw.x

// --- causes ------------------------------------------------------------------------------------

/**
 * What errors mean, the most certain first. `says` is for people; `repairs` name the functions below, the most
 * likely one first.
 */
const CAUSES = [
  [/atoms overlap|the energy is absurd/, "The geometry ran away: atoms came too close, or the energy became absurd. Going on from there is in vain.", ["smaller", "again"]],
  [/walltime of its allocation is over/, "The allocation of the cluster ended before the calculation did.", ["longer", "elsewhere", "again"]],
  [/the walltime .*is over/, "The calculation took longer than its walltime, and was stopped.", ["longer", "elsewhere", "again"]],
  [/recipe had not begun after/, "The recipe did not begin in time: its imports, or the file system of the libraries, were too slow.", ["again", "elsewhere"]],
  [/want of memory|out of memory|MemoryError|Cannot allocate memory|std::bad_alloc|insufficient virtual memory/i, "The calculation needed more memory than there was.", ["memory", "elsewhere", "again"]],
  [/No space left on device|Disk quota exceeded/, "The disk was full.", ["again", "elsewhere"]],
  [/convergence NOT achieved|(SCF|electronic|self-consisten\w+).*\bnot (converge|achieved)|not converge.*\b(SCF|electronic)/i, "The electronic iterations (SCF) did not converge.", ["scf", "again"]],
  [/Optimization did not converge|maximum number of steps has been reached|not converge/i, "The relaxation did not converge: it used up its steps before the forces were small enough.", ["steps", "looser", "again"]],
  [/ZBRENT/, "VASP's conjugate gradients (ZBRENT) found no minimum along their line; from the last geometry they mostly do.", ["onwards", "again"]],
  [/EDDDAV|ZHEGV|ZPOTRF|PRICEL|BRMIX|DENTET|LAPACK: Routine/i, "VASP's electronic solver broke down. Another algorithm often helps.", ["solver", "again"]],
  [/error while loading shared libraries|: command not found\b|: not found$|execvp|unable to find the specified executable|No such file or directory: '[^']*(vasp|pw|\.x)/m, "The program could not be started on that machine.", ["elsewhere", "again"]],
  [/not enough slots available/, "The job asked for more ranks than the machine gave it.", ["resources", "elsewhere"]],
  [/ModuleNotFoundError|ImportError/, "A Python package that the recipe needs is missing where the job ran.", ["elsewhere", "again"]],
  [/^lost:|was lost|supervisor .*died|killed by signal|nobody runs it|the engine lost it/, "The job's process, or its machine, went down. The calculation itself is not at fault.", ["onwards", "again", "elsewhere"]],
  [/^StepFailed:/, "A step of the flow failed.", ["again"]],
  [/TypeError: .*unexpected keyword argument|TypeError: .*missing .* argument/, "A parameter does not fit the recipe.", ["again"]],
  [/sys\.exit/, "The recipe ended Python itself.", ["again"]],
];
const UNKNOWN = ["The recipe raised an error.", ["again", "onwards"]];

/** Return what an error means, and the names of the repairs that fit. */
export function causeOf(error) {
  const [, says, repairs] = CAUSES.find(([pattern]) => pattern.test(error ?? "")) ?? [null, ...UNKNOWN];
  return { says, repairs };
}

// --- repairs -----------------------------------------------------------------------------------

/** Return the name of the parameter that limits the ionic steps, and a value that gives it more. */
function moreSteps({ described, params, steps }) {
  for (const path of ["opt_params.max_steps", "nsw", "input_data.control.nstep"]) {
    const schema = schemaAt(described, path);
    if (!schema) continue;
    const now = Number(valueAt(params, path) ?? schema.default ?? steps ?? FEW_STEPS);
    return [path, Math.max(FEW_STEPS, 2 * (Number.isFinite(now) ? now : FEW_STEPS))];
  }
  return null;
}

/**
 * The repairs: each returns the form that it prepares, or null where it does not fit the job. `values` are
 * parameters by their dotted names, `terms` the place, `continued` that the last geometry is the first.
 */
const REPAIRS = {
  steps: (subject) => {
    const found = moreSteps(subject);
    return found && { title: "More steps, from the last geometry", values: { [found[0]]: found[1] }, continued: true };
  },
  looser: (subject) => {
    const schema = schemaAt(subject.described, "opt_params.fmax");
    const now = Number(valueAt(subject.params, "opt_params.fmax") ?? schema?.default);
    return schema && now > 0 ? { title: "A looser threshold of the forces", values: { "opt_params.fmax": Number((2 * now).toPrecision(3)) }, continued: true } : null;
  },
  smaller: ({ described }) =>
    schemaAt(described, "opt_params.optimizer_kwargs")
      ? { title: "Smaller steps, from the beginning", values: { "opt_params.optimizer_kwargs": '{"maxstep": 0.05}' } }
      : schemaAt(described, "potim") ? { title: "Smaller steps, from the beginning", values: { potim: 0.2 } } : null,
  longer: ({ job }) => ({
    title: "A longer walltime", continued: true, place: true, terms: { walltime: job.walltime_s ? spanText(2 * job.walltime_s) : "" },
  }),
  memory: ({ job }) => ({
    title: "More memory", place: true, terms: { memory_mb: job.resources?.memory_mb ? String(2 * job.resources.memory_mb) : "" },
  }),
  resources: () => ({ title: "Other resources", place: true }),
  elsewhere: ({ places }) => (places > 1 ? { title: "On another cluster", place: true } : null),
  scf: ({ described, params }) => {
    if (schemaAt(described, "nelm")) {
      return { title: "More electronic steps, and a steadier algorithm", values: { nelm: 2 * (Number(params.nelm) || DEFAULT_NELM), algo: "All" } };
    }
    const path = "input_data.electrons.electron_maxstep";
    if (!schemaAt(described, path)) return null;
    const now = Number(valueAt(params, path)) || DEFAULT_MAXSTEP;
    return { title: "More electronic steps, and a gentler mixing", values: { [path]: 2 * now, "input_data.electrons.mixing_beta": 0.3 } };
  },
  solver: ({ described, params }) =>
    schemaAt(described, "algo") ? { title: "Another electronic algorithm", values: { algo: String(params.algo).toLowerCase() === "normal" ? "All" : "Normal" } } : null,
  onwards: () => ({ title: "Again, from the last geometry", continued: true }),
  again: () => ({ title: "Again, as it was" }),
};

const textOf = (value) => (typeof value === "string" ? value : JSON.stringify(value));

/** List the repairs of a job, prepared; those of a step are changes of its flow. */
function repairsOf(names, subject) {
  return names.flatMap((name) => {
    const found = REPAIRS[name](subject);
    if (!found) return [];
    const { values = {}, ...rest } = found;
    // A flow takes over the steps that completed, and has no geometry of its own to go on from.
    if (subject.step) {
      if (name === "onwards") return [];
      Object.assign(rest, { continued: undefined, title: rest.title.replace(", from the last geometry", "") });
    }
    return [{ name, terms: {}, ...rest, values: Object.fromEntries(Object.entries(values).map(([path, value]) => [path, textOf(value)])) }];
  });
}

// --- what is shown -----------------------------------------------------------------------------

const STEP = /^StepFailed: step (\S+) \(job ([0-9a-f-]{36})\)/;

/** Ask for all that belongs to a failure: of a flow also for the step at which it failed. */
function useFailure(job, story) {
  const [state, setState] = useState({});
  useEffect(() => {
    let ended = false;
    const read = async () => {
      const step = STEP.exec(job.error ?? "");
      const id = step?.[2] ?? job.job_id;
      const [specification, result, own, engines, clusters] = await Promise.all([
        call("jobs.specification", { job_id: id, job: true, progress: true }).catch(() => null),
        call("jobs.result", { job_id: id, brief: true }).catch(() => null),
        step ? call("jobs.result", { job_id: job.job_id, brief: true }).catch(() => null) : null,
        call("engines.list").then((told) => told.engines.filter((one) => one.loads).length, () => 0),
        call("clusters.list").then((told) => told.clusters.length, () => 0),
      ]);
      const subject = specification?.job ?? job;
      const described = await call("recipes.describe", { recipe: subject.recipe, members: true }).catch(() => ({ parameters: null }));
      if (ended) return;
      setState({
        job: subject, described, params: specification?.params ?? story.params, progress: specification?.progress ?? null,
        steps: specification?.progress?.ionic_step, places: engines + clusters, traceback: result?.traceback ?? own?.traceback ?? "", step: step && { name: step[1], id },
      });
    };
    read().catch((error) => ended || setState({ error }));
    return () => (ended = true);
  }, [job.job_id, job.status, job.revision]);
  return state;
}

/** The place of the failing calculation, in words: its number, and its last steps. */
function calculationOf(progress) {
  if (!progress) return null;
  const parts = [progress.calculation > 0 && `calculation ${progress.calculation} (${progress.program})`];
  if (progress.ionic_step !== null) parts.push(`ionic step ${progress.ionic_step}`);
  if (progress.electronic_step !== null) parts.push(`electronic step ${progress.electronic_step}`);
  return parts.filter(Boolean).join(", ");
}

/** List the job's own files that belong to a failure: the program's output, and those that its error cites. */
function filesOf(job, progress) {
  const cited = [...(job.error ?? "").matchAll(/^the end of (\S+):$/gm)].map(([, name]) => name);
  const own = progress && !progress.file.startsWith("/") ? [progress.file] : [];
  return [...new Set([...own, ...cited.filter((name) => !own.some((file) => file.endsWith(name)))])];
}

const fileLink = (job, file) => link({ view: "job", id: job.job_id, part: "files", file });

/** Show the end of a long text: the error is there. */
const toEnd = ({ currentTarget }) => {
  const box = currentTarget.querySelector("pre");
  box.scrollTop = box.scrollHeight;
};

export function Failure({ job, story }) {
  const failure = useFailure(job, story);
  const subject = failure.job ?? job;
  const cause = causeOf(subject.error);
  const [first, ...rest] = (job.error ?? "").split("\n");
  const lines = (failure.traceback ?? "").trimEnd().split("\n");
  const files = filesOf(subject, failure.progress);
  const where = calculationOf(failure.progress);
  return html`<section class="failure" aria-label="Why it failed">
    <div class="why">
      <h2>Why it failed</h2>
      <p class="cause">${cause.says}</p>
      <pre class="trouble">${visible(first)} <${Copy} text=${job.error} what="the error" /></pre>
      <dl>
        ${failure.step && html`<dt>Failing step</dt><dd><a href=${link({ view: "job", id: failure.step.id })}>${visible(failure.step.name)}</a></dd>`}
        ${where && html`<dt>Stood at</dt><dd>${visible(where)}</dd>`}
        ${files.length > 0 && html`<dt>${files.length > 1 ? "Files" : "File"}</dt>
          <dd>${files.map((file) => html`<a href=${fileLink(subject, file)}>${visible(file)}</a> `)}</dd>`}
        <dt>Log</dt><dd><a href=${link({ view: "job", id: subject.job_id, part: "log" })}>the job's log</a></dd>
      </dl>
      ${rest.length > 0 && html`<details open><summary>What the program wrote last</summary><pre class="code" tabindex="0">${visible(rest.join("\n"))}</pre></details>`}
      ${failure.traceback && html`<details onToggle=${toEnd}><summary>Traceback, the last lines</summary>
        <pre class="code" tabindex="0">${visible(lines.slice(-LAST).join("\n"))}</pre>
        <p class="note">${lines.length > LAST && html`<a href=${link({ view: "job", id: subject.job_id, part: "result" })}>all ${lines.length} lines</a> `}
          <${Copy} text=${failure.traceback} what="the traceback" /></p></details>`}
    </div>
    <div class="repair">
      <h2>Repair</h2>
      ${job.superseded_by ? html`<${Repaired} id=${job.superseded_by} />`
      : session.value.read_only ? html`<p class="note">This page is read-only.</p>`
      : failure.error ? html`<${Trouble} error=${failure.error} />`
      : !failure.described ? html`<p class="note">Looking …</p>`
      : html`<${Repairs} key=${job.job_id} job=${job} subject=${failure} names=${cause.repairs} />`}
    </div>
  </section>`;
}

/** The job that has taken this one's place. */
function Repaired({ id }) {
  const [job, setJob] = useState(null);
  useEffect(() => {
    let ended = false;
    call("jobs.status", { job_id: id }).then((told) => ended || setJob(told), () => null);
    return () => (ended = true);
  }, [id]);
  return html`<p>It was repaired: <a href=${link({ view: "job", id })}>${visible(job?.name ?? "")} job ${shortId(id)}</a>
    ${job && html` <${State} state=${job.status} />`}, which counts in its place.</p>`;
}

/** The repairs to choose from, and the form of the chosen one. */
function Repairs({ job, subject, names }) {
  const repairs = useMemo(() => repairsOf(names, subject), [subject, names]);
  const [name, setName] = useState(null);
  const chosen = repairs.find((one) => one.name === name) ?? repairs[0];
  return html`<fieldset class="choices-of-repair"><legend>The repairs that fit</legend>
      ${repairs.map((one) => html`<label key=${one.name}>
        <input type="radio" name="repair" checked=${one === chosen} onChange=${() => setName(one.name)} /> ${one.title}
      </label>`)}
    </fieldset>
    <${Form} key=${chosen.name} job=${job} subject=${subject} repair=${chosen} />`;
}

/** A repair as a form: its values can be changed, and the server says whether it would take them. */
function Form({ job, subject, repair }) {
  const { described, params, step } = subject;
  // Of a flow, the name of the step's function leads to the parameters of its steps.
  const stepName = step && step.name.split("/").at(-1).split("#")[0];
  const [values, setValues] = useState(repair.values);
  const [terms, setTerms] = useState(repair.terms);
  const [continued, setContinued] = useState(repair.continued);
  const [answer, setAnswer] = useState({});
  const [busy, setBusy] = useState(false);
  const [anew, setAnew] = useState(false);
  const touched = useRef(false);
  const key = useRef({});
  const goOn = (event) => {
    touched.current = true;
    setContinued(event.target.checked);
  };
  const wanted = JSON.stringify([values, terms, continued]);
  const written = useMemo(() => {
    try {
      let changed = paramsOf(described, values);
      if (stepName && Object.keys(changed).length) changed = { [stepName]: changed };
      return { asked: { ...(Object.keys(changed).length && { params: changed }), ...placeOf(terms), ...(continued && { continued: true }) } };
    } catch (error) {
      return { error };
    }
  }, [wanted]);
  useEffect(() => {
    if (!written.asked) return undefined;
    let ended = false;
    const waiting = setTimeout(async () => {
      const told = await call("jobs.retry", { job_ids: [job.job_id], dry_run: true, ...written.asked }).then(
        ({ jobs: [one] }) => one,
        (error) => ({ status: "error", error: error.message, findings: error.findings }),
      );
      if (ended) return;
      // What was prepared is taken back where the job has left no geometry.
      if (continued && !touched.current && /cannot be continued/.test(told.error ?? "")) {
        setAnew(true);
        setContinued(false);
      } else setAnswer({ wanted, told });
    }, PAUSE);
    return () => {
      ended = true;
      clearTimeout(waiting);
    };
  }, [wanted]);
  const told = answer.wanted === wanted ? answer.told : null;
  const found = written.error ? (written.error.findings ?? []) : (told?.findings ?? []);
  const findings = findingsByPlace(found, placesOf(described));
  const isGood = told && told.status !== "error";
  const act = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      // The same form sent twice, as after a lost answer, gives the same job.
      key.current[wanted] ??= `page-${crypto.randomUUID()}`;
      const { jobs: [one] } = await call("jobs.retry", { job_ids: [job.job_id], key: key.current[wanted], ...written.asked });
      setAnswer({ wanted, told: one, done: one.job_id });
    } catch (error) {
      setAnswer({ wanted, told: { status: "error", error: error.message, findings: error.findings } });
    }
    setBusy(false);
  };
  if (answer.done) return html`<div role="status"><${Repaired} id=${answer.done} /></div>`;
  const set = (path) => (text) => setValues((all) => ({ ...all, [path]: text }));
  return html`<form class="prepared" onSubmit=${act}>
    ${Object.keys(values).map((path) => html`<${Field} key=${path} path=${path} label=${stepName ? `${stepName}: ${path}` : path} schema=${schemaAt(described, path) ?? {}} value=${values[path]}
      before=${valueAt(params, path)} findings=${findings.get(`params.${path}`)} onValue=${set(path)} />`)}
    ${repair.place && html`<${Place} terms=${terms} before=${job} findings=${findings} onTerms=${setTerms} />`}
    ${continued !== undefined && html`<label><input type="checkbox" checked=${continued} onChange=${goOn} /> Go on from the last geometry</label>`}
    ${anew && !continued && html`<p class="note">It left no geometry from which the next one could go on, so that one begins anew.</p>`}
    <div aria-live="polite">
      ${written.error ? html`<p class="trouble" role="alert">${written.error.message}</p>`
      : !told ? html`<p class="note">Checking …</p>`
      : isGood ? html`<p class="state completed">It would be accepted, as a new job; this one stays.</p>`
      : html`<p class="trouble" role="alert">${visible(told.error ?? "")}</p>`}
    </div>
    <button type="submit" class="act" disabled=${busy || !isGood}>${busy ? "Submitting …" : "Run the repair"}</button>
  </form>`;
}
