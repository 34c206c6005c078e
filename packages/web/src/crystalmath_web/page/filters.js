// What is typed into the search, as filters of jobs.list; and changes of it.

// Between quotes, two of them stand for one.
const TOKEN = /(-?)(?:([a-z]+):)?("(?:[^"]|"")*"|[^\s"]+(?:"(?:[^"]|"")*")?)/g;
const TEXTS = ["state", "engine", "cluster", "recipe", "name", "error", "failure", "formula", "parent"];
const TIMES = ["since", "until"];
const SECONDS = { m: 60, h: 3600, d: 86_400 };

/** Write a value so that a search reads it as it is. */
export const quoted = (value) => (/[\s"]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
const unquoted = (text) => text.replace(/"((?:[^"]|"")*)"/g, (_, inner) => inner.replaceAll('""', '"'));

/** Read a time in seconds since the epoch: 2h and 3d are ago, a day begins at its midnight here; NaN if it is none. */
function timeOf(text) {
  const [, number, unit] = /^(\d+(?:\.\d*)?)([mhd])$/.exec(text) ?? [];
  if (unit) return Date.now() / 1000 - number * SECONDS[unit];
  const [, day, clock = "00:00"] = /^(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d))?$/.exec(text) ?? [];
  return new Date(`${day}T${clock}`).getTime() / 1000;
}

/** Read a search: words are of a name or begin an id, `key:value` is a filter, `-key:value` excludes. */
export function filtersOf(query) {
  const filters = {};
  const exclude = {};
  const words = [];
  let wrong = "";
  for (const [whole, minus, key, given] of query.matchAll(TOKEN)) {
    const into = minus ? exclude : filters;
    const value = unquoted(given);
    if (!key) {
      if (/^[0-9a-f][0-9a-f-]{5,35}$/.test(value)) filters.prefix = value;
      else words.push(value);
    } else if (key === "label") {
      const [name, ...rest] = value.split("=");
      into.labels = { ...into.labels, [name]: rest.join("=") };
    } else if (key === "elements") into.elements = [...(into.elements ?? []), ...value.split(",").filter(Boolean)];
    else if (key === "state") into.state = value.split(",");
    else if (key === "tries" && value === "all" && !minus) filters.all_tries = true;
    else if (TIMES.includes(key) && !minus) {
      filters[key] = timeOf(value);
      if (Number.isNaN(filters[key])) {
        wrong = `${whole}: that is no time; write ${key}:2h or ${key}:3d (ago), ${key}:2026-11-20, or ${key}:"2026-11-20 14:30"`;
        delete filters[key];
      }
    } else if (TEXTS.includes(key)) into[key] = value;
    else wrong = `${whole}: there is no such filter; there are ${TEXTS.join(", ")}, elements, since, until, label:NAME=VALUE, and tries:all`;
  }
  if (words.length) filters.name = words.join(" ");
  if (Object.keys(exclude).length) filters.exclude = exclude;
  return { filters, wrong };
}

const tokens = (query) => [...query.matchAll(TOKEN)].map(([whole]) => whole);
const keyOf = (token) => /^(label:[^=]*=|(?!elements)[a-z]+:)/.exec(token)?.[1];

/** Add a filter to a search, in the place of another value of the same. */
export const withToken = (query, token) =>
  [...tokens(query).filter((each) => !keyOf(token) || keyOf(each) !== keyOf(token)), token].join(" ");

/** Take a filter out of a search; the same text where it is not in it. */
export function without(query, token) {
  const all = tokens(query);
  return all.includes(token) ? all.filter((each) => each !== token).join(" ") : query;
}
