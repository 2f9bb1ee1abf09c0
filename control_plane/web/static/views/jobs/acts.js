// What a person does to a whole job: pause, resume, retry what failed, extend, cancel.
// Rule: an act is asked for in REST's words; what the job's state refuses is shown where it was asked.
import { html, signal } from "../../core/html.js";
import { get, send } from "../../core/api.js";
import { plural } from "../../core/format.js";
import { confirm } from "../../parts/dialog.js";
import { Field } from "../../parts/fields.js";
import { words } from "../../parts/state.js";
import { toast } from "../../parts/toast.js";
import { done, retryThese } from "./executions.js";
import { ACTIVE, FAILED, NOT_OVER, countOf, jobPath, tag } from "./model.js";

export function JobActs({ job, reload, onTune, onProblem }) {
  const id = job.job_id;
  const active = ACTIVE.includes(job.state);
  const failed = countOf(job, FAILED);
  const verb = (name, text) => async () => {
    onProblem(null);
    try {
      await send("POST", `${jobPath(id)}/${name}`);
      toast(text);
    } catch (problem) {
      onProblem(problem);
    }
    reload();
  };
  return html`${job.state === "running" && html`<button type="button" onClick=${verb("pause", "The job is paused")}>Pause</button>`}
    ${job.state === "paused" && html`<button type="button" class="primary" onClick=${verb("resume", "The job is resumed")}>Resume</button>`}
    ${failed > 0 && job.state !== "cancelling" && html`<button type="button" onClick=${() => retryFailed(job, reload)}>Retry ${plural(failed, "failed client")}…</button>`}
    ${active && html`<button type="button" onClick=${onTune}>Retune…</button>
      <button type="button" onClick=${() => extend(job, reload)}>Extend…</button>
      <button type="button" class="danger" onClick=${() => cancel(job, reload)}>Cancel…</button>`}`;
}

// The filter is sent with the count and the set that REST names for it now; both are in the question.
async function retryFailed(job, reload) {
  const state = FAILED.filter((one) => job.executions[one]);
  const shown = await get(`${jobPath(job.job_id)}/executions`, { state, limit: 1 });
  const what = state.map((one) => `${job.executions[one]} ${words(one)}`).join(", ");
  await askRetry(job, { state, count: shown.count, set: shown.set }, shown.count, `${what}.`, reload);
}

// Asks, and queues the executions of `where` again; a job whose deadline has passed needs a new one.
export async function askRetry(job, where, number, what, reload) {
  const passed = Boolean(job.deadline) && new Date(job.deadline) <= new Date();
  const deadline = signal("24h");
  const text = html`<div class="stack"><p>${what} Their files are listed again; what was proven is not sent again.</p>
    ${passed && html`<${Deadline} value=${deadline} hint="The deadline of the job has passed: it needs a new one" />`}</div>`;
  const run = async () => done(await retryThese(job, where, passed ? deadline.value.trim() : undefined), "queued again", () => {});
  await confirm({ title: `Retry ${plural(number, "client")}`, text, act: "Retry", count: number, run });
  reload();
}

async function extend(job, reload) {
  const deadline = signal("24h");
  const run = async () => {
    await send("POST", `${jobPath(job.job_id)}/extend`, { deadline: deadline.value.trim() }, tag(job.version));
    toast("The deadline is moved");
  };
  await confirm({ title: "Move the deadline", act: "Move it", text: html`<${Deadline} value=${deadline} hint="A duration from now, or an instant; at most 30 days after the creation" />`, run });
  reload();
}

async function cancel(job, reload) {
  const open = countOf(job, NOT_OVER);
  const run = async () => {
    await send("POST", `${jobPath(job.job_id)}/cancel`);
    toast("The job is being cancelled");
  };
  await confirm({ title: `Cancel ${job.job_id}`, act: "Cancel the job", danger: true, count: open, text: `${plural(open, "client")} ${open === 1 ? "has" : "have"} not ended: what did not begin never begins, and open uploads are cancelled.`, run });
  reload();
}

function Deadline({ value, hint }) {
  return html`<${Field} label="Deadline" value=${value.value} onInput=${(text) => (value.value = text)} hint=${hint} placeholder="24h" />`;
}
