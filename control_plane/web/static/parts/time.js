// Instants: in the reader's zone, the other zone on hover; the switch in the navigation shows all of them in UTC.
import { html } from "../core/html.js";
import { ago, instant, utc } from "../core/format.js";
import { now, zone } from "../core/zone.js";

const both = (at) => `${new Date(at).toLocaleString("en-GB", { timeZoneName: "short" })}\n${utc(at)}`;

// An instant of REST (RFC 3339), or "–".
export function Instant({ at }) {
  if (!at) return html`<span class="quiet">–</span>`;
  return html`<time datetime=${at} title=${both(at)}>${zone.value === "utc" ? utc(at) : instant(at)}</time>`;
}

// How long ago, or in how long; the instant itself on hover.
export function Age({ at }) {
  if (!at) return html`<span class="quiet">–</span>`;
  return html`<time datetime=${at} title=${both(at)}>${zone.value === "utc" ? utc(at) : ago(at, now.value)}</time>`;
}
