// What the form suggests: clients, groups, labels, and the paths that a client allows.
// Rule: a suggestion is never required: what a person types is sent as it is, and the server judges it.
import { html, useEffect, useState } from "../../core/html.js";
import { get } from "../../core/api.js";
import { path } from "../../core/router.js";
import { Suggest } from "../../parts/fields.js";

const SAMPLE = 200;
const PATTERN = /^[A-Za-z0-9._*-]{0,63}$/;

// The labels and groups of the fleet, from its first clients: read once.
export function useFleetWords() {
  const [words, setWords] = useState({ labels: [], groups: [] });
  useEffect(() => {
    let gone = false;
    void Promise.all([get("/clients", { limit: SAMPLE }), get("/groups")])
      .then(([{ clients }, { groups }]) => {
        const labels = [...new Set(clients.flatMap((one) => Object.entries(one.labels).map(([name, value]) => `${name}=${value}`)))].sort();
        if (!gone) setWords({ labels, groups: groups.map((one) => `group:${one.name}`) });
      })
      .catch(() => {});
    return () => (gone = true);
  }, []);
  return words;
}

// One client in full, as the example whose roots and file types are suggested; null while there is none.
export function useClient(clientId) {
  const [client, setClient] = useState(null);
  useEffect(() => {
    let gone = false;
    setClient(null);
    // Found by the list first: a client that does not exist is no error of the page.
    if (clientId && PATTERN.test(clientId) && !clientId.includes("*")) {
      void get("/clients", { id: clientId, limit: 1 })
        .then(({ clients }) => (clients.length ? get(path("clients", clients[0].client_id)) : null))
        .then((found) => !gone && setClient(found))
        .catch(() => {});
    }
    return () => (gone = true);
  }, [clientId]);
  return client;
}

// A client id; with `more` also patterns and groups.
export function ClientField({ value, more = [], ...field }) {
  const known = PATTERN.test(value) ? "/clients" : null;
  return html`<${Suggest} ...${field} value=${value} words=${more.filter((one) => value && one.includes(value))} path=${known} params=${(text) => ({ id: text ? `${text.replace(/\*+$/, "")}*` : null, limit: 20 })} pick=${(body) => body.clients.map((one) => one.client_id)} />`;
}

// A path on `client`: its roots and default file, then what its folders hold (its last listing when it is away).
export function PathField({ client, value, ...field }) {
  const roots = client ? [client.default_file, ...client.roots.map((root) => `${root}/`)].filter(Boolean) : [];
  const root = client && client.roots.find((one) => value.startsWith(`${one}/`));
  const listed = root && client.connected && !/[*?[{]/.test(value) ? `${path("clients", client.client_id)}/files` : null;
  const params = (text) => ({ pattern: `${text}*`, limit: 50, ...(client.capabilities.includes("folders") ? { folders: true } : {}) });
  return html`<${Suggest} ...${field} value=${value} words=${listed ? [] : roots} path=${listed} params=${params} pick=${(body) => body.files.map((one) => (one.folder ? `${one.path}/` : one.path))} />`;
}

// Suggestions that are known already.
export function Known({ words, ...field }) {
  return html`<${Suggest} ...${field} words=${words} />`;
}

// A selector: the suggestions complete its last requirement.
export function SelectorField({ labels, value, ...field }) {
  const before = value.slice(0, value.lastIndexOf(",") + 1);
  return html`<${Known} ...${field} value=${value} words=${labels.map((one) => before + one)} />`;
}

// Several texts, each a tag that can be taken off; what stands in the field counts once it is left.
export function Many({ label, values, onChange, Input, noun, ...field }) {
  const [text, setText] = useState("");
  const add = (given) => {
    const more = given.split(noun === "path" ? "\n" : /[\s,]+/).map((one) => one.trim()).filter((one) => one && !values.includes(one));
    if (more.length) onChange([...values, ...more]);
    setText("");
  };
  const keys = (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      add(text);
    } else if (event.key === "Backspace" && !text && values.length) onChange(values.slice(0, -1));
  };
  return html`<div class="many">
    <${Input} label=${label} value=${text} onInput=${setText} onKeyDown=${keys} onBlur=${() => add(text)} ...${field} />
    ${values.length > 0 && html`<ul class="tags" aria-label=${`${label}: chosen`}>${values.map((one) => html`<li key=${one} class="tag"><code>${one}</code><button type="button" class="plain" aria-label=${`Remove ${one}`} onClick=${() => onChange(values.filter((other) => other !== one))}>×</button></li>`)}</ul>`}
  </div>`;
}
