// How the search of the site orders its results: a page whose title has the word comes first, and a
// page that explains comes before a reference.
const searched = (new URLSearchParams(location.search).get("q") || "").trim().toLowerCase();

var Scorer = {
  score: ([page, title, anchor, description, score, file, kind]) => {
    if (kind === "object") return score - 30;
    const named = searched && title.toLowerCase().includes(searched);
    return score + (named ? (anchor ? 50 : 100) : 0) - (/^(reference|internals|project)\//.test(page) ? 60 : 0);
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
