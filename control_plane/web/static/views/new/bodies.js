// From the form to the bodies of REST, and back. Rule: pure. What a person leaves as it was is left out of the body.
import { filled, linesOf, numberOf, textOfWindows, timeOf, windowsOf } from "./texts.js";

// Every field of the form as a text, a list, or a bool.
export const EMPTY = {
  job_id: "", reason: "", clients: [], selector: "", mode: "snapshot",
  paths: [], type: "", exclude: "", newer_than: "", older_than: "", min_size: "", max_size: "", pick: "newest", min_files: "", max_files: "", max_bytes: "", skip: "none",
  key: "", approval: "never", bytes_over: "", clients_over: "", per_minute: "", max_running: "",
  abort_on: "", abort_percent: "10", abort_min: "20", retry_failed: "", retry_timed_out: "", deadline: "", windows: "", priority: "", running: "finish",
  on_change: "fail", compression: "none", after: "keep", after_folder: "", job_zone: "",
  schedule_id: "", cadence: "cron", cron: "0 3 * * *", every: "", zone: "", overlap: "", catch_within: "", catch_runs: "", jitter: "", pause_after: "",
  encrypt_to: [], client: "", path: "",
};

const unless = (value, usual) => (value === usual ? "" : value);
// What the device does with a file once its object is proven; left out where the file stays.
export const afterOf = (form) => (form.after === "move" ? `move:${form.after_folder.trim()}` : unless(form.after, "keep"));
const numbered = (text) => (text.trim() === "" ? "" : numberOf(text));

function jobMembers(form) {
  const limits = filled({ bytes_over: form.bytes_over.trim(), clients_over: numbered(form.clients_over) });
  return filled({
    reason: form.reason.trim(),
    targets: filled({ clients: form.clients, selector: form.selector.trim(), mode: unless(form.mode, "snapshot") }),
    files: filled({
      paths: form.paths, type: form.type.trim(), exclude: linesOf(form.exclude), newer_than: form.newer_than.trim(), older_than: form.older_than.trim(),
      min_size: form.min_size.trim(), max_size: form.max_size.trim(), pick: unless(form.pick, "newest"), min_files: numbered(form.min_files), max_files: numbered(form.max_files),
      max_bytes: form.max_bytes.trim(), skip: unless(form.skip, "none"),
    }),
    key: form.key.trim(),
    options: filled({ on_change: unless(form.on_change, "fail"), compression: unless(form.compression, "none"), encrypt_to: form.encrypt_to }),
    approval: form.approval === "limits" ? limits : unless(form.approval, "never"),
    rollout: filled({ per_minute: numbered(form.per_minute), max_running: numbered(form.max_running), stages: form.stages || [] }),
    abort: form.abort_on ? [filled({ on: form.abort_on, percent: numbered(form.abort_percent), min_ended: numbered(form.abort_min) })] : form.abort || [],
    retry: filled({ failed: numbered(form.retry_failed), timed_out: numbered(form.retry_timed_out) }),
    deadline: form.deadline.trim(),
    zone: form.job_zone.trim(),
    windows: windowsOf(form.windows),
    priority: numbered(form.priority),
    running: unless(form.running, "finish"),
    after: afterOf(form),
  });
}

export const jobBody = (form) => filled({ job_id: form.job_id.trim(), ...jobMembers(form) });

export function scheduleBody(form) {
  return filled({
    schedule_id: form.schedule_id.trim(),
    ...(form.cadence === "cron" ? { cron: form.cron.trim() } : { every: form.every.trim() }),
    zone: form.zone.trim(),
    job: jobMembers(form),
    overlap: form.overlap,
    catch_up: filled({ within: form.catch_within.trim(), runs: form.catch_runs }),
    jitter: form.jitter.trim(),
    pause_after_failures: numbered(form.pause_after),
  });
}

export function triggerBody(form) {
  return filled({ file_path: form.path.trim(), after: afterOf(form), deadline: form.deadline.trim(), options: filled({ on_change: unless(form.on_change, "fail"), compression: unless(form.compression, "none"), priority: numbered(form.priority), encrypt_to: form.encrypt_to }) });
}

// Whether the server has enough to check the body.
export function isComplete(kind, form) {
  if (kind === "trigger") return Boolean(form.client.trim());
  const targets = form.clients.length > 0 || form.selector.trim() !== "";
  const files = form.paths.length > 0 || form.type.trim() !== "";
  return targets && files && (kind === "job" || (form.cadence === "cron" ? form.cron : form.every).trim() !== "");
}

const text = (value) => (value === null || value === undefined ? "" : String(value));

// The form of a specification that REST showed; its id is left out, since another job is to be made.
export function formOfJob(spec) {
  const { targets, files, options, approval, rollout, abort, retry } = spec;
  const limits = typeof approval === "object";
  const [rule] = abort.length === 1 ? abort : [];
  return {
    ...EMPTY,
    reason: spec.reason, clients: targets.clients, selector: text(targets.selector), mode: targets.mode,
    paths: files.paths, type: text(files.type), exclude: files.exclude.join("\n"), newer_than: timeOf(files.newer_than), older_than: timeOf(files.older_than),
    min_size: text(files.min_size), max_size: text(files.max_size), pick: files.pick, min_files: text(files.min_files), max_files: unless(text(files.max_files), "1000"), max_bytes: text(files.max_bytes), skip: files.skip,
    key: unless(spec.key, "{job}/{client_id}/{path}"), approval: limits ? "limits" : approval, bytes_over: text(limits ? approval.bytes_over : ""), clients_over: text(limits ? approval.clients_over : ""),
    per_minute: text(rollout.per_minute), max_running: text(rollout.max_running), stages: rollout.stages,
    abort_on: rule ? rule.on : "", abort_percent: rule ? text(rule.percent) : "10", abort_min: rule ? text(rule.min_ended) : "20", abort: abort.length > 1 ? abort : [],
    retry_failed: retry.failed ? text(retry.failed) : "", retry_timed_out: retry.timed_out ? text(retry.timed_out) : "",
    deadline: unless(timeOf(spec.deadline), "7d"), windows: textOfWindows(spec.windows), priority: spec.priority ? text(spec.priority) : "", running: spec.running,
    on_change: options.on_change, compression: options.compression, encrypt_to: options.encrypt_to, after: spec.after.split(":")[0], after_folder: spec.after.startsWith("move:") ? spec.after.slice(5) : "", job_zone: unless(spec.zone, "UTC"),
  };
}

export function formOfSchedule(schedule) {
  return {
    ...formOfJob(schedule.job),
    cadence: schedule.cron ? "cron" : "every", cron: text(schedule.cron), every: text(schedule.every), zone: schedule.zone, job_zone: unless(schedule.job.zone, schedule.zone),
    overlap: schedule.overlap, catch_within: schedule.catch_up.within, catch_runs: schedule.catch_up.runs, jitter: unless(schedule.jitter, "0s"), pause_after: text(schedule.pause_after_failures),
  };
}
