// Why a person does something, asked in a question before an act; kept in the audit.
import { html, signal } from "../core/html.js";
import { Field } from "./fields.js";

const given = signal("");

// Before a question: the answer of another one does not count.
export const askWhy = () => (given.value = "");

// The header of the request with the effect; none where a person gave no reason.
export const whyHeader = () => (given.value.trim() ? { "Backhaul-Reason": encodeURIComponent(given.value.trim()) } : {});

export function Why({ placeholder = "", hint = "Kept in the audit" }) {
  return html`<${Field} label="Why" value=${given.value} onInput=${(text) => (given.value = text)} placeholder=${placeholder} hint=${hint} />`;
}
