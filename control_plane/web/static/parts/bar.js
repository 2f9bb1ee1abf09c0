// Parts of a whole as proportional segments, each a link to what it counts.
import { html, cls } from "../core/html.js";
import { count as shown } from "../core/format.js";

// `segments` is [{label, count, tone, href}]; those without a count are left out. A segment is at least 6 px wide.
export function Bar({ label, segments, thin }) {
  const there = segments.filter((one) => one.count > 0);
  return html`<div class=${cls("bar", thin && "thin")}>
    <div class="segments" aria-hidden="true">
      ${there.map((one) => html`<a key=${one.label} class=${`segment ${one.tone}`} href=${one.href} tabindex="-1" style=${{ flexGrow: one.count }} title=${`${shown(one.count)} ${one.label}`}></a>`)}
    </div>
    ${!thin && html`<ul class="legend" aria-label=${label}>
      ${there.map((one) => html`<li key=${one.label} class=${one.tone}>${one.href ? html`<a href=${one.href}><strong>${shown(one.count)}</strong> ${one.label}</a>` : html`<span><strong>${shown(one.count)}</strong> ${one.label}</span>`}</li>`)}
    </ul>`}
  </div>`;
}
