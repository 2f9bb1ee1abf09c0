// The names that a record has: acts and outcomes, and the views of what an act was on.
import { path } from "../../core/router.js";

// Every act of a record, in REST's order. A test compares them with those of the server.
export const ACTS = [
  "upload.trigger",
  "upload.cancel",
  "upload.retry",
  "upload.verify",
  "upload.adopt",
  "object.url",
  "client.expect",
  "client.label",
  "client.label_many",
  "client.forget",
  "files.list",
  "group.put",
  "group.delete",
  "budget.put",
  "budget.delete",
  "job.create",
  "job.pause",
  "job.resume",
  "job.cancel",
  "job.extend",
  "job.change",
  "job.approve",
  "job.reject",
  "job.retry",
  "job.add_clients",
  "job.files",
  "job.manifest",
  "job.results",
  "schedule.create",
  "schedule.replace",
  "schedule.delete",
  "schedule.pause",
  "schedule.resume",
  "schedule.skip",
  "schedule.run",
  "schedule.backfill",
  "webhook.create",
  "webhook.change",
  "webhook.delete",
  "webhook.replay",
  "session.begin",
  "session.code",
  "session.end",
  "device.enroll",
  "device.approve",
  "device.reject",
  "device.rotate",
  "device.revoke",
  "device.accept_key",
  "device.forget",
  "device.pin",
  "device.alarm",
  "batch.create",
  "batch.revoke",
  "keys.publish",
  "token.revoke",
  "audit.export",
  "request",
];
export const OUTCOMES = ["done", "denied", "failed"];

const VIEWS = { upload: "uploads", client: "clients", job: "jobs", schedule: "schedules", webhook: "webhooks", token: "tokens", device: "devices" };

// Where the thing of a record is shown: {to, query}; null where no view shows it. `target` is `kind:id`.
export function viewOf({ target, clients }) {
  const at = target.indexOf(":");
  const view = VIEWS[target.slice(0, at)];
  if (!view) return null;
  return { to: path(view, target.slice(at + 1)), query: view === "uploads" ? { client_id: clients[0] } : {} };
}
