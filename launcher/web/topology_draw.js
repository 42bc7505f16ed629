// The topology's lines and what is written on them: messages a second, free credits. A line without a credit left is
// dashed and of another colour.
import {curve_of, kBoxHeight, point_of} from "./topology_layout.js";
import {number} from "./words.js";

const kLabelsMax = 40;
const starved = (line) => line.credits?.free === 0;
export const tells_all = (lines) => lines.length <= kLabelsMax;

export function draw_bands(context, width, {bands}, {nodes, nodes_per_band}, colours) {
  context.font = "11px system-ui, sans-serif";
  for (const {band, y, height} of bands) {
    context.fillStyle = colours.track;
    context.fillRect(0, y, width, height);
    context.fillStyle = colours.muted;
    const first = band * nodes_per_band, last = Math.min(nodes, first + nodes_per_band) - 1;
    context.fillText(first === last ? `node ${first}` : `${first}–${last}`, 8, y + 18);
  }
}

// chosen: the key of a box whose lines stand out, and alone are labelled.
export function draw_lines(context, lines, boxes, chosen, colours) {
  const near = lines.filter((line) => line.from === chosen || line.to === chosen);
  const calm = (chosen ? 0.5 : 1) * Math.max(0.1, Math.min(0.55, 16 / lines.length));
  for (const line of lines)
    if (!near.includes(line)) draw_line(context, line, boxes, colours, calm);
  for (const line of near) draw_line(context, line, boxes, colours, 1);
  const taken = [...boxes.values()].map((box) => ({x: box.x, y: box.y, width: box.width, height: kBoxHeight}));
  for (const line of labelled(lines, near, chosen)) draw_label(context, line, boxes, colours, taken, starved(line));
}

// Those with credits first: they find a place before the others.
function labelled(lines, near, chosen) {
  if (chosen) return near;
  if (!tells_all(lines)) return lines.filter(starved);
  return [...lines.filter((line) => line.credits), ...lines.filter((line) => !line.credits && line.messages > 0)];
}

function draw_line(context, line, boxes, colours, alpha) {
  const curve = curve_of(boxes.get(line.from), boxes.get(line.to)), [start, c1, c2, end] = curve;
  context.strokeStyle = context.fillStyle = starved(line) ? colours.warn : alpha === 1 ? colours.ink : colours.muted;
  context.globalAlpha = starved(line) ? Math.max(alpha, 0.8) : alpha;
  context.lineWidth = 0.6 + Math.min(2.4, Math.log10(1 + line.messages) * 0.7);
  context.setLineDash(starved(line) ? [5, 3] : []);
  context.beginPath();
  context.moveTo(...start);
  context.bezierCurveTo(...c1, ...c2, ...end);
  context.stroke();
  context.setLineDash([]);
  const tip = c2[0] < end[0] ? -6 : 6;
  context.beginPath();
  context.moveTo(...end);
  context.lineTo(end[0] + tip, end[1] - 3);
  context.lineTo(end[0] + tip, end[1] + 3);
  context.fill();
  context.globalAlpha = 1;
}

// Where along its line it covers no other label and no box; nowhere if there is no such place, unless it must be told.
function draw_label(context, line, boxes, colours, taken, must) {
  const text = `${number(line.messages, 2)}/s` + (line.credits ? ` · ${line.credits.free}/${line.credits.of}` : "");
  const width = context.measureText(text).width + 6, curve = curve_of(boxes.get(line.from), boxes.get(line.to));
  const frame = (t) => point_of(curve, t).map((value, axis) => value - (axis === 0 ? width / 2 : 7));
  const free = ([x, y]) => taken.every(
      (other) => x > other.x + other.width || x + width < other.x || y > other.y + other.height || y + 14 < other.y);
  const at = [0.5, 0.4, 0.6, 0.3, 0.7, 0.22, 0.78].map(frame).find(free) || (must ? frame(0.5) : null);
  if (!at) return;
  taken.push({x: at[0], y: at[1], width, height: 14});
  context.fillStyle = colours.panel;
  context.globalAlpha = 0.88;
  context.fillRect(at[0], at[1], width, 14);
  context.globalAlpha = 1;
  context.fillStyle = starved(line) ? colours.warn : colours.ink;
  context.fillText(text, at[0] + 3, at[1] + 10.5);
}
