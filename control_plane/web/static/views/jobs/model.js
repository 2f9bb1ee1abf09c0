// What the views of jobs know of states. Rule: the words are REST's; nothing here is computed that REST answers.
import { href, path } from "../../core/router.js";
import { toneOf, words } from "../../parts/state.js";

// In the order in which an execution goes through them.
export const EXECUTION_STATES = ["queued", "listing", "awaiting_approval", "uploading", "succeeded", "skipped", "partial", "failed", "timed_out", "rejected", "cancelled", "removed"];
export const JOB_STATES = ["running", "paused", "cancelling", "completed", "cancelled", "aborted", "expired"];
export const OUTCOMES = ["proven", "failed", "rejected", "skipped", "left_out"];
// What a person means by "what failed"; a retry leaves alone what has succeeded.
export const FAILED = ["failed", "timed_out", "partial"];
export const RETRYABLE = [...FAILED, "rejected", "cancelled", "skipped"];
export const NOT_OVER = ["queued", "listing", "awaiting_approval", "uploading"];
export const JOB_OPEN = ["running", "paused", "cancelling"];
export const ACTIVE = ["running", "paused"];

export const jobPath = (id) => path("jobs", id);
export const tag = (version) => ({ "If-Match": `"${version}"` });

// The executions of a job as segments of a bar, each with the list behind it.
export function segmentsOf(job) {
  return EXECUTION_STATES.map((state) => ({ label: words(state), count: job.executions[state], tone: toneOf(state), href: href(jobPath(job.job_id), { state }) }));
}

export const countOf = (job, states) => states.reduce((sum, state) => sum + (job.executions[state] || 0), 0);

// A query member that may be given once, several times, or not at all.
export const listOf = (value) => [].concat(value ?? []).filter(Boolean);
