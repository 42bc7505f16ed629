// Where the actors stand in the topology. Bands are nodes; columns go from who commands and feeds, by the stages, to
// their experts and copies. More than a few dozen actors become one box for each node and role, many nodes ranges. The
// law: how many boxes and lines there are is bounded, however large the run.
import {address} from "./words.js";

const kColumns = [
  ["supervisor", "conductor", "loader", "rollout buffer", "rollout", "judge"], ["stage"], ["expert shard"],
  ["shadow", "checkpointer"]
];
const kSingleMax = 48, kBandsMax = 12, kLinesMax = 400, kHeightWanted = 300;
const kWidth = 120, kGap = 7, kBandGap = 10, kLabel = 62, kLineRoom = 62;
export const kBoxHeight = 24;

// Every actor that is known: [actor, node, state].
export function places_of(view) { return view.places || view.actors.map((a) => [a.actor, a.node, a.state]); }

// Boxes {key, role, band, actors, state}, and of each actor its box's key.
export function boxes_of(view) {
  const places = places_of(view), single = places.length <= kSingleMax;
  const nodes = 1 + Math.max(0, ...places.map(([, node]) => node));
  const nodes_per_band = Math.ceil(nodes / kBandsMax);
  const boxes = new Map(), home = new Map();
  for (const [actor, node, state] of places) {
    const {role} = address(actor), band = Math.floor(node / nodes_per_band);
    const key = single ? actor : `${band}/${role}`;
    if (!boxes.has(key)) boxes.set(key, {key, role, band, actors: [], states: {}});
    const box = boxes.get(key);
    box.actors.push(actor);
    box.states[state] = (box.states[state] || 0) + 1;
    home.set(actor, key);
  }
  return {boxes, home, single, nodes_per_band, nodes};
}

// Edges between boxes: rates add up, of credits the scarcest counts.
export function lines_of(view, home) {
  const lines = new Map();
  for (const edge of view.edges || []) {
    const from = home.get(edge.from), to = home.get(edge.to);
    if (!from || !to || from === to) continue;
    const key = `${from}>${to}`;
    const line = lines.get(key) || lines.set(key, {from, to, messages: 0, bytes: 0, credits: null}).get(key);
    line.messages += edge.messages_per_second || 0;
    line.bytes += edge.bytes_per_second || 0;
    if (edge.credits && (!line.credits || edge.credits.free < line.credits.free)) line.credits = edge.credits;
  }
  return [...lines.values()].sort((a, b) => b.messages - a.messages).slice(0, kLinesMax);
}

const column_of = (role) => {
  const at = kColumns.findIndex((roles) => roles.includes(role));
  return at < 0 ? kColumns.length - 1 : at;
};

// Gives every box x, y, width; answers the height of all and where the bands begin.
export function lay_out(model, width) {
  const all = [...model.boxes.values()].sort((a, b) => a.band - b.band || column_of(a.role) - column_of(b.role));
  const used = [...new Set(all.map((box) => column_of(box.role)))].sort();
  const column = (width - kLabel) / used.length, box_width = Math.min(kWidth, column - kLineRoom);
  const cells = Map.groupBy(all, (box) => box.band);
  const stacked = (boxes) => Math.max(...used.map((at) => boxes.filter((box) => column_of(box.role) === at).length));
  const rows = [...cells.values()].reduce((sum, boxes) => sum + stacked(boxes), 0);
  const spare = (kHeightWanted - rows * (kBoxHeight + kGap) - cells.size * (kBandGap + 8)) / rows;
  const row = kBoxHeight + kGap + Math.max(0, Math.min(24, spare));
  const bands = [];
  let y = 0;
  for (const [band, boxes] of cells) {
    const next = new Map(), height = stacked(boxes) * row + 8;
    for (const box of boxes) {
      const at = used.indexOf(column_of(box.role)), nth = next.get(at) || 0;
      next.set(at, nth + 1);
      box.width = box_width;
      box.x = kLabel + at * column + (column - box_width) / 2;
      box.y = y + 4 + nth * row + (row - kBoxHeight) / 2;
    }
    bands.push({band, y, height});
    y += height + kBandGap;
  }
  return {bands, height: y - kBandGap};
}

// The curve from box to box, as four points. Boxes of one column are joined on their left, by a bow that grows with how
// far they are apart; there and back do not cover each other.
export function curve_of(a, b) {
  const same = Math.abs(a.x - b.x)<4, right = b.x>a.x, lift = right || (same && b.y > a.y) ? -4 : 4;
  const x1 = right ? a.x + a.width : a.x, x2 = same ? b.x : right ? b.x : b.x + b.width;
  const y1 = a.y + kBoxHeight / 2 + lift, y2 = b.y + kBoxHeight / 2 + lift;
  const bow = same ? -Math.min(44, 18 + Math.abs(y2 - y1) / 6) : (x2 - x1) / 2;
  return [[x1, y1], [x1 + bow, y1], [same ? x2 + bow : x2 - bow, y2], [x2, y2]];
}
export function point_of(curve, t) {
  const u = 1 - t, weights = [u * u * u, 3 * u * u * t, 3 * u * t * t, t * t * t];
  return [0, 1].map((axis) => curve.reduce((sum, point, i) => sum + weights[i] * point[axis], 0));
}
