// Copies a text, also where the browser gives pages no clipboard (a page of plain http).
import { html, useRef, useState } from "../core/html.js";

const SHOWN = 2_000;

// The text in a box with a button. `label` names it.
export function Copyable({ label, text }) {
  const box = useRef(null);
  const [note, setNote] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setNote("Copied");
    } catch {
      getSelection().selectAllChildren(box.current);
      setNote("Press Ctrl-C");
    }
    setTimeout(() => setNote(""), SHOWN);
  };
  return html`<div class="copyable">
    <span class="label">${label}</span>
    <code ref=${box} tabindex="0">${text}</code>
    <button type="button" onClick=${copy} aria-label=${`Copy: ${label}`}>${note || "Copy"}</button>
    <span class="hidden" role="status">${note}</span>
  </div>`;
}

// A word as a POSIX shell takes it.
export const quoted = (word) => (/^[A-Za-z0-9_@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`);
