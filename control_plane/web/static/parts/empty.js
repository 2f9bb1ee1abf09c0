// A list without rows: what it would show, and what to do first.
import { html } from "../core/html.js";

// `children` holds the first act: a button, a link, a command.
export function Empty({ title, text, children }) {
  return html`<div class="empty">
    <strong>${title}</strong>
    ${text && html`<p>${text}</p>`}
    ${children && html`<div class="row">${children}</div>`}
  </div>`;
}
