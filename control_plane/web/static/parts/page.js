// The frame of every view: its title, its acts, and the same thing as a request and as a command.
import { html, useEffect, useRef } from "../core/html.js";
import { pathWith } from "../core/api.js";
import { route } from "../core/router.js";
import { session } from "../core/session.js";
import { Copyable, quoted } from "./copy.js";

let shownPath = null;

// `request` is {method = "GET", path, query, body}; `command` is "backhaul …".
export function Page({ title, subtitle, actions, request, command, children }) {
  const heading = useRef(null);
  useEffect(() => {
    document.title = `${title} · Backhaul`;
  }, [title]);
  useEffect(() => {
    // After a navigation a screen reader begins at the heading; a first load stays at the top. The view of each path is
    // mounted anew (main.js).
    const at = route.peek().path;
    if (shownPath !== null && shownPath !== at) {
      scrollTo(0, 0);
      heading.current.focus({ preventScroll: true });
    }
    shownPath = at;
  }, []);
  return html`<header class="page">
      <div class="titles">
        <h1 ref=${heading} tabindex="-1">${title}</h1>
        ${subtitle && html`<p class="subtitle">${subtitle}</p>`}
      </div>
      <div class="row acts">
        ${actions}
        ${(request || command) && html`<${CopyMenu} request=${request} command=${command} />`}
      </div>
    </header>
    ${children}`;
}

// The request as curl takes it, with the token from the environment where one is needed.
export function curlOf({ method = "GET", path, query, body }) {
  const parts = ["curl", "-sS"];
  if (method !== "GET") parts.push("-X", method);
  if (session.value && session.value.auth) parts.push("-H", '"Authorization: Bearer $BACKHAUL_TOKEN"');
  if (body !== undefined && body !== null) parts.push("-H", "'Content-Type: application/json'", "-d", quoted(JSON.stringify(body)));
  parts.push(quoted(location.origin + pathWith(path, query)));
  return parts.join(" ");
}

export function CopyMenu({ request, command }) {
  const menu = useRef(null);
  useEffect(() => {
    const away = (event) => {
      if (menu.current && menu.current.open && (event.key === "Escape" || (event.type === "pointerdown" && !menu.current.contains(event.target)))) {
        if (event.key === "Escape") menu.current.querySelector("summary").focus();
        menu.current.open = false;
      }
    };
    addEventListener("keydown", away);
    addEventListener("pointerdown", away);
    return () => {
      removeEventListener("keydown", away);
      removeEventListener("pointerdown", away);
    };
  }, []);
  return html`<details class="menu copy" ref=${menu}>
    <summary>Copy as…</summary>
    <div class="panel">
      ${command && html`<${Copyable} label="backhaul command" text=${command} />`}
      ${request && html`<${Copyable} label="curl" text=${curlOf(request)} />`}
    </div>
  </details>`;
}
