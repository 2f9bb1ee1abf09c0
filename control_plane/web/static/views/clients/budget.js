// What a device may still send by its own caps, as it reported it last, and what it holds back for.
import { html } from "../../core/html.js";
import { bytes } from "../../core/format.js";
import { reasonPage } from "../../parts/state.js";
import { Age, Instant } from "../../parts/time.js";

const NAMES = { day: "Day", month: "Month", metered_day: "Day, metered links", metered_month: "Month, metered links" };

export function Budget({ budget }) {
  if (!budget) return null;
  return html`<section class="card"><h2>Budget of the device</h2>
    ${budget.holds.length > 0 && html`<p role="status">Sends nothing now: ${budget.holds.map((code) => html`<a key=${code} href=${reasonPage(code)}>${code}</a> `)}</p>`}
    <dl class="facts">${budget.caps.map((one) => html`<dt key=${one.period}>${NAMES[one.period]}</dt><dd key=${`${one.period}=`}><${Cap} cap=${one} /></dd>`)}
      <dt>Link</dt><dd>${budget.metered ? "metered" : "not metered"}</dd>
      <dt>Reported</dt><dd><${Age} at=${budget.as_of} /></dd>
    </dl></section>`;
}

function Cap({ cap }) {
  const text = `${bytes(cap.used)} of ${bytes(cap.cap)}`;
  return html`<meter min="0" max=${Math.max(cap.cap, 1)} value=${Math.min(cap.used, cap.cap)} high=${0.9 * cap.cap} aria-label=${`${NAMES[cap.period]}: ${text}`}></meter> ${text}${cap.resets_at ? html`, until <${Instant} at=${cap.resets_at} />` : ""}${cap.applies ? "" : html` <span class="quiet">not on this link</span>`}`;
}
