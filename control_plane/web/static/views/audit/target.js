// What an act was on, in a few words: a link where a view shows it.
import { html } from "../../core/html.js";
import { plural } from "../../core/format.js";
import { Link } from "../../core/router.js";
import { viewOf } from "./names.js";

export function Target({ record }) {
  const view = viewOf(record);
  if (view) return html`<${Link} ...${view}>${record.target}<//>`;
  if (record.target) return record.target;
  // A request that was denied before its use case began has no target; of a flood one record counts the rest.
  const { method, path, more } = record.detail;
  if (more) return `${plural(more, "more request")} in the same second`;
  if (path) return html`<code>${method} ${path}</code>`;
  return record.client_count ? plural(record.client_count, "client") : html`<span class="quiet">–</span>`;
}
