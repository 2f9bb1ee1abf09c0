// A list of rows. Rule: a list that is cut shows that it is. On a phone each row is a card.
import { html, cls } from "../core/html.js";
import { count as shown } from "../core/format.js";

// `columns` is [{title, value(row), wide?, end?}]: `wide` takes what room is left, `end` aligns numbers.
// `cut` is false, true (there are more) or the count of all that match. `selected` is a Set of keys; `selectable(row)` says
// which rows can be ticked. `detail(row)` is what is shown below a row that is open, or nothing.
export function DataTable({ label, columns, rows, keyOf, empty, cut, onMore, selected, onSelect, selectable = () => true, detail = () => null, loading }) {
  if (!rows) return html`<div class="skeleton" role="status" aria-label="Reading">${[1, 2, 3, 4].map((one) => html`<div key=${one} />`)}</div>`;
  if (!rows.length) return empty || html`<p class="quiet">There are none.</p>`;
  const keys = rows.map(keyOf);
  const picks = selected ? rows.filter(selectable).map(keyOf) : [];
  const all = picks.length > 0 && picks.every((key) => selected.has(key));
  const flip = (key) => {
    const next = new Set(selected);
    if (!next.delete(key)) next.add(key);
    onSelect(next);
  };
  return html`<div class="scroll">
    <table class="data" role="table" aria-label=${label} aria-busy=${loading ? "true" : "false"}>
      <thead role="rowgroup">
        <tr role="row">
          ${selected && html`<th role="columnheader" scope="col" class="pick"><input type="checkbox" aria-label="Select all shown" checked=${all} disabled=${!picks.length} onChange=${() => onSelect(new Set(all ? [] : picks))} /></th>`}
          ${columns.map((column) => html`<th key=${column.title} role="columnheader" scope="col" class=${cls(column.wide && "wide", column.end && "end")}>${column.title}</th>`)}
        </tr>
      </thead>
      <tbody role="rowgroup">
        ${rows.flatMap((row, index) => [html`<tr key=${keys[index]} role="row" class=${cls(selected && selected.has(keys[index]) && "selected")}>
          ${selected && html`<td role="cell" class="pick">${selectable(row) && html`<input type="checkbox" aria-label=${`Select ${keys[index]}`} checked=${selected.has(keys[index])} onChange=${() => flip(keys[index])} />`}</td>`}
          ${columns.map((column) => html`<td key=${column.title} role="cell" data-title=${column.title} class=${cls(column.wide && "wide", column.end && "end")}>${column.value(row)}</td>`)}
        </tr>`, opened(keys[index], detail(row), columns.length + (selected ? 1 : 0))])}
      </tbody>
    </table>
    ${cut ? html`<${Cut} rows=${rows.length} cut=${cut} onMore=${onMore} />` : null}
  </div>`;
}

function opened(key, content, width) {
  return content ? html`<tr key=${`${key} opened`} role="row" class="opened"><td role="cell" colspan=${width}>${content}</td></tr>` : null;
}

function Cut({ rows, cut, onMore }) {
  const text = cut === true ? `The first ${shown(rows)} are shown; there are more.` : `The first ${shown(rows)} of ${shown(cut)} are shown.`;
  return html`<p class="cut" role="status">${text} ${onMore && html`<button type="button" onClick=${onMore}>Show more</button>`}</p>`;
}
