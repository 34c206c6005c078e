// The frame of all views: who may see them, which one is shown, and the keys that lead to each.

import { Fragment, address, go, html, link, render, useEffect, useRef } from "./lib.js";
import { enter, follow, following, refused, session } from "./server.js";
import { Home } from "./home.js";
import { Job } from "./job.js";
import { Jobs } from "./jobs.js";
import { Study } from "./study.js";
import { Submit } from "./submit.js";

const VIEWS = { jobs: Jobs, job: Job, study: Study, submit: Submit, home: Home };
const NAMES = [
  ["jobs", "Jobs", "j"],
  ["submit", "Submit", "s"],
  ["home", "Home", "h"],
];
/** Views that are reached from the table of jobs: it is lit in the navigation. */
const OF_JOBS = ["job", "study"];
const TITLES = { jobs: "Jobs", study: "Study", submit: "Submit", home: "Home" };
const KEYS = [
  ["g j, g s, g h", "jobs, submit, home"],
  ["g t", "study the jobs that are shown, or chosen"],
  ["1, 2, 3 …", "the tabs of a job; the views of a study"],
  ["/", "search jobs, or recipes"],
  ["↓ ↑, j k, Page Up, Page Down, Home, End", "move in the table"],
  ["Enter", "open the job"],
  ["Space, x", "choose the job, or not"],
  ["← → ↑ ↓, + −", "turn the structure that has the focus, and zoom"],
  ["Ctrl Enter", "submit the form"],
  ["Escape", "close what is open; else choose no job"],
  ["?", "these keys"],
];

function Frame() {
  const keys = useRef();
  const named = address.value.get("view") ?? "jobs";
  const view = Object.hasOwn(VIEWS, named) ? named : "jobs";
  useEffect(() => listen(() => keys.current.showModal()), []);
  useEffect(() => {
    // The page of a job writes its name and state.
    if (TITLES[view]) document.title = `${TITLES[view]} · CrystalMath jobs`;
  }, [view]);
  if (refused.value) return html`<main class="refused"><h1>CrystalMath jobs</h1><p>${refused.value}</p></main>`;
  if (!session.value) return null;
  const Shown = VIEWS[view];
  const current = (name) => (name === view ? "page" : name === "jobs" && OF_JOBS.includes(view) ? "true" : null);
  const offered = NAMES.filter(([name]) => name !== "submit" || !session.value.read_only);
  return html`<${Fragment}>
    <header>
      <nav aria-label="Views">
        ${offered.map(
          ([name, title]) =>
            html`<a href=${link({ view: name })} aria-current=${current(name)}>${title}</a>`,
        )}
      </nav>
      ${session.value.read_only && html`<span class="note">read-only</span>`}
      <span class=${`link ${following.value ? "on" : "off"}`} role="status">
        ${following.value ? "live" : "not connected"}
      </span>
      <button class="quiet" aria-label="Keys" onClick=${() => keys.current.showModal()}>?</button>
    </header>
    <main class=${view}><${Shown} /></main>
    <dialog ref=${keys} aria-label="Keys">
      <h2>Keys</h2>
      <dl>${KEYS.map(([key, does]) => html`<dt>${key}</dt><dd>${does}</dd>`)}</dl>
      <form method="dialog"><button>Close</button></form>
    </dialog>
  <//>`;
}

/** Listen to the keys that mean the same in every view. */
function listen(showKeys) {
  let before = "";
  const press = (event) => {
    const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
      event.preventDefault();
      event.stopPropagation();
      return;
    }
    if (event.target.matches("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (document.querySelector("dialog[open]")) return;
    const found = before === "g" && NAMES.find(([, , key]) => key === event.key);
    const part = /^[1-9]$/.test(event.key) && document.querySelectorAll(".parts > *")[event.key - 1];
    if (found) go(link({ view: found[0] }));
    else if (before === "g" && event.key === "t") {
      // The last one is that of the chosen jobs.
      go([...document.querySelectorAll("main a[href*='view=study']")].at(-1)?.getAttribute("href") ?? link({ view: "study" }));
    } else if (part) part.click();
    else if (event.key === "?") showKeys();
    else if (event.key === "/") {
      const search = document.querySelector("input[type=search]");
      if (!search) return;
      search.focus();
    } else {
      before = event.key;
      return;
    }
    before = "";
    event.preventDefault();
    event.stopPropagation();
  };
  const leave = (event) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  };
  addEventListener("keydown", press, true);
  addEventListener("click", leave);
  return () => {
    removeEventListener("keydown", press, true);
    removeEventListener("click", leave);
  };
}

await enter();
render(html`<${Frame} />`, document.body);
if (session.value) follow();
