// What the home is doing, and what it can do.

import { STATES, State, Trouble, bytes, duration, html, link, now, shortId, useEffect, useState } from "./lib.js";
import { quoted } from "./filters.js";
import { call } from "./server.js";

/** Ask for something now, and again after so many seconds where that is said. */
function useAnswer(method, params, seconds) {
  const [answer, setAnswer] = useState({});
  useEffect(() => {
    let ended = false;
    const ask = () =>
      call(method, params).then(
        (told) => ended || setAnswer({ told }),
        (error) => ended || setAnswer((before) => ({ ...before, error })),
      );
    ask();
    const again = seconds && setInterval(ask, seconds * 1000);
    return () => {
      ended = true;
      clearInterval(again);
    };
  }, []);
  return answer;
}

export function Home() {
  return html`<div class="cards">
    <h1 class="unseen">Home</h1>
    <${Server} />
    <${Engines} />
    <${Clusters} />
    <${Ended} />
    <${Failures} />
    <${Doctor} />
  </div>`;
}

const Card = ({ title, answer, children }) => html`<section class="card">
  <h2>${title}</h2>
  <${Trouble} error=${answer.error} />
  ${answer.told ? children : !answer.error && html`<p class="note">Looking …</p>`}
</section>`;

function Server() {
  const answer = useAnswer("system.status", {}, 5);
  const version = useAnswer("system.version", {});
  const { jobs, disk, backlog = {}, workers = {}, engines = {} } = answer.told ?? {};
  return html`<${Card} title="Server" answer=${answer}>
    <dl>
      <dt>Home</dt><dd>${version.told?.home} on ${version.told?.host}</dd>
      <dt>Version</dt><dd>${version.told?.version}, Python ${version.told?.python}</dd>
      <dt>Jobs</dt><dd>${jobs?.running} running, ${jobs?.pending} waiting</dd>
      ${Object.keys(workers).map(
        (name) => html`<dt>${name}</dt><dd>${workers[name]} at a time, ${backlog[name] ?? 0} wait to begin</dd>`,
      )}
      ${Object.entries(engines).filter(([, word]) => word.startsWith("broken")).map(
        ([name, word]) => html`<dt>${name}</dt><dd class="trouble">${word}</dd>`,
      )}
      ${disk && html`<dt>Disk</dt><dd class=${disk.full ? "trouble" : ""}>
        ${bytes(disk.free)} free of ${bytes(disk.size)}
        <meter min="0" max=${disk.size} value=${disk.size - disk.free} aria-label="Used of the disk"></meter>
      </dd>`}
    </dl>
  <//>`;
}

function Engines() {
  const answer = useAnswer("engines.list", {});
  return html`<${Card} title="Engines" answer=${answer}>
    <table><tbody>
      ${answer.told?.engines.map(
        (one) => html`<tr>
          <th scope="row">${one.name}</th><td>${one.distribution} ${one.version}</td>
          <td class="state bare">${one.loads ? (one.configured ? "default" : "ready") : "cannot load"}</td>
          <td class="trouble">${[one.error, ...one.findings.map((each) => each.message)].filter(Boolean).join("; ")}</td>
        </tr>`,
      )}
    </tbody></table>
  <//>`;
}

function Clusters() {
  const answer = useAnswer("clusters.list", {});
  const all = answer.told?.clusters ?? [];
  return html`<${Card} title="Clusters" answer=${answer}>
    ${all.length
      ? html`<table><tbody>
          ${all.map(
            (one) => html`<tr>
              <th scope="row">${one.name}</th><td>${one.engine}, ${one.scheduler}</td>
              <td class="number">${duration(one.walltime_s)}</td><td class="trouble">${one.error ?? one.trouble}</td>
            </tr>`,
          )}
        </tbody></table>`
      : html`<p class="note">Every engine has one named local; config.toml has no other.</p>`}
  <//>`;
}

function Ended() {
  const answer = useAnswer("jobs.counts", { bucket_s: 3600 }, 30);
  const buckets = answer.told?.buckets ?? [];
  const sum = (bucket) => Object.values(bucket.states).reduce((one, other) => one + other, 0);
  const most = Math.max(1, ...buckets.map(sum));
  const ended = STATES.slice(2);
  return html`<${Card} title="Ended in the last day" answer=${answer}>
    <ol class="bars" aria-label="Jobs that ended in each hour">
      ${buckets.map(
        (bucket) => html`<li key=${bucket.at} title=${`${duration(now.value - bucket.at)} ago: ${sum(bucket)} ended`}>
          ${ended.map((state) => html`<i class=${state} style=${{ height: `${(100 * (bucket.states[state] ?? 0)) / most}%` }}></i>`)}
        </li>`,
      )}
    </ol>
    <p>${ended.map((state) => html`<span><${State} state=${state} /> ${answer.told?.states[state] ?? 0} </span>`)}</p>
  <//>`;
}

/** Return a search that finds the jobs of a group of errors, and no others. */
const searchOf = (error) => `failure:${quoted(error.trim().split("\n")[0])}`;

function Failures() {
  const answer = useAnswer("jobs.summary", {}, 30);
  const groups = answer.told?.errors ?? [];
  return html`<${Card} title="Failures by their error" answer=${answer}>
    ${groups.length
      ? html`<ul class="failures">
          ${groups.map(
            (group) => html`<li>
              <a href=${link({ q: searchOf(group.error), state: "failed", columns: "name,state,formula,recipe,created_at,error" })}><b>${group.count.toLocaleString()}</b></a> <span>${group.error}</span>
              ${group.job_ids.slice(0, 3).map((id) => html` <a href=${link({ view: "job", id })}>${shortId(id)}</a>`)}
            </li>`,
          )}
        </ul>`
      : html`<p class="note">No job has failed.</p>`}
  <//>`;
}

/** Return the checks that no other card shows: that of failures, and of a disk that has room. */
const checksOf = (told) => (told?.checks ?? []).filter(({ name, state }) => name !== "failed" && !(name === "disk" && state === "ok"));

function Doctor() {
  const answer = useAnswer("system.doctor", {});
  return html`<${Card} title="Doctor" answer=${answer}>
    <table><tbody>
      ${checksOf(answer.told).map(
        (one) => html`<tr>
          <th scope="row">${one.name}</th><td class=${`state bare ${{ ok: "", warning: "cancelled" }[one.state] ?? "failed"}`}>${one.state}</td>
          <td>${one.message} <small>${one.remedy}</small></td>
        </tr>`,
      )}
    </tbody></table>
  <//>`;
}
