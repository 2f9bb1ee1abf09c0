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

// A word as a shell takes it: nothing in it is run, whoever named it. A letter that a terminal may act on, or that is not
// seen, is written as its bytes; so are ' and \, since a shell without $'…' ends the word at the former.
export function quoted(given) {
  const word = String(given);
  if (/^[A-Za-z0-9_@%+:,./-][A-Za-z0-9_@%+=:,./-]*$/.test(word)) return word;
  if (!UNSEEN.test(word)) return `'${word.replaceAll("'", `'\\''`)}'`;
  return `$'${word.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}'\\]/gu, bytesOf)}'`;
}

// What a command is about, quoted, as its last words: after `--` where one of them would be taken for an option.
export function named(...words) {
  return [...(words.some((word) => String(word).startsWith("-")) ? ["--"] : []), ...words.map(quoted)].join(" ");
}

// A command line of `backhaul`: the verbs, the options, and the words that it is about (ids, paths), which are the last.
// An option with `true` has no value, one with a list is there once for each, and one with nothing (undefined, null,
// false, "") is left out. Every copied command with a value in it is made here.
export function backhaul(verbs, options = {}, ...about) {
  const given = Object.entries(options).flatMap(([name, value]) => [value].flat().filter(Boolean).map((one) => (one === true ? name : `${name} ${quoted(one)}`)));
  return ["backhaul", verbs, ...given, ...(about.length ? [named(...about)] : [])].join(" ");
}

const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;
const bytesOf = (letter) => [...new TextEncoder().encode(letter)].map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
