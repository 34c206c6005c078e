// The page's session, and its requests to the home's server.

import { signal, useEffect, useRef } from "./lib.js";

/** What the server has said of itself; null before, and where nobody has let the page in. */
export const session = signal(null);
/** Why the page is not let in, for people. */
export const refused = signal("");
/** Whether changes of jobs are followed just now. */
export const following = signal(false);

const STORED = "crystalmath-session";

/** An answer that says what is wrong. */
class CallError extends Error {
  constructor(document) {
    super(document.error);
    this.code = document.code;
    this.findings = document.findings ?? [];
  }
}

function post(path, body, more = {}) {
  const headers = { "Content-Type": "application/json", ...more.headers };
  if (session.value) headers["X-CrystalMath-Key"] = session.value.key;
  return fetch(path, { method: "POST", body: JSON.stringify(body), ...more, headers }).catch((problem) => {
    if (!(problem instanceof TypeError)) throw problem;
    throw new Error("The page's server does not answer: `crystalmath ui` has ended, or the way to it is cut.");
  });
}

/** Exchange the token of the address for a session, or go on with the one that this page has. */
export async function enter() {
  const token = location.hash.slice(1);
  if (token) {
    // Not in the history: what somebody sees or copies of the address lets nobody in.
    history.replaceState(null, "", location.pathname + location.search);
    const answer = await post("/session", { token });
    const told = await answer.json();
    if (!answer.ok) {
      refused.value = told.error;
      return;
    }
    localStorage.setItem(STORED, JSON.stringify(told));
  }
  const stored = localStorage.getItem(STORED);
  session.value = stored && JSON.parse(stored);
  if (!stored) refused.value = "Open the address that `crystalmath ui` has printed.";
}

function leave(why) {
  localStorage.removeItem(STORED);
  session.value = null;
  refused.value = why;
}

/** Call a method and return what it answers; `CallError` where that says what is wrong. */
export async function call(method, params = {}, more = {}) {
  const answer = await post("/call", { method, params }, more);
  const told = await answer.json();
  if (answer.status === 401) leave(told.error);
  if (!answer.ok) throw new CallError(told);
  if (told.status === "error" && told.code) throw new CallError(told);
  return told;
}

const listeners = new Set();

/** Have a function called with each change of a job; returns what ends that. */
export function onChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Have something done once changes have come, not more often than four times a second. */
export function useChanges(act) {
  const latest = useRef(act);
  latest.current = act;
  useEffect(() => {
    let waiting = null;
    const end = onChange(() => {
      waiting ??= setTimeout(() => {
        waiting = null;
        latest.current();
      }, 250);
    });
    return () => {
      end();
      clearTimeout(waiting);
    };
  }, []);
}

/** Wait until the page is seen. */
const seen = () =>
  new Promise((resolve) => {
    const look = () => document.hidden || (document.removeEventListener("visibilitychange", look), resolve());
    document.addEventListener("visibilitychange", look);
    look();
  });

/**
 * Follow the changes of jobs for as long as the page has a session; none is missed or told twice.
 *
 * A tab that is not seen holds no connection: a browser opens six to a server, for all tabs together.
 */
export async function follow() {
  let last = "";
  while (session.value) {
    if (last) await seen();
    const leaving = new AbortController();
    const look = () => document.hidden && last && leaving.abort();
    document.addEventListener("visibilitychange", look);
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      const answer = await post("/events", {}, { headers, signal: leaving.signal });
      if (answer.status === 401) leave((await answer.json()).error);
      if (!answer.ok) throw new Error(String(answer.status));
      following.value = true;
      for await (const event of events(answer.body)) {
        last = event.id ?? last;
        if (event.event === undefined) for (const each of [...listeners]) each(JSON.parse(event.data));
        look();
      }
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof Error)) throw error;
    } finally {
      document.removeEventListener("visibilitychange", look);
    }
    following.value = false;
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

/** Read server-sent events. An EventSource cannot send the page's key. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const blocks = text.split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => !line.startsWith(":"));
      const fields = lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]);
      if (fields.length) yield Object.fromEntries(fields);
    }
  }
}
