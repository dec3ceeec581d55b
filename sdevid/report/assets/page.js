"use strict";
// Draws every .plot of the page by uPlot from the JSON that it holds.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const colour = (name) => css(name) || name;

function shortened(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return +(value / 1e6).toPrecision(4) + "M";
  if (size >= 1e4) return +(value / 1e3).toPrecision(4) + "k";
  return String(+value.toPrecision(4));
}

function errorBars(curves) {
  return (u) => {
    const { ctx } = u;
    curves.forEach((curve, i) => {
      if (!curve.error || !u.series[i + 1].show) return;
      ctx.save();
      ctx.strokeStyle = colour(curve.colour);
      ctx.lineWidth = 1.2 * devicePixelRatio;
      ctx.beginPath();
      curve.x.forEach((x, k) => {
        if (curve.y[k] === null || curve.error[k] === null) return;
        const at = u.valToPos(x, "x", true);
        ctx.moveTo(at, u.valToPos(curve.y[k] - curve.error[k], "y", true));
        ctx.lineTo(at, u.valToPos(curve.y[k] + curve.error[k], "y", true));
      });
      ctx.stroke();
      ctx.restore();
    });
  };
}

function range(curves) {
  let low = Infinity, high = -Infinity;
  for (const { y, error } of curves)
    y.forEach((value, k) => {
      if (value === null) return;
      const half = (error && error[k]) || 0;
      low = Math.min(low, value - half);
      high = Math.max(high, value + half);
    });
  const pad = 0.06 * (high - low) || Math.abs(high) || 1;
  return [low - pad, high + pad];
}

function draw(box, data, log) {
  const axis = { stroke: css("quiet"), grid: { stroke: css("rule"), width: 1 }, ticks: { stroke: css("rule") },
    font: "11px ui-sans-serif, system-ui, sans-serif", values: (u, all) => all.map(shortened) };
  const series = data.series.map((curve) => ({
    label: curve.name || data.label,
    stroke: colour(curve.colour),
    width: curve.kind === "points" ? 0 : 1.6,
    dash: curve.kind === "dashed" ? [5, 4] : undefined,
    points: curve.kind === "points" ? { show: true, size: 6, fill: colour(curve.colour) } : { show: false },
    value: (u, value) => shortened(value),
    spanGaps: data.series.length > 1,
  }));
  const positive = data.series.every(({ y }) => y.every((value) => value === null || value > 0));
  const scaled = log && positive ? { distr: 3 } : { range: (u, low, high) => u.zoomed ? [low, high] : data.limits || range(data.series) };
  const options = {
    width: box.clientWidth, height: 230,
    cursor: { drag: { x: true, y: false }, points: { size: 5 } },
    scales: { x: { time: false, range: (u, low, high) => [data.from_zero && !u.zoomed ? 0 : low, high > low ? high : low + 1] }, y: scaled },
    axes: [{ ...axis, label: data.x, labelSize: 18, labelFont: axis.font }, { ...axis, size: 54 }],
    series: [{ label: data.x, value: (u, value) => shortened(value) }, ...series],
    hooks: { draw: [errorBars(data.series)], setSelect: [(u) => { u.zoomed = true; }] },
  };
  const joined = uPlot.join(data.series.map(({ x, y }) => [x, y]), data.series.map(() => [2]));
  return { plot: new uPlot(options, joined, box), positive };
}

function mount(box) {
  const data = JSON.parse(box.querySelector("script").textContent);
  const state = { log: false, plot: null };
  const tools = document.createElement("div");
  tools.className = "plot-tools";
  const button = (text, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = text;
    made.addEventListener("click", act);
    tools.append(made);
    return made;
  };
  const redraw = () => {
    if (state.plot) state.plot.destroy();
    const drawn = draw(box, data, state.log);
    state.plot = drawn.plot;
    toggle.hidden = !drawn.positive;
    toggle.setAttribute("aria-pressed", String(state.log));
  };
  const toggle = button("log axis", () => { state.log = !state.log; redraw(); });
  button("whole range", redraw);
  box.before(tools);
  redraw();
  return redraw;
}

const drawings = [...document.querySelectorAll(".plot")].map(mount);
const all = () => drawings.forEach((redraw) => redraw());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
let width = innerWidth, waiting = 0;
addEventListener("resize", () => {
  if (innerWidth === width) return;
  width = innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(all, 150);
});
document.querySelectorAll("th[data-sort]").forEach((head) => {
  const sort = () => {
    const body = head.closest("table").tBodies[0];
    const falling = head.getAttribute("aria-sort") === "ascending";
    head.parentNode.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const key = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
    const order = (a, b) => (isNaN(key(a)) || isNaN(key(b)) ? key(a).localeCompare(key(b)) : key(a) - key(b));
    [...body.rows].sort((a, b) => (falling ? -order(a, b) : order(a, b))).forEach((row) => body.append(row));
  };
  head.tabIndex = 0;
  head.addEventListener("click", sort);
  head.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") sort(); });
});
