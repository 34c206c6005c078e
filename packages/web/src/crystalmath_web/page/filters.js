// What is typed into the search, as filters of jobs.list; and changes of it.

// Between quotes, two of them stand for one.
const TOKEN = /(-?)(?:([a-z]+):)?("(?:[^"]|"")*"|[^\s"]+(?:"(?:[^"]|"")*")?)/g;
const TEXTS = ["state", "engine", "cluster", "recipe", "name", "error", "failure", "formula", "parent"];

/** Write a value so that a search reads it as it is. */
export const quoted = (value) => (/[\s"]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
const unquoted = (text) => text.replace(/"((?:[^"]|"")*)"/g, (_, inner) => inner.replaceAll('""', '"'));

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
    else if (TEXTS.includes(key)) into[key] = value;
    else wrong = `${whole}: there is no such filter; there are ${TEXTS.join(", ")}, elements, label:NAME=VALUE, and tries:all`;
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
