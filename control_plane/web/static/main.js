// The page begins here: who is signed in, where one is, and the frame around the view.
// Rule: a view is one module with one default component, loaded when it is opened; this table names every one.
import { html, render, signal, useEffect, useErrorBoundary } from "./core/html.js";
import { begin, session } from "./core/session.js";
import { route, startRouter } from "./core/router.js";
import { start, stop } from "./core/live.js";
import { Shell } from "./shell.js";
import { ProblemBox } from "./parts/problem.js";
import { Page } from "./parts/page.js";

const ROUTES = [
  { name: "fleet", pattern: "/", load: () => import("./views/fleet.js") },
  { name: "clients", pattern: "/clients", load: () => import("./views/clients/clients.js") },
  { name: "client", pattern: "/clients/:id", load: () => import("./views/clients/client.js") },
  { name: "uploads", pattern: "/uploads", load: () => import("./views/uploads/uploads.js") },
  { name: "upload", pattern: "/uploads/:id", load: () => import("./views/uploads/upload.js") },
  { name: "jobs", pattern: "/jobs", load: () => import("./views/jobs/jobs.js") },
  { name: "job", pattern: "/jobs/:id", load: () => import("./views/jobs/job.js") },
  { name: "schedules", pattern: "/schedules", load: () => import("./views/schedules/schedules.js") },
  { name: "schedule", pattern: "/schedules/:id", load: () => import("./views/schedules/schedule.js") },
  { name: "new", pattern: "/new/:kind", load: () => import("./views/new/new.js") },
  { name: "webhooks", pattern: "/webhooks", load: () => import("./views/webhooks/webhooks.js") },
  { name: "webhook", pattern: "/webhooks/:id", load: () => import("./views/webhooks/webhook.js") },
  { name: "devices", pattern: "/devices", load: () => import("./views/devices/devices.js") },
  { name: "device", pattern: "/devices/:id", load: () => import("./views/devices/device.js") },
  { name: "keys", pattern: "/keys", load: () => import("./views/devices/keys.js") },
  { name: "tokens", pattern: "/tokens", load: () => import("./views/tokens/tokens.js") },
  { name: "token", pattern: "/tokens/:id", load: () => import("./views/tokens/token.js") },
  { name: "audit", pattern: "/audit", load: () => import("./views/audit/audit.js") },
  { name: "health", pattern: "/health", load: () => import("./views/health.js") },
  { name: "signin", pattern: "/signin", load: () => import("./views/signin.js") },
];

const MISSING = () => import("./views/missing.js");
const loaded = new Map();
const view = signal(null);

// Shows the view of the present route once its module is there; a later navigation wins.
async function open(now) {
  if (!loaded.has(now.name)) {
    try {
      loaded.set(now.name, (await (now.load || MISSING)()).default);
    } catch (error) {
      if (route.value.name === now.name) view.value = { ...now, Failed: error };
      return;
    }
  }
  if (route.value === now) view.value = { ...now, View: loaded.get(now.name) };
}

function App() {
  useEffect(() => route.subscribe((now) => void open(now)), []);
  useEffect(() => session.subscribe((who) => (who && (!who.auth || who.caller) ? start() : stop())), []);
  const now = view.value;
  return html`<${Shell}>${now && html`<${Guarded} key=${now.path} now=${now} />`}<//>`;
}

// A view that fails shows its fault, and the rest of the page goes on.
function Guarded({ now }) {
  const [error] = useErrorBoundary((fault) => console.error(fault));
  const fault = error || now.Failed;
  if (fault) return html`<${Page} title="This view failed"><${ProblemBox} problem=${{ title: "A fault of the page", detail: fault.message }} /><//>`;
  return html`<${now.View} params=${now.params} query=${now.query} />`;
}

await begin();
startRouter(ROUTES);
const app = document.getElementById("app");
app.replaceChildren();
render(html`<${App} />`, app);
