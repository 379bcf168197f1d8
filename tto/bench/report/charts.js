// Line charts drawn as SVG at the width the page has, so that text keeps its size on a phone.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const report = JSON.parse(document.getElementById("data").textContent);
const hidden = new Set(report.curves.filter((curve) => !curve.shown).map((curve) => curve.label));

function element(name, attributes = {}, parent = null, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

// A colour per codec; the efforts of a model go from pale to full.
function color(curve) {
  if (curve.kind === "published") return "var(--published)";
  const base = `var(--${curve.kind}-${curve.hue})`;
  return curve.kind === "model" ? `color-mix(in oklab, ${base} ${curve.strength}%, var(--card))` : base;
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
    for (const factor of [1, 2, 5]) {
      const value = factor * 10 ** power;
      if (value >= low * 0.999 && value <= high * 1.001) found.push(+value.toPrecision(6));
    }
  return found;
}

// lines: [{points: [{x, y, tip, label}], color, curve}]
function drawChart(host, lines, options) {
  host.replaceChildren();
  const width = Math.max(280, host.clientWidth);
  const height = Math.round(Math.min(420, Math.max(280, width * 0.72)));
  const box = { left: 46, right: width - 12, top: 28, bottom: height - 44 };
  const all = lines.flatMap((line) => line.points);
  if (!all.length) {
    host.textContent = "No curve is shown.";
    return;
  }
  const across = options.logX ? Math.log10 : (x) => x;
  const xs = options.xRange ?? [Math.min(...all.map((p) => p.x)), Math.max(...all.map((p) => p.x))];
  const ys = padded(Math.min(...all.map((p) => p.y)), Math.max(...all.map((p) => p.y)), options.room ?? 0.06);
  const x = (value) => box.left + ((across(value) - across(xs[0])) / (across(xs[1]) - across(xs[0]))) * (box.right - box.left);
  const y = (value) => box.bottom - ((value - ys[0]) / (ys[1] - ys[0])) * (box.bottom - box.top);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": options.title }, host);
  element("text", { x: box.left, y: 14, class: "title" }, svg, options.title);
  for (const tick of ticks(ys[0], ys[1], 6)) {
    element("line", { x1: box.left, x2: box.right, y1: y(tick), y2: y(tick), class: "grid" }, svg);
    element("text", { x: box.left - 6, y: y(tick) + 4, "text-anchor": "end" }, svg, tick);
  }
  for (const tick of options.logX ? logTicks(...xs) : ticks(...xs, width / 70)) {
    element("line", { x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom, class: "grid" }, svg);
    element("text", { x: x(tick), y: box.bottom + 17, "text-anchor": "middle" }, svg, tick);
  }
  element("line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, class: "axis" }, svg);
  element("text", { x: (box.left + box.right) / 2, y: height - 6, "text-anchor": "middle" }, svg, options.xLabel);
  const marks = [];
  const placed = [];
  for (const line of lines) {
    const path = line.points.map((p, i) => `${i ? "L" : "M"}${x(p.x).toFixed(1)} ${y(p.y).toFixed(1)}`).join("");
    element("path", { d: path, stroke: line.color, class: line.published ? "published" : "" }, svg);
    for (const point of line.points) {
      const mark = { x: x(point.x), y: y(point.y), point, line };
      marks.push(mark);
      if (!line.published) element("circle", { cx: mark.x, cy: mark.y, r: 3, fill: line.color }, svg);
      if (point.label) drawLabel(svg, mark, box, options.labelsBelow, placed);
    }
  }
  followPointer(svg, marks, width);
}

// Above the point, or below it where the line rises or another label is in the way.
function drawLabel(svg, mark, box, below, placed) {
  const left = mark.line.published && mark.x > box.right - 120;
  const place = { x: mark.x + (left ? 0 : 8), "text-anchor": left ? "end" : "start" };
  const text = element("text", { ...place, class: mark.line.published ? "" : "label" }, svg, mark.point.label);
  const taken = (y) => placed.some((other) => Math.abs(other.y - y) < 13 && other.right > place.x && other.x < place.x);
  const [first, second] = below ? [18, -8] : [-8, 18];
  const y = mark.y + (taken(mark.y + first) ? second : first);
  text.setAttribute("y", y);
  placed.push({ x: place.x, right: place.x + text.getComputedTextLength(), y });
}

function padded(low, high, share) {
  const room = (high - low || 1) * share;
  return [low - room, high + room];
}

function followPointer(svg, marks, width) {
  const tip = document.getElementById("tip");
  const dot = element("circle", { r: 6, fill: "none", "stroke-width": 2, visibility: "hidden" }, svg);
  const leave = () => {
    tip.hidden = true;
    dot.setAttribute("visibility", "hidden");
  };
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const scale = width / frame.width;
    const [px, py] = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
    const distance = (mark) => Math.hypot(mark.x - px, mark.y - py);
    const nearest = marks.reduce((best, mark) => (distance(mark) < distance(best) ? mark : best));
    if (distance(nearest) > 40) return leave();
    for (const [key, value] of [["cx", nearest.x], ["cy", nearest.y], ["stroke", nearest.line.color], ["visibility", "visible"]])
      dot.setAttribute(key, value);
    tip.textContent = nearest.point.tip;
    tip.hidden = false;
    const left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.max(8, event.clientY - tip.offsetHeight - 12)}px`;
  });
  svg.addEventListener("pointerleave", leave);
}

// --- rate and distortion ----------------------------------------------------------------------

function startCharts() {
  for (const metric of report.metrics) {
    const figure = document.createElement("figure");
    const host = document.createElement("div");
    host.className = "chart";
    host.id = `chart-${metric.name}`;
    figure.append(host);
    document.getElementById("charts").append(figure);
  }
  document.getElementById("charts").classList.toggle("single", report.metrics.length === 1);
}

function drawCurves() {
  const shown = report.curves.filter((curve) => !hidden.has(curve.label));
  for (const metric of report.metrics) {
    const lines = shown.map((curve) => curveLine(curve, metric)).reverse(); // the first one lies on top
    const options = { title: metric.title, xLabel: "bits per pixel", xRange: [0, report.widest] };
    drawChart(document.getElementById(`chart-${metric.name}`), lines, options);
  }
}

function curveLine(curve, metric) {
  const points = curve.points
    .filter((p) => typeof p[metric.name] === "number" && p.bpp <= report.widest)
    .map((p) => ({ x: p.bpp, y: p[metric.name], tip: pointTip(curve, p, metric) }));
  const published = curve.kind === "published";
  if (published && points.length) points.at(-1).label = curve.label;
  return { points, color: color(curve), published };
}

function pointTip(curve, p, metric) {
  const lines = [p.quality === null ? curve.label : `${curve.label}, quality ${p.quality}`];
  lines.push(`${p.bpp.toFixed(3)} bpp, ${metric.title} ${p[metric.name].toFixed(2)}`);
  if (p.encode_seconds !== null) lines.push(`encode ${p.encode_seconds.toFixed(3)} s, decode ${p.decode_seconds.toFixed(3)} s`);
  return lines.join("\n");
}

function drawLegend() {
  const host = document.getElementById("legend");
  const more = document.getElementById("legend-more");
  more.parentElement.hidden = report.curves.every((curve) => curve.shown);
  for (const curve of report.curves) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = curve.source || curve.settings;
    button.setAttribute("aria-pressed", String(!hidden.has(curve.label)));
    const sample = element("svg", { width: 24, height: 10, "aria-hidden": true });
    const dashes = curve.kind === "published" ? { "stroke-dasharray": "1 4", "stroke-linecap": "round" } : {};
    element("line", { x1: 1, x2: 23, y1: 5, y2: 5, stroke: color(curve), "stroke-width": 2.5, ...dashes }, sample);
    button.append(sample, curve.label);
    button.addEventListener("click", () => {
      if (!hidden.delete(curve.label)) hidden.add(curve.label);
      button.setAttribute("aria-pressed", String(!hidden.has(curve.label)));
      drawCurves();
    });
    (curve.shown ? host : more).append(button);
  }
}

// --- what effort buys -------------------------------------------------------------------------

function drawEffort() {
  const section = document.getElementById("effort");
  section.hidden = !report.effort.length;
  if (section.hidden) return;
  for (const [gain, title] of [["bd_rate", "BD-rate against none (%)"], ["J_gain", "J lower than with none (%)"]]) {
    const lines = report.effort.map((model) => ({
      color: `var(--model-${model.hue})`,
      points: model.points.map((p) => ({
        x: p.encode_seconds,
        y: p[gain],
        label: p.effort,
        tip: `${model.codec} (${p.effort})\n${title}: ${p[gain].toFixed(2)}\n${p.encode_seconds.toFixed(2)} s to encode`,
      })),
    }));
    const seconds = lines.flatMap((line) => line.points.map((p) => p.x));
    const [first, last] = [Math.min(...seconds), Math.max(...seconds)];
    const xRange = [first / 1.4, last * Math.max(2, (last / first) ** 0.35)]; // room for the last label
    const options = { title, xLabel: "seconds to encode one image", logX: true, xRange, room: 0.12, labelsBelow: gain === "J_gain" };
    drawChart(document.getElementById(`chart-${gain}`), lines, options);
  }
}

function drawAll() {
  drawCurves();
  drawEffort();
}
