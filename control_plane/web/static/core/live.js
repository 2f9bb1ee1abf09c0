// What changes, as it changes: one event stream for the page, and one more for the progress of uploads that are shown.
// Rule: nobody polls. A stream that was lost is opened again after a random wait, and then every view reads again.
import { signal } from "../vendor/signals.js";
import { askWho, session } from "./session.js";

// Every type of the change log (docs/events.md); a browser has no listener for "all types". A test compares the two.
export const TYPES = [
  "upload.created",
  "upload.state_changed",
  "upload.mismatched",
  "job.state_changed",
  "job.changed",
  "execution.state_changed",
  "schedule.tick",
  "schedule.changed",
  "client.connected",
  "client.disconnected",
  "client.forgotten",
];
const FACTS = { client: "client_id", job: "job_id", upload: "upload_id", schedule: "schedule_id" };
const RESYNC = { type: "resync" };
const MOST_PROGRESS = 100;

// "live", "connecting" (before the first event) or "lost"; `lostSince` is a Date while it is lost.
export const following = signal("connecting");
export const lostSince = signal(null);

const subscribers = new Set();
let source = null;
let failures = 0;
let timer = 0;
let wanted = false;

// Starts following; again after `stop()`.
export function start() {
  if (wanted) return;
  wanted = true;
  open();
  progress.open();
}

// Ends the streams: at the sign-out.
export function stop() {
  wanted = false;
  close();
  progress.close();
  following.value = "connecting";
  lostSince.value = null;
}

function close() {
  clearTimeout(timer);
  if (source) source.close();
  source = null;
}

function open() {
  close();
  if (!wanted || document.hidden) return;
  source = new EventSource("/events");
  source.onopen = () => {
    failures = 0;
    following.value = "live";
    lostSince.value = null;
    if (session.value && session.value.unreachable) void askWho();
    // A change between a view's first read and this moment is in no event.
    tell(RESYNC);
  };
  source.onerror = lost;
  source.addEventListener("resync", () => tell(RESYNC));
  for (const type of TYPES) source.addEventListener(type, (event) => tell({ type, ...JSON.parse(event.data) }));
}

function lost() {
  // Closed by the browser: the server answered, but with no stream, and the answer is not shown to a page.
  const refused = source && source.readyState === EventSource.CLOSED;
  close();
  if (!wanted) return;
  following.value = "lost";
  lostSince.value = lostSince.value || new Date();
  if (refused) void askWho();
  failures += 1;
  timer = setTimeout(open, wait(failures));
}

// Milliseconds: 1 to 3 s at first, up to 30 s; random, so that a thousand pages do not come back together.
const wait = (tries) => Math.min(30_000, 1_000 * 2 ** Math.min(tries, 5)) * (0.5 + Math.random() / 2);

function tell(event) {
  for (const one of [...subscribers]) if (event === RESYNC || matches(one.match, event)) one.callback(event);
}

// `match` is {types: ["upload.", "job.state_changed"], client, job, upload, schedule}; each that is given must match.
function matches(match, event) {
  if (match.types && !match.types.some((type) => event.type === type || (/[.*]$/.test(type) && event.type.startsWith(type.replace("*", ""))))) return false;
  return Object.entries(FACTS).every(([name, fact]) => match[name] === undefined || match[name] === null || match[name] === event[fact]);
}

// Calls `callback` with each matching event, and with {type: "resync"} when events may be missing. Returns the end.
export function onChange(match, callback) {
  const one = { match: match || {}, callback };
  subscribers.add(one);
  return () => subscribers.delete(one);
}

// A page that is not seen has no stream: a browser allows six connections to one server, over all its tabs, and a
// seventh request waits. When the page is seen again, the stream opens and every view reads again.
addEventListener("visibilitychange", () => {
  if (document.hidden) {
    close();
    progress.close();
  } else if (wanted) {
    if (following.value === "live") following.value = "connecting";
    open();
    progress.open();
  }
});
addEventListener("online", () => following.value === "lost" && open());

// Progress: one stream that names every upload that is shown, made anew when their set changes.
const progress = {
  followers: new Map(),
  source: null,
  timer: 0,
  close() {
    clearTimeout(this.timer);
    if (this.source) this.source.close();
    this.source = null;
  },
  soon(delay = 50) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), delay);
  },
  open() {
    this.close();
    const uploads = [...this.followers.keys()].slice(0, MOST_PROGRESS);
    if (!uploads.length || !wanted || document.hidden) return;
    const query = uploads.map((one) => `upload=${encodeURIComponent(one)}`).join("&");
    this.source = new EventSource(`/events?type=upload.progress&${query}`);
    this.source.addEventListener("upload.progress", (event) => {
      const facts = JSON.parse(event.data);
      for (const callback of this.followers.get(facts.upload_id) || []) callback(facts);
    });
    this.source.onerror = () => {
      this.close();
      this.soon(wait(2));
    };
  },
};

// Calls `callback` with the progress document of one upload, at most once a second. Returns the end.
export function followUpload(uploadId, callback) {
  const known = progress.followers.has(uploadId);
  progress.followers.set(uploadId, new Set([...(progress.followers.get(uploadId) || []), callback]));
  if (!known) progress.soon();
  return () => {
    const left = progress.followers.get(uploadId);
    if (!left) return;
    left.delete(callback);
    if (!left.size) {
      progress.followers.delete(uploadId);
      progress.soon();
    }
  };
}
