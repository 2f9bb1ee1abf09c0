// Where one is: the fragment holds the path and the filters, since REST owns the paths of the server.
// Rule: a view reads its filters from `route`, and changes them here only: back, reload and sharing keep them.
import { signal } from "../vendor/signals.js";
import { html } from "./html.js";
import { pathWith } from "./api.js";

let table = [];

// {name, path, params, query, load}; `name` is "missing" where no route matches.
export const route = signal({ name: "", path: "/", params: {}, query: {} });

// `routes` is [{name, pattern: "/clients/:id", load: () => import(…)}]; the first that matches wins.
export function startRouter(routes) {
  table = routes.map((one) => ({ ...one, names: [...one.pattern.matchAll(/:(\w+)/g)].map((found) => found[1]), test: new RegExp(`^${one.pattern.replace(/:\w+/g, "([^/]+)")}$`) }));
  addEventListener("hashchange", read);
  read();
}

function read() {
  const [path, query = ""] = (location.hash.replace(/^#/, "") || "/").split("?");
  for (const one of table) {
    const found = one.test.exec(path);
    if (found) {
      const params = Object.fromEntries(one.names.map((name, index) => [name, decoded(found[index + 1])]));
      route.value = { name: one.name, path, params, query: queryOf(query), load: one.load };
      return;
    }
  }
  route.value = { name: "missing", path, params: {}, query: queryOf(query), load: null };
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// A name that is given several times is an array.
function queryOf(text) {
  const query = {};
  for (const [name, value] of new URLSearchParams(text)) {
    query[name] = name in query ? [].concat(query[name], value) : value;
  }
  return query;
}

// The address of a view: href("/clients", {state: "offline"}); path("clients", id) encodes ids.
export const href = (path, query) => `#${pathWith(path, query)}`;
export const path = (...steps) => `/${steps.map(encodeURIComponent).join("/")}`;

export function navigate(to, query) {
  location.hash = href(to, query);
}

// Changes some filters of the present view in place: no new entry of the history; null or "" removes one.
export function setQuery(patch) {
  const { path: now, query } = route.value;
  history.replaceState(null, "", href(now, { ...query, ...patch }));
  read();
}

// <Link to="/clients" query=${{…}}>text</Link>
export function Link({ to, query, children, ...rest }) {
  return html`<a href=${href(to, query)} ...${rest}>${children}</a>`;
}
