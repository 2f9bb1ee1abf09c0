// A text filter: the address follows a moment after the last key; what the server refuses is shown where it is wrong.
import { html, useEffect, useRef, useState } from "../core/html.js";
import { Field, Suggest } from "./fields.js";

const PAUSE = 90;

// `value` is the filter in the address; `onChange(text)`. With `path`, `params` and `pick` it suggests (parts/fields.js).
export function TypedFilter({ value = "", onChange, problem, ...field }) {
  const [text, setText] = useState(value);
  const typed = useRef(value);
  const timer = useRef(0);
  useEffect(() => {
    // The address was changed by something else: a link, the way back.
    if (value !== typed.current) {
      typed.current = value;
      setText(value);
    }
  }, [value]);
  useEffect(() => () => clearTimeout(timer.current), []);
  const input = (next) => {
    setText(next);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => {
      typed.current = next.trim();
      onChange(next.trim());
    }, PAUSE);
  };
  return html`<${field.path ? Suggest : Field} type="search" value=${text} onInput=${input} problem=${problem} ...${field} />`;
}

// For a 422 of a selector: the text with a mark below the character that is wrong, and what was expected.
export function placeOf(problem) {
  const { selector, position, detail } = problem.body || {};
  if (selector === undefined) return null;
  return html`<span class="place"><code>${selector}${"\n"}${" ".repeat(position)}^</code> ${detail}</span>`;
}
