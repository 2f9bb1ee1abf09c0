// The foot of a list that is read page by page. Rule: it shows whether the list is cut, and leads on.
import { html } from "../core/html.js";
import { Link, route } from "../core/router.js";
import { count as shown } from "../core/format.js";

// `count` is how many match on all pages, or null where the server does not count them.
export function Pager({ rows, count = null, cursor, noun }) {
  const { path, query } = route.value;
  const later = Boolean(query.cursor);
  if (!cursor && !later) return count === null ? null : html`<p class="pager quiet">${rows ? `All ${shown(count)} ${noun} that match are shown.` : ""}</p>`;
  const of = count === null ? "" : ` of ${shown(count)}`;
  const more = count === null && cursor ? "; there are more" : "";
  return html`<p class="pager" role="status">
    <span>${later ? `${shown(rows)} further ${noun}${of} are shown` : `The first ${shown(rows)} ${noun}${of} are shown`}${more}.</span>
    ${later && html`<${Link} class="button" to=${path} query=${{ ...query, cursor: null }}>First page<//>`}
    ${cursor && html`<${Link} class="button" to=${path} query=${{ ...query, cursor }}>Next page<//>`}
  </p>`;
}
