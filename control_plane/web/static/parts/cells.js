// Many small cells with one stop of the Tab key: the arrow keys move among them.
// Rule: a cell is a button or a link with `data-cell` and a name for screen readers; only the first has tabindex 0.

const STEP = { ArrowLeft: -1, ArrowRight: 1 };

// The `onKeyDown` of the element around the cells.
export function moveAmongCells(event) {
  const from = event.target.closest("[data-cell]");
  if (!from) return;
  const cells = [...event.currentTarget.querySelectorAll("[data-cell]")];
  const index = cells.indexOf(from);
  let to = null;
  if (event.key in STEP) to = cells[index + STEP[event.key]];
  else if (event.key === "Home") [to] = cells;
  else if (event.key === "End") to = cells.at(-1);
  else if (event.key === "ArrowDown" || event.key === "ArrowUp") to = cells[index + widthOf(cells) * (event.key === "ArrowDown" ? 1 : -1)];
  else return;
  event.preventDefault();
  if (!to) return;
  from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}

// The number of cells in the first row, as they are laid out.
function widthOf(cells) {
  const top = cells[0].getBoundingClientRect().top;
  const next = cells.findIndex((cell) => cell.getBoundingClientRect().top > top + 1);
  return next < 0 ? cells.length : next;
}
