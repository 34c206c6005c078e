// Views of the table under names of the reader's own: the search, states, order and columns that stand in the address.

import { Trouble, address, html, signal, useEffect, useRef, useState } from "./lib.js";
import { call, session } from "./server.js";
import { toast } from "./toasts.js";

/** What a view keeps of the address. */
const PARTS = ["q", "state", "sort", "columns"];
export const views = signal([]);

/** Return the address of the table that is shown, without what no view keeps. */
const present = () => `?${new URLSearchParams([["view", "jobs"], ...PARTS.map((part) => [part, address.value.get(part)]).filter(([, value]) => value)])}`;

/** Ask for all views. */
export const askViews = async () => (views.value = (await call("page.views")).views);

/** Keep a view under a name; without an address it is removed. */
const keepView = async (name, target) => (views.value = (await call("page.keep_view", { name, address: target })).views);

export function Views() {
  const [error, setError] = useState(null);
  const [name, setName] = useState("");
  const menu = useRef();
  useEffect(() => void askViews().catch(setError), []);
  const attempt = async (act) => {
    setError(null);
    try {
      await act();
    } catch (problem) {
      setError(problem);
    }
  };
  const put = (event) => {
    event.preventDefault();
    const before = views.value.find((one) => one.name === name.trim());
    attempt(async () => {
      await keepView(name.trim(), present());
      setName("");
      toast(`The view is saved as ${name.trim()}.`, { undo: () => attempt(() => keepView(name.trim(), before?.address ?? null)) });
    });
  };
  const remove = (one) =>
    attempt(async () => {
      await keepView(one.name, null);
      toast(`The view ${one.name} is removed.`, { undo: () => attempt(() => keepView(one.name, one.address)) });
    });
  return html`<details class="menu views" ref=${menu}>
    <summary>Views</summary>
    <div>
      ${views.value.length
        ? html`<ul>
            ${views.value.map(
              (one) => html`<li key=${one.name}>
                <a href=${one.address} aria-current=${one.address === present() ? "true" : null} onClick=${() => (menu.current.open = false)}>${one.name}</a>
                ${!session.value.read_only && html`<button class="quiet" aria-label=${`Remove the view ${one.name}`} onClick=${() => remove(one)}>×</button>`}
              </li>`,
            )}
          </ul>`
        : html`<p class="note">No view is saved yet.</p>`}
      ${!session.value.read_only && html`<form onSubmit=${put}>
        <input aria-label="Name of the view" placeholder="name of this view" value=${name} maxlength="80" required
          onInput=${(event) => setName(event.target.value)} />
        <button type="submit">Save</button>
      </form>`}
      <${Trouble} error=${error} />
    </div>
  </details>`;
}
