// What happened to one upload, in order, with how long each state lasted.
import { html } from "../../core/html.js";
import { useResource } from "../../core/resource.js";
import { path } from "../../core/router.js";
import { duration } from "../../core/format.js";
import { ProblemBox } from "../../parts/problem.js";
import { State, reasonPage } from "../../parts/state.js";
import { Instant } from "../../parts/time.js";

const SHOWN = 60;

export function Timeline({ upload }) {
  const place = `${path("uploads", upload.upload_id)}/timeline`;
  const { data, problem, reload } = useResource(place, { client_id: upload.client_id }, { types: ["upload."], upload: upload.upload_id });
  if (!data) return html`<${ProblemBox} problem=${problem} onRetry=${reload} />`;
  const changes = data.changes.slice(-SHOWN);
  const cut = !data.complete || changes.length < data.changes.length;
  if (!changes.length) return html`<p class="quiet">The log no longer has it: it goes back seven days.</p>`;
  return html`<${ProblemBox} problem=${problem} onRetry=${reload} />
    ${cut && html`<p class="quiet">Older changes are not shown${data.complete ? "" : ": the log goes back seven days"}.</p>`}
    <ol class="timeline">${changes.map((one, index) => html`<li key=${one.number}>
      <span class="when"><${Instant} at=${one.at} /></span>
      <span>${one.type === "upload.created" ? html`<strong>requested</strong>` : html`<${State} value=${one.state} />`}
        ${one.attempt > 1 && html` <span class="quiet">attempt ${one.attempt}</span>`}
        ${one.error && html` <a class="code" href=${reasonPage(one.error)}>${one.error}</a>`}</span>
      <span class="quiet lasted">${lasted(one, changes[index + 1])}</span>
    </li>`)}</ol>`;
}

function lasted(one, next) {
  const seconds = next ? (new Date(next.at) - new Date(one.at)) / 1000 : 0;
  return next && seconds >= 1 ? `for ${duration(seconds)}` : "";
}
