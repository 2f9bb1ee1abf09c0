// A state as a word with a colour, and the reason for it as a sentence with its page. Rule: never by colour alone.
import { html, cls } from "../core/html.js";
import { Age } from "./time.js";

const TONES = {
  good: "completed succeeded online connected ok ready active enabled delivered done made passed fresh covered proven healed granted fired backfilled valid verified",
  busy: "uploading running completing dispatched in_progress working dispatching pending_completion creating listing",
  wait: "queued pending waiting requested scheduled approval awaiting_approval noisy stale skipped partial late held cancelling warning unsupported enrolled",
  bad: "failed rejected expired dead error conflict missed refused missing timed_out aborted denied revoked mismatch",
  idle: "cancelled paused offline never_seen disabled ended unknown none absent removed unchanged empty left_out skipped_overlap skipped_by_operator",
};
const TONE_OF = Object.fromEntries(Object.entries(TONES).flatMap(([tone, words]) => words.split(" ").map((word) => [word, tone])));

// "good", "busy", "wait", "bad" or "idle": also the names of the colours in app.css (--good …).
export const toneOf = (value) => TONE_OF[value] || "idle";
export const words = (value) => String(value ?? "").replaceAll("_", " ");

export function State({ value, tone }) {
  return html`<span class=${cls("state", tone || toneOf(value))}>${words(value)}</span>`;
}

export const reasonPage = (code) => `/help/reasons/${encodeURIComponent(code)}`;

// `reason` is REST's {code, text, next_wake_at}, or null.
export function Reason({ reason }) {
  if (!reason) return null;
  return html`<span class="reason">
    ${reason.text || words(reason.code)} <a class="code" href=${reasonPage(reason.code)} title="What this means and what to do">${reason.code}</a>
    ${reason.next_wake_at && html` <span class="quiet">· looks again <${Age} at=${reason.next_wake_at} /></span>`}
  </span>`;
}
