// Fields of forms. Rule: every field has a visible label; what is wrong with it stands below it.
import { html, cls, useEffect, useId, useRef, useState } from "../core/html.js";
import { get } from "../core/api.js";

const PAUSE = 200;

// A text field; `type` "textarea" for several lines. `onInput(text)`.
export function Field({ label, value = "", onInput, hint, problem, type = "text", wide, ...rest }) {
  const id = useId();
  const note = hint || problem ? `${id}-note` : undefined;
  const shared = { id, value, onInput: (event) => onInput(event.target.value), "aria-describedby": note, "aria-invalid": problem ? "true" : undefined, ...rest };
  return html`<div class=${cls("field", wide && "wide")}>
    <label for=${id}>${label}</label>
    ${type === "textarea" ? html`<textarea rows="4" ...${shared}></textarea>` : html`<input type=${type} autocomplete="off" spellcheck=${false} ...${shared} />`}
    ${note && html`<small id=${note} class=${cls(problem && "wrong")}>${problem || hint}</small>`}
  </div>`;
}

// `options` is ["a", …] or [{value, label}]. `onChange(value)`.
export function Select({ label, value = "", options, onChange, hint }) {
  const id = useId();
  const all = options.map((one) => (typeof one === "string" ? { value: one, label: one } : one));
  return html`<div class="field">
    <label for=${id}>${label}</label>
    <select id=${id} value=${value} onChange=${(event) => onChange(event.target.value)}>
      ${all.map((one) => html`<option key=${one.value} value=${one.value} selected=${one.value === value}>${one.label}</option>`)}
    </select>
    ${hint && html`<small>${hint}</small>`}
  </div>`;
}

// `onChange(bool)`.
export function Check({ label, checked, onChange, hint }) {
  const id = useId();
  return html`<div class="field check">
    <input id=${id} type="checkbox" checked=${checked} onChange=${(event) => onChange(event.target.checked)} />
    <label for=${id}>${label}</label>
    ${hint && html`<small>${hint}</small>`}
  </div>`;
}

// A text field that suggests: `path` is read with `params(text)` (or an object) a moment after the last key, and
// `pick(body)` answers the suggestions (texts). `path` null reads nothing; `words` are suggestions that are known already.
export function Suggest({ path = null, params, pick, words = [], ...field }) {
  const id = useId();
  const [found, setFound] = useState([]);
  const asked = useRef(0);
  const text = field.value || "";
  useEffect(() => {
    if (!path) return setFound([]);
    const number = (asked.current += 1);
    const timer = setTimeout(async () => {
      const body = await get(path, typeof params === "function" ? params(text) : params).catch(() => null);
      if (body && number === asked.current) setFound(pick(body).slice(0, 50));
    }, PAUSE);
    return () => clearTimeout(timer);
  }, [path, text]);
  return html`<${Field} ...${field} list=${id} /><datalist id=${id}>${[...words, ...found].map((one) => html`<option key=${one} value=${one} />`)}</datalist>`;
}
