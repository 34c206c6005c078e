// The palette of commands (Ctrl-K): jobs, recipes, saved views, and all that the present view can do.

import { STATES, go, html, link, nameOf, shortId, shortRecipe, useEffect, useLayoutEffect, useRef, useState } from "./lib.js";
import { filtersOf } from "./filters.js";
import { call, session } from "./server.js";
import { askViews, views } from "./views.js";

/** How long after the last key jobs are looked for, in milliseconds. */
const TYPED = 120;
/** No more of one kind is shown. */
const MOST = 8;
/** What the present view offers as buttons, and as links that look so. */
const BUTTONS = [
  ".title button", ".actions button:not(.quiet)", ".actions a.button", ".search > a", ".prepared .act", "[aria-label^=Export]",
].map((one) => `main ${one}`).join();

let recipes = null;

/** Return what can be done here, each with its title and kind, and `href` or `act`. */
function actionsHere() {
  const here = [...document.querySelectorAll(BUTTONS)].filter((one) => !one.disabled && one.textContent.trim());
  const ways = [
    ["Jobs", { view: "jobs" }],
    !session.value.read_only && ["Submit a job", { view: "submit" }],
    ["Activity", { view: "activity" }],
    ["Home", { view: "home" }],
    ...["day", "week"].map((span) => [`Jobs of the last ${span}`, { view: "jobs", q: `since:${span === "day" ? 1 : 7}d` }]),
    ...STATES.map((state) => [`Jobs that are ${state}`, { view: "jobs", state }]),
  ];
  return [
    ...here.map((one) => ({ kind: "here", title: one.ariaLabel || one.textContent.trim(), act: () => one.click() })),
    ...ways.filter(Boolean).map(([title, target]) => ({ kind: "go to", title, href: link(target) })),
    ...views.value.map((one) => ({ kind: "view", title: one.name, href: one.address })),
  ];
}

/** Return those whose title has all words, titles that begin with the text first. */
function fitting(all, text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const begins = (one) => one.title.toLowerCase().startsWith(words[0] ?? "");
  const found = all.filter((one) => words.every((word) => one.title.toLowerCase().includes(word)));
  return [...found.filter(begins), ...found.filter((one) => !begins(one))];
}

async function jobsFor(text) {
  const { filters, wrong } = filtersOf(text);
  if (wrong || !text.trim()) return [];
  const { jobs } = await call("jobs.list", { ...filters, limit: MOST, fields: ["name", "status", "formula"] });
  return jobs.map((job) => ({
    kind: "job", title: nameOf(job), note: [job.formula, shortId(job.job_id)].filter(Boolean).join(" · "),
    state: job.status, href: link({ view: "job", id: job.job_id }),
  }));
}

export function Palette({ onClose }) {
  const dialog = useRef();
  const [text, setText] = useState("");
  const [jobs, setJobs] = useState([]);
  const [known, setKnown] = useState(recipes ?? []);
  const [at, setAt] = useState(0);
  // What the view offers does not change while the dialog is before it.
  const [here, setHere] = useState(actionsHere);
  // Before the next key comes.
  useLayoutEffect(() => dialog.current.showModal(), []);
  useEffect(() => {
    askViews().then(() => setHere(actionsHere()), () => null);
    if (!recipes) {
      call("recipes.list").then(
        (told) => {
          recipes = told.recipes.map((one) => ({
            kind: "recipe", title: shortRecipe(one.name), note: one.summary, href: link({ view: "submit", recipe: one.name }),
          }));
          setKnown(recipes);
        },
        () => null, // all else can still be found
      );
    }
  }, []);
  useEffect(() => {
    let ended = false;
    const show = (found) => ended || setJobs(found);
    const waiting = setTimeout(() => jobsFor(text).then(show, () => show([])), TYPED);
    return () => {
      ended = true;
      clearTimeout(waiting);
    };
  }, [text]);
  const offered = session.value.read_only || !text.trim() ? [] : fitting(known, text).slice(0, MOST);
  const search = text.trim() ? [{ kind: "search", title: text.trim(), href: link({ view: "jobs", q: text.trim() }) }] : [];
  const found = [...fitting(here, text), ...jobs, ...offered, ...search];
  const chosen = Math.min(at, found.length - 1);
  const take = (one, apart) => {
    if (apart && one.href) {
      window.open(one.href, "_blank", "noopener");
      return;
    }
    dialog.current.close();
    if (one.href) go(one.href);
    else one.act();
  };
  const press = (event) => {
    const moves = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in moves && found.length) setAt((chosen + moves[event.key] + found.length) % found.length);
    else if (event.key === "Enter" && found[chosen]) take(found[chosen], event.ctrlKey || event.metaKey);
    else return;
    event.preventDefault();
  };
  useEffect(() => document.getElementById(`command-${chosen}`)?.scrollIntoView({ block: "nearest" }), [chosen]);
  const type = (event) => {
    setText(event.target.value);
    setAt(0);
  };
  return html`<dialog class="palette" aria-label="Commands" ref=${dialog} onClose=${onClose}
    onClick=${(event) => event.target === dialog.current && dialog.current.close()}>
    <input type="text" role="combobox" aria-label="Command, job or recipe" aria-expanded="true" aria-controls="commands" aria-autocomplete="list"
      aria-activedescendant=${found.length ? `command-${chosen}` : null} placeholder="a command, job, recipe, or recipe:emt state:failed …"
      spellcheck="false" autocomplete="off" autofocus value=${text} onInput=${type} onKeyDown=${press} />
    <ul id="commands" role="listbox" aria-label="Found">
      ${found.map(
        (one, index) => html`<li key=${`${one.kind} ${one.title} ${one.href}`} id=${`command-${index}`} role="option" aria-selected=${String(index === chosen)}
          onMouseMove=${() => setAt(index)} onClick=${(event) => take(one, event.ctrlKey || event.metaKey)}>
          <small>${one.kind}</small><span class=${one.state ? `state ${one.state}` : ""}>${one.title}</span><small class="more">${one.note}</small>
        </li>`,
      )}
    </ul>
  </dialog>`;
}
