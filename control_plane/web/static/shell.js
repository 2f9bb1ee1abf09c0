// The frame: navigation, the state of the stream, banners, notes and questions.
import { html, cls, useEffect, useState } from "./core/html.js";
import { following, lostSince } from "./core/live.js";
import { Link, route } from "./core/router.js";
import { session, signOut } from "./core/session.js";
import { localZone, switchZone, zone } from "./core/zone.js";
import { Dialogs } from "./parts/dialog.js";
import { Instant } from "./parts/time.js";
import { Toasts } from "./parts/toast.js";

const PLACES = [
  ["Fleet", "/"],
  ["Clients", "/clients"],
  ["Uploads", "/uploads"],
  ["Jobs", "/jobs"],
  ["Schedules", "/schedules"],
  ["Webhooks", "/webhooks"],
  ["Devices", "/devices"],
  ["Keys", "/keys"],
  ["Tokens", "/tokens"],
  ["Audit", "/audit"],
  ["Health", "/health"],
];
const NEW = [
  ["Upload", "/new/trigger"],
  ["Job", "/new/job"],
  ["Schedule", "/new/schedule"],
];

const here = (to, path) => (to === "/" ? path === "/" : path === to || path.startsWith(`${to}/`));

export function Shell({ children }) {
  const [open, setOpen] = useState(false);
  const { path, name } = route.value;
  useEffect(() => setOpen(false), [path]);
  const who = session.value;
  const inside = name !== "signin";
  return html`<a class="skip" href="#content" onClick=${skip}>Skip to the content</a>
    ${inside && html`<header class="top">
      <a class="brand" href="#/"><img src="/static/mark.svg" alt="" width="24" height="24" />Backhaul</a>
      <${Following} />
      <button type="button" class="burger" aria-expanded=${open ? "true" : "false"} aria-controls="nav" onClick=${() => setOpen(!open)}>Menu</button>
    </header>
    <nav id="nav" class=${cls("side", open && "open")} aria-label="Views">
      <ul>
        ${PLACES.map(([title, to]) => html`<li key=${to}><${Link} to=${to} aria-current=${here(to, path) ? "page" : undefined}>${title}<//></li>`)}
      </ul>
      <h2>New</h2>
      <ul>
        ${NEW.map(([title, to]) => html`<li key=${to}><${Link} to=${to} aria-current=${here(to, path) ? "page" : undefined}>${title}<//></li>`)}
      </ul>
      <ul class="foot">
        <li><a href="/help/">Help</a></li>
        <li><a href="/docs">REST</a></li>
        <li><button type="button" class="plain" onClick=${switchZone} title="Switch between this machine's zone and UTC">Times: ${zone.value === "utc" ? "UTC" : localZone}</button></li>
        ${who && who.auth && who.caller && html`<li><button type="button" class="plain" onClick=${signOut} title=${`Signed in as ${who.caller}`}>Sign out</button></li>`}
      </ul>
    </nav>`}
    <main id="content" tabindex="-1" class=${cls(!inside && "alone")}>
      <${Banners} who=${who} inside=${inside} />
      ${children}
    </main>
    <${Dialogs} /><${Toasts} />`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("content").focus();
}

const WORDS = { live: "Live", connecting: "Connecting", lost: "Not live" };

function Following() {
  const state = following.value;
  return html`<span class=${cls("following", state)} role="status" aria-live="polite" title="Whether this page follows changes as they happen">${WORDS[state]}</span>`;
}

function Banners({ who, inside }) {
  return html`${following.value === "lost" && inside && html`<p class="banner wait" role="alert">
      Not live since <${Instant} at=${lostSince.value.toISOString()} />: what is shown may be old. Connecting again…
    </p>`}
    ${who && who.unreachable && html`<p class="banner bad" role="alert">The server does not answer.</p>`}
    ${who && !who.auth && !who.unreachable && inside && html`<p class="banner quiet-banner">
      No sign-in: this server has no <code>JWT_SECRET</code>, so everyone who can reach it can do everything. <a href="/help/">What to do</a>
    </p>`}`;
}
