// The timeline as a picture: a row for each device thread, above them the thin row of the node's loop thread, where
// messages are handled. Forward is pale, backward full, weight gradients striped, the rest grey; an arrow is a message,
// from what posted it to what it set off. The law: time is bounded by pixels and kArrowsMax, not by what happened.
import {microbatch_colour} from "./colours.js";
import {clean_canvas} from "./dom.js";
import {cause_of, caused_by, first_after, row_key} from "./timeline_data.js";
import {span} from "./words.js";

const kLeft = 92, kAxis = 18, kThread = 22, kLoop = 9, kGap = 3, kNodeGap = 7;
const kArrowsMax = 700, kLabelWidth = 16;
export const kTimelineLeft = kLeft;

// Rows in order: {key, node, thread, label, y, height}; y from the top of all rows.
export function rows_of(data, nodes) {
  const threads = new Map(nodes.map(({node, threads: count}) => [node, count || 1]));
  for (const key of data.rows.keys()) {
    const [node, thread] = key.split("/").map(Number);
    threads.set(node, Math.max(threads.get(node) || 1, thread + 1));
  }
  const rows = [];
  let y = 0;
  for (const [node, count] of [...threads].sort((a, b) => a[0] - b[0])) {
    for (let thread = -1; thread < count; ++thread) {
      const height = thread < 0 ? kLoop : kThread;
      const label = thread < 0 ? "loop" : `node ${node}${count > 1 ? ` / ${thread}` : ""}`;
      rows.push({key: row_key(node, thread), node, thread, label, y, height});
      y += height + kGap;
    }
    y += kNodeGap;
  }
  return rows;
}

// scene: {data, rows, from_us, to_us, zero_us, top, chosen, chain (a Set or null), arrows}.
export function draw_timeline(canvas, scene, colours) {
  const {context, width, height} = clean_canvas(canvas);
  const scale = (width - kLeft) / (scene.to_us - scene.from_us);
  const x_of = (us) => kLeft + (us - scene.from_us) * scale;
  const y_of = (row) => row.y + kAxis - scene.top;
  const shows = (row) => y_of(row) + row.height > kAxis && y_of(row) < height;
  const view = {context, width, height, scale, x_of, y_of, shows, scene, colours, row_of: row_finder(scene.rows)};
  context.font = "11px system-ui, sans-serif";
  context.save();
  context.beginPath();
  context.rect(0, kAxis, width, height - kAxis);
  context.clip();
  scene.rows.filter(shows).forEach((row) => draw_row(view, row));
  context.beginPath();
  context.rect(kLeft, kAxis, width - kLeft, height - kAxis);
  context.clip();
  const drawn = scene.arrows ? draw_arrows(view) : 0;
  if (scene.chosen) draw_chain(view);
  context.restore();
  draw_axis(view);
  return {arrows: drawn};
}

function draw_axis({context, width, height, x_of, scene, colours}) {
  const all = scene.to_us - scene.from_us, rough = all / 8, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  context.fillStyle = colours.muted;
  context.strokeStyle = colours.line;
  context.lineWidth = 1;
  const zero = scene.zero_us;
  for (let n = Math.ceil((scene.from_us - zero) / step); zero + n * step <= scene.to_us; ++n) {
    const us = zero + n * step;
    const x = Math.round(x_of(us)) + 0.5;
    context.globalAlpha = 0.6;
    context.beginPath();
    context.moveTo(x, kAxis);
    context.lineTo(x, height);
    context.stroke();
    context.globalAlpha = 1;
    const text = n === 0 ? "0" : `${n < 0 ? "−" : "+"}${span(Math.abs(n) * step)}`;
    context.fillText(text, Math.min(x + 3, width - context.measureText(text).width - 1), 12);
  }
}

function draw_row(view, row) {
  const {context, width, colours, scene, x_of, y_of, scale} = view;
  const y = y_of(row), events = scene.data.rows.get(row.key) || [];
  context.globalAlpha = 1;
  context.fillStyle = colours.track;
  context.fillRect(kLeft, y, width - kLeft, row.height);
  context.fillStyle = colours.muted;
  context.font = row.thread < 0 ? "9px system-ui, sans-serif" : "11px system-ui, sans-serif";
  context.fillText(row.label, kLeft - 8 - context.measureText(row.label).width, y + row.height / 2 + 3.5);
  let drawn_to = -1;
  for (let i = first_after(events, scene.from_us); i < events.length; ++i) {
    const event = events[i], x = Math.max(kLeft, x_of(event.begin_us));
    if (x > width) break;
    const end = Math.min(width, x_of(event.end_us));
    if (end < drawn_to + 0.4) continue;  // under what is there already
    const wide = Math.max(end - x, row.thread < 0 ? 1 : 0.5);
    draw_event(view, event, x, y, wide, row.height);
    drawn_to = x + wide;
  }
}

function draw_event({context, scene, colours}, event, x, y, width, height) {
  const colour = microbatch_colour(event.kind === "apply" ? -1 : event.microbatch, colours.muted);
  const faded = scene.chain && !scene.chain.has(event) && !scene.chain.has(scene.data.events.get(event.id));
  const full = event.is === "message" || event.kind === "backward";
  context.globalAlpha = (faded ? 0.3 : 1) * (full ? 1 : event.kind === "weight_gradient" ? 0.35 : 0.5);
  context.fillStyle = colour;
  context.fillRect(x, y, width, height);
  if (event.kind === "weight_gradient" && width > 2) draw_stripes(context, colour, x, y, width, height, faded);
  context.globalAlpha = faded ? 0.4 : 1;
  if (width < kLabelWidth || height < 12 || event.microbatch < 0) return;
  context.fillStyle = event.kind === "backward" ? "#ffffff" : colours.ink;
  context.fillText(event.microbatch, x + width / 2 - 3, y + height / 2 + 4);
}

