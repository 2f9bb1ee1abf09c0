// Sums of each hour as bars, drawn by uPlot, with the same numbers as a table for those who do not see it.
import { html, useEffect, useRef } from "../core/html.js";
import uPlot from "../vendor/uplot.js";
import { bytes, instant } from "../core/format.js";

const POWERS = Array.from({ length: 60 }, (_, power) => 2 ** power);
const WHOLE = Array.from({ length: 12 }, (_, power) => [1, 2, 5].map((step) => step * 10 ** power)).flat();

const HEIGHT = 160;
const HALF_AN_HOUR = 1_800;

// `times` are the beginnings of the hours in seconds; `series` is [{label, values, tone}], stacked, the first at the bottom.
// `unit(value)` writes a value.
export function Chart({ label, times, series, unit }) {
  const box = useRef(null);
  const key = JSON.stringify([times, series.map((one) => one.values)]);
  useEffect(() => {
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const place = box.current;
    let plot = null;
    const draw = () => {
      if (plot) plot.destroy();
      plot = drawn(place, times, series, unit);
    };
    const sizes = new ResizeObserver(() => plot.setSize({ width: place.clientWidth, height: HEIGHT }));
    draw();
    sizes.observe(place);
    scheme.addEventListener("change", draw);
    return () => {
      sizes.disconnect();
      scheme.removeEventListener("change", draw);
      plot.destroy();
    };
  }, [key]);
  return html`<figure class="chart" role="group" aria-label=${label}>
    <div ref=${box} aria-hidden="true"></div>
    <details class="numbers"><summary>As a table</summary>
      <div class="scroll"><table class="plain"><caption class="hidden">${label}</caption>
        <thead><tr><th scope="col">From</th>${series.map((one) => html`<th key=${one.label} scope="col" class="end">${one.label}</th>`)}</tr></thead>
        <tbody>${times.map((at, row) => html`<tr key=${at}><th scope="row">${instant(at)}</th>${series.map((one) => html`<td key=${one.label} class="end">${unit(one.values[row])}</td>`)}</tr>`)}</tbody>
      </table></div>
    </details>
  </figure>`;
}

function drawn(box, times, series, unit) {
  const { fontFamily } = getComputedStyle(box);
  const colour = coloursOf(box);
  const stacked = stack(series);
  const axis = { stroke: colour("text"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: `12px ${fontFamily}` };
  const options = {
    width: box.clientWidth || 300,
    height: HEIGHT,
    padding: [8, 20, 0, 0],
    cursor: { y: false, points: { show: false } },
    legend: { live: false, show: false },
    scales: { x: { time: true, range: [times[0] - HALF_AN_HOUR, times[times.length - 1] + HALF_AN_HOUR] }, y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.1 : 1] } },
    axes: [{ ...axis, grid: { show: false }, space: 64, size: 28, values: (_plot, found) => found.map((at) => clock(at)) }, { ...axis, size: 68, space: 44, incrs: unit === bytes ? POWERS : WHOLE, values: (_plot, found) => found.map((value) => (Number.isInteger(value) || value > 10 ? unit(value) : "")) }],
    series: [{}, ...stacked.map((one) => ({ label: one.label, stroke: colour(one.tone), fill: colour(one.tone), width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.7, 28], radius: 0.15 }) }))],
  };
  return new uPlot(options, [times, ...stacked.map((one) => one.values)], box);
}

// A canvas takes no variable: what the browser makes of one, for the present scheme.
function coloursOf(box) {
  const probe = box.appendChild(document.createElement("span"));
  const found = {};
  return (name) => {
    if (!found[name]) {
      probe.style.color = `var(--plot-${name})`;
      found[name] = getComputedStyle(probe).color;
    }
    return found[name];
  };
}

const clock = (at) => {
  const date = new Date(at * 1000);
  return `${String(date.getHours()).padStart(2, "0")}:${String(date.getMinutes()).padStart(2, "0")}`;
};

// Bars stand on the sum of those before them; the highest is drawn first, so that each shows its own part.
function stack(series) {
  let sums = null;
  const raised = series.map((one) => {
    sums = one.values.map((value, row) => value + (sums ? sums[row] : 0));
    return { ...one, values: sums };
  });
  return raised.reverse();
}
