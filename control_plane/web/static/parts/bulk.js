// Acts on all that match a filter. Rule: the request holds the filter with the count and the set that were shown, so the
// server refuses when others match now; the ids are never sent from here.
import { html, cls } from "../core/html.js";
import { count as shown, plural } from "../core/format.js";
import { confirm } from "./dialog.js";

// `count` and `set` as the list answered them. `acts` is [{label, title, text, danger, disabled, run({count, set})}], where
// `disabled` is why an act cannot be done now; `onStale` reads the list again after a 409. `verb` is "match" or "selected".
export function Bulk({ count, set, acts, noun = "client", verb = "match", onStale = () => {} }) {
  if (!count) return null;
  const begin = async (act) => {
    let stale = false;
    const run = async () => {
      try {
        await act.run({ count, set });
      } catch (problem) {
        stale = problem.type === "set-changed";
        throw problem;
      }
    };
    const done = await confirm({ title: act.title || act.label, text: act.text || `${act.label}: ${plural(count, noun)}.`, act: `${act.label} ${shown(count)}`, count, danger: act.danger, run });
    if (!done && stale) onStale();
  };
  return html`<div class="bulk" role="group" aria-label="Act on many">
    <strong>${shown(count)} ${verb}</strong>
    ${acts.map((act) => html`<button key=${act.label} type="button" class=${cls(act.danger && "danger")} disabled=${Boolean(act.disabled)} title=${act.disabled || undefined} onClick=${() => begin(act)}>${act.label}…</button>`)}
  </div>`;
}
