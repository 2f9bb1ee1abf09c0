// Questions about a schedule: a note for a pause, a span for a backfill.
import { html, signal } from "../../core/html.js";
import { send } from "../../core/api.js";
import { plural } from "../../core/format.js";
import { navigate, path } from "../../core/router.js";
import { confirm } from "../../parts/dialog.js";
import { Field } from "../../parts/fields.js";
import { toast } from "../../parts/toast.js";

export async function askPause(at, reload) {
  const note = signal("");
  const text = html`<div class="stack"><p>Its ticks are accounted for as paused and make no job. Jobs that run continue.</p><${Bound} label="Note" value=${note} hint="Why, for those who find it paused" /></div>`;
  await confirm({ title: "Pause the schedule", act: "Pause", text, run: () => send("POST", `${at}/pause`, { note: note.value }) });
  reload();
}

// `given` is {from, to} (RFC 3339): the span to begin with.
export async function askBackfill(at, given, reload) {
  const now = Date.now();
  const from = signal(given.from || new Date(now - 86_400_000).toISOString().replace(/\.\d+Z/, "Z"));
  const to = signal(given.to || new Date(now).toISOString().replace(/\.\d+Z/, "Z"));
  const text = html`<div class="stack"><p>Makes a job for each tick of the span that has none: oldest first, one at a time.</p>
    <${Bound} label="From" value=${from} /><${Bound} label="To" value=${to} hint="Instants in UTC; both are included" /></div>`;
  const run = async () => {
    const { body } = await send("POST", `${at}/backfill`, { from: from.value.trim(), to: to.value.trim() });
    toast(`${plural(body.queued, "tick")} queued${body.left_out ? `; ${plural(body.left_out, "other")} had a job, or wait for one` : ""}`);
  };
  await confirm({ title: "Backfill", act: "Backfill", text, run });
  reload();
}

export async function askDelete(schedule) {
  const run = () => send("DELETE", path("schedules", schedule.schedule_id));
  const text = "Its runs and its coverage are deleted too. Its jobs continue.";
  if (await confirm({ title: `Delete ${schedule.schedule_id}`, act: "Delete", danger: true, text, run })) {
    toast("The schedule is deleted");
    navigate("/schedules");
  }
}

function Bound({ value, ...field }) {
  return html`<${Field} value=${value.value} onInput=${(text) => (value.value = text)} ...${field} />`;
}
