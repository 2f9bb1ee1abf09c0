// Short notes of what was done. Rule: a note never holds what a person must act on; that stays in the view.
import { html, signal } from "../core/html.js";

const notes = signal([]);
const SHOWN = 8_000;
let last = 0;

// `kind` is "good" or "bad"; `to` is an address like "#/uploads/…" with its `label`.
export function toast(text, { kind = "good", to = "", label = "Open" } = {}) {
  const note = { id: (last += 1), text, kind, to, label };
  notes.value = [...notes.value.slice(-3), note];
  setTimeout(() => drop(note.id), SHOWN);
}

const drop = (id) => (notes.value = notes.value.filter((one) => one.id !== id));

export function Toasts() {
  return html`<div class="toasts" role="status" aria-live="polite">
    ${notes.value.map((one) => html`<div key=${one.id} class=${`toast ${one.kind}`}>
      <span>${one.text}</span>
      ${one.to && html`<a href=${one.to} onClick=${() => drop(one.id)}>${one.label}</a>`}
      <button type="button" class="plain" aria-label="Close" onClick=${() => drop(one.id)}>×</button>
    </div>`)}
  </div>`;
}