function draw_stripes(context, colour, x, y, width, height, faded) {
  context.strokeStyle = colour;
  context.globalAlpha = faded ? 0.3 : 1;
  context.lineWidth = 1.5;
  context.beginPath();
  for (let at = x + 3; at < x + width; at += 5) {
    context.moveTo(at, y);
    context.lineTo(at, y + height);
  }
  context.stroke();
}

// Where an arrow of this message begins and ends: at the segments that it joins if they are known, else on loop rows.
function ends_of(view, message) {
  const {scene, x_of} = view;
  const cause = cause_of(scene.data, message);
  const target = caused_by(scene.data, message).find((event) => event.is === "segment");
  const from = cause?.is === "segment" ? cause : null;
  const row_a = view.row_of(from ? from.node : message.from_node, from ? from.thread : -1);
  const row_b = view.row_of(target ? target.node : message.node, target ? target.thread : -1);
  if (!row_a || !row_b) return null;
  return {
    x1: x_of(from ? Math.min(from.end_us, message.sent_us) : message.sent_us),
    x2: x_of(target ? target.begin_us : message.begin_us),
    row_a,
    row_b
  };
}

function row_finder(rows) {
  const by_key = new Map(rows.map((row) => [row.key, row]));
  return (node, thread) => by_key.get(row_key(node, thread));
}

function draw_arrow(view, {x1, x2, row_a, row_b}) {
  const {context, y_of} = view;
  const down = row_b.y > row_a.y;
  const y1 = y_of(row_a) + (down ? row_a.height : 0), y2 = y_of(row_b) + (down ? 0 : row_b.height);
  const angle = Math.atan2(y2 - y1, x2 - x1), size = 5;
  context.beginPath();
  context.moveTo(x1, y1);
  context.lineTo(x2, y2);
  context.stroke();
  context.beginPath();
  context.moveTo(x2, y2);
  context.lineTo(x2 - size * Math.cos(angle - 0.4), y2 - size * Math.sin(angle - 0.4));
  context.lineTo(x2 - size * Math.cos(angle + 0.4), y2 - size * Math.sin(angle + 0.4));
  context.fill();
}

// Arrows between rows in sight, oldest first; of too many only every n-th, so that what is drawn is spread evenly.
function draw_arrows(view) {
  const {scene, context, colours} = view;
  const {messages} = scene.data, joined = [];
  for (let i = first_after(messages, scene.from_us); i < messages.length && messages[i].sent_us < scene.to_us; ++i) {
    if (messages[i].kind !== "SegmentDone") joined.push(messages[i]);
  }
  const stride = Math.max(1, Math.ceil(joined.length / kArrowsMax));
  let drawn = 0;
  context.lineWidth = 1;
  context.globalAlpha = scene.chain ? 0.12 : 0.55;
  for (let i = 0; i < joined.length; i += stride) {
    const ends = ends_of(view, joined[i]);
    if (!ends || ends.row_a === ends.row_b || !view.shows(ends.row_a) || !view.shows(ends.row_b)) continue;
    context.strokeStyle = context.fillStyle = microbatch_colour(joined[i].microbatch, colours.muted);
    draw_arrow(view, ends);
    ++drawn;
  }
  context.globalAlpha = 1;
  return drawn;
}

// The chain of the chosen event: every link from cause to effect, and a frame around what was chosen.
function draw_chain(view) {
  const {scene, context, colours, x_of, y_of} = view;
  context.globalAlpha = 1;
  context.strokeStyle = context.fillStyle = colours.ink;
  context.lineWidth = 1.4;
  for (const event of scene.chain) {
    const cause = cause_of(scene.data, event);
    if (!cause || !scene.chain.has(cause)) continue;
    const row_a = view.row_of(cause.node, cause.thread), row_b = view.row_of(event.node, event.thread);
    if (row_a && row_b && row_a !== row_b)
      draw_arrow(
          view,
          {x1: x_of(cause.is === "segment" ? cause.end_us : cause.begin_us), x2: x_of(event.begin_us), row_a, row_b});
  }
  const row = view.row_of(scene.chosen.node, scene.chosen.thread);
  if (!row) return;
  const x = x_of(scene.chosen.begin_us);
  context.lineWidth = 2;
  context.strokeRect(x - 1, y_of(row) - 1, Math.max(4, x_of(scene.chosen.end_us) - x + 2), row.height + 2);
}

// What is at a point: {row, event} or null; near misses of a few pixels count.
export function hit(canvas, scene, x, y) {
  const row = scene.rows.find((r) => y >= r.y + kAxis - scene.top - 1 && y <= r.y + r.height + kAxis - scene.top + 1);
  if (!row || x < kLeft) return null;
  const us_per_pixel = (scene.to_us - scene.from_us) / (canvas.clientWidth - kLeft);
  const us = scene.from_us + (x - kLeft) * us_per_pixel, near = 3 * us_per_pixel;
  const events = scene.data.rows.get(row.key) || [];
  const event = events[first_after(events, us - near)];
  return {row, us, event: event && event.begin_us <= us + near ? event : null};
}

export const height_of = (rows) =>
    (rows.length ? rows[rows.length - 1].y + rows[rows.length - 1].height : 0) + kAxis + 6;
