// Labels as small tags, each a link to the clients that have it.
import { html } from "../../core/html.js";
import { Link } from "../../core/router.js";

const PLAIN = /^[A-Za-z0-9_./-]+$/;

// One label as a requirement of a selector.
const requirement = (name, value) => `${quote(name)}=${quote(value)}`;
const quote = (text) => (PLAIN.test(text) ? text : `"${text.replace(/["\\]/g, "\\$&")}"`);

export function Labels({ labels, most = 100 }) {
  const all = Object.entries(labels);
  if (!all.length) return html`<span class="quiet">–</span>`;
  const rest = all.slice(most);
  return html`<span class="borne">
    ${all.slice(0, most).map(([name, value]) => html`<${Link} key=${name} class="tag" to="/clients" query=${{ selector: requirement(name, value) }} title="Clients with this label">${name}=${value}<//>`)}
    ${rest.length > 0 && html`<span class="tag" title=${rest.map(([name, value]) => `${name}=${value}`).join("\n")}>+${rest.length}</span>`}
  </span>`;
}
