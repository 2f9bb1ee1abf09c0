// When a client was connected, as a bar over time. Rule: what the log does not know is shown as not known.
import { html, useState } from "../../core/html.js";
import { useResource } from "../../core/resource.js";
import { path } from "../../core/router.js";
import { duration, instant } from "../../core/format.js";
import { ProblemBox } from "../../parts/problem.js";
import { Select } from "../../parts/fields.js";

const FINEST = 1 / 300;
const WORDS = { connected: "connected", offline: "offline", never_seen: "not seen yet", unknown: "not known" };
const HOURS = [
  { value: "24", label: "last 24 hours" },
  { value: "168", label: "last 7 days" },
];

export function Presence({ client }) {
  const [hours, setHours] = useState("24");
  const place = `${path("clients", client.client_id)}/history`;
  const { data, problem, reload } = useResource(place, { hours }, { types: ["client."], client: client.client_id }, { every: 5 });
  const exact = data ? data.spans.map(timed) : [];
  const spans = coarse(exact);
  const known = exact.filter((one) => one.state === "connected" || one.state === "offline");
  const there = sum(known.filter((one) => one.state === "connected"));
  const gaps = exact.filter((one) => one.state === "offline");
  return html`<section class="card"><div class="row spread"><h2>Presence</h2><${Select} label="Time" value=${hours} options=${HOURS} onChange=${setHours} /></div>
    <${ProblemBox} problem=${problem} onRetry=${reload} />
    ${data && html`<div class="spans" role="img" aria-label=${summary(there, known, gaps)}>
        ${spans.map((one) => html`<span key=${one.begin} class=${`span ${one.state}`} style=${{ flexGrow: one.end - one.begin }} title=${`${WORDS[one.state]}\n${instant(one.begin)} to ${instant(one.end)} (${duration(one.end - one.begin)})`}></span>`)}
      </div>
      <p class="row spread quiet ends"><span>${spans.length > 0 && instant(spans[0].begin)}</span><span>now</span></p>
      <p>${summary(there, known, gaps)}${data.cut ? " It connected too often to show more." : ""}</p>`}
  </section>`;
}

const seconds = (text) => new Date(text).getTime() / 1000;
const timed = (one) => ({ state: one.state || "unknown", begin: seconds(one.begin), end: seconds(one.end) });
const sum = (spans) => spans.reduce((all, one) => all + one.end - one.begin, 0);

// Spans too short to be seen go into the one before: a client that connects every minute is no thousand elements.
function coarse(spans) {
  if (!spans.length) return spans;
  const least = (spans[spans.length - 1].end - spans[0].begin) * FINEST;
  const shown = [];
  for (const one of spans) {
    const last = shown[shown.length - 1];
    const short = one.end - one.begin < least && one !== spans[spans.length - 1];
    if (last && (one.state === last.state || short)) last.end = one.end;
    else shown.push({ ...one });
  }
  return shown;
}

function summary(there, known, gaps) {
  const all = sum(known);
  if (!all) return "It was not connected in this time.";
  const share = Math.floor((1000 * there) / all) / 10;
  if (!gaps.length) return `Connected ${share} % of the time that is known, without a gap.`;
  const longest = Math.max(...gaps.map((one) => one.end - one.begin));
  return `Connected ${share} % of the time that is known; offline ${gaps.length === 1 ? "once" : `${gaps.length} times`}, ${duration(longest)} at the longest.`;
}
