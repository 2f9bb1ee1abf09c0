// The clients of a job at a glance: one cell each while they fit, then proportional segments.
// Rule: each cell and each segment opens the list behind it, already filtered; a state is never a colour alone.
import { html } from "../../core/html.js";
import { plural } from "../../core/format.js";
import { href } from "../../core/router.js";
import { Bar } from "../../parts/bar.js";
import { moveAmongCells } from "../../parts/cells.js";
import { useResource } from "../../core/resource.js";
import { toneOf, words } from "../../parts/state.js";
import { jobPath, segmentsOf } from "./model.js";

// More cells than these are too small to hit with a finger on a phone, and more than one page of REST.
const MOST_CELLS = 400;
const SIGNS = { succeeded: "✓", skipped: "–", partial: "◐", failed: "×", timed_out: "×", rejected: "×", cancelled: "–", removed: "–", uploading: "↑", listing: "…", awaiting_approval: "?", queued: "·" };

export function ClientGrid({ job }) {
  const fits = job.clients <= MOST_CELLS;
  const match = { types: ["execution.state_changed"], job: job.job_id };
  const { data } = useResource(fits ? `${jobPath(job.job_id)}/executions` : null, { limit: 500 }, match);
  if (!job.clients) return html`<p class="quiet">No client matches yet; those that match later join.</p>`;
  return html`<div class="stack">
    ${fits && html`<div class="cells" role="group" aria-label=${`${plural(job.clients, "client")}, one cell each; the arrow keys move`} onKeyDown=${moveAmongCells}>
      ${((data && data.executions) || []).map((one, index) => html`<a key=${one.client_id} data-cell class=${`cell ${toneOf(one.state)}`} tabindex=${index ? -1 : 0} href=${href(jobPath(job.job_id), { client: one.client_id })} title=${nameOf(one)} aria-label=${nameOf(one)}>${SIGNS[one.state] || ""}</a>`)}
    </div>`}
    <${Bar} label="Clients by state" thin=${false} segments=${segmentsOf(job)} />
  </div>`;
}

const nameOf = (one) => `${one.client_id}: ${words(one.state)}${one.reason ? ` (${one.reason.code})` : ""}`;
