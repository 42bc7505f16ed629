// The wait-for graph, from who asks to the root. Quiet and flat while all is well; red, tall and with the sentences of
// `troupe why` beside it when something stands still. The law: a circle is drawn too, and what is drawn is bounded.
import {element, fill, set_attribute, set_text, svg} from "./dom.js";
import {span} from "./words.js";

const kBox = {
  width: 132,
  height: 26
},
      kPlacesMax = 40;
// How far it is to the next depth, and to a neighbour of the same depth.
const kTall = {
  down: 68,
  right: 0,
  beside: [158, 0]
};
const kFlat = {
  down: 0,
  right: 268,
  beside: [0, 44]
};

// Depth of each actor: one more than the deepest that waits for it. A circle ends where it began.
function depths(chain) {
  const depth = new Map(), waits_of = Map.groupBy(chain, (link) => link.from);
  const go = (actor, at, above) => {
    if (above.has(actor) || (depth.get(actor) ?? -1) >= at || depth.size >= kPlacesMax) return;
    depth.set(actor, at);
    const below = new Set(above).add(actor);
    for (const link of waits_of.get(actor) || []) go(link.to, at + 1, below);
  };
  const awaited = new Set(chain.map((link) => link.to)), first = chain.filter((link) => !awaited.has(link.from));
  (first.length > 0 ? first : chain.slice(0, 1)).forEach((link) => go(link.from, 0, new Set()));
  return depth;
}

function lay_out(chain, shape) {
  const at = new Map(), used = [];
  for (const [actor, depth] of depths(chain)) {
    used[depth] = (used[depth] ?? -1) + 1;
    at.set(actor, {
      depth,
      x: depth * shape.right + used[depth] * shape.beside[0],
      y: depth * shape.down + used[depth] * shape.beside[1]
    });
  }
  return at;
}

const path_of = (points) => `M${points[0]}C${points.slice(1).join(" ")}`;

// Tall: down from box to box; what closes a circle, or passes others by, goes around on the right.
function tall_link(from, to) {
  const middle = kBox.height / 2, right = Math.max(from.x, to.x) + kBox.width + 34;
  if (to.depth - from.depth !== 1) {
    const path = path_of([
      [from.x + kBox.width, from.y + middle], [right, from.y + middle], [right, to.y + middle],
      [to.x + kBox.width + 3, to.y + middle]
    ]);
    return {path, text: [right - 4, (from.y + to.y) / 2 + middle + 4]};
  }
  const y1 = from.y + kBox.height, y2 = to.y - 3;
  return {
    path: path_of([[from.x + 20, y1], [from.x + 20, y1 + 18], [to.x + 20, y2 - 20], [to.x + 20, y2]]),
    text: [(from.x + to.x) / 2 + 28, (y1 + y2) / 2 + 4]
  };
}
// Flat: to the right from box to box; the others go around below.
function flat_link(from, to) {
  const middle = kBox.height / 2;
  if (to.depth - from.depth !== 1) {
    const below = Math.max(from.y, to.y) + kBox.height + 22, x1 = from.x + kBox.width / 2, x2 = to.x + kBox.width / 2;
    return {
      path: path_of([[x1, from.y + kBox.height], [x1, below], [x2, below], [x2, to.y + kBox.height + 3]]),
      text: [(x1 + x2) / 2 - 40, below - 2]
    };
  }
  const x1 = from.x + kBox.width, x2 = to.x - 3, bend = (x2 - x1) / 2;
  return {
    path:
        path_of([[x1, from.y + middle], [x1 + bend, from.y + middle], [x2 - bend, to.y + middle], [x2, to.y + middle]]),
    text: [x1 + 8, (from.y + to.y) / 2 + middle - 5]
  };
}

function draw_place(actor, {x, y}, root, open) {
  const text = svg("text", {x: kBox.width / 2, y: 17, "text-anchor": "middle"}, actor);
  const properties = {
    transform: `translate(${x} ${y})`,
    class: root ? "place root" : "place",
    tabindex: "0",
    role: "button",
    "aria-label": `open ${actor}`
  };
  const box = svg("g", properties, svg("rect", {...kBox, rx: 4}), text);
  box.addEventListener("click", () => open(actor));
  box.addEventListener("keydown", (key) => key.key === "Enter" && open(actor));
  return box;
}

function picture(chain, tall, open) {
  const at = lay_out(chain, tall ? kTall : kFlat), waiting = new Set(chain.map((link) => link.from));
  const links = chain.filter((link) => at.has(link.from) && at.has(link.to));
  const drawn = links.flatMap((link) => {
    const {path, text} = (tall ? tall_link : flat_link)(at.get(link.from), at.get(link.to));
    return [
      svg("path", {d: path, "marker-end": "url(#why_head)"}),
      svg("text", {x: text[0], y: text[1]}, `${link.what}, ${span(link.age_us)}`)
    ];
  });
  const boxes = [...at].map(([actor, place]) => draw_place(actor, place, !waiting.has(actor), open));
  const around = links.some((link) => at.get(link.to).depth - at.get(link.from).depth !== 1);
  const width =
      Math.max(...[...at.values()].map(({x}) => x)) + kBox.width + (tall && around ? 140 : 2) + (tall ? 40 : 0);
  const height = Math.max(...[...at.values()].map(({y}) => y)) + kBox.height + (!tall && around ? 26 : 2);
  const head = svg(
      "marker", {id: "why_head", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, orient: "auto"},
      svg("path", {d: "M0 0L8 4L0 8z"}));
  return svg(
      "svg",
      {width, height, viewBox: `-1 -1 ${width + 1} ${height + 1}`, role: "group", "aria-label": "wait-for graph"},
      svg("defs", {}, head), ...drawn, ...boxes);
}

export function make_why(app) {
  const section = document.getElementById("why"), body = section.querySelector(".body");
  const graph = element("div", {class: "graph"}), links = element("ol"), root = element("p", {class: "root_sentence"});
  body.append(graph, element("div", {class: "sentences"}, links, root));
  let drawn = "";
  return app.in_section(section, () => {
    const why = app.view?.why || {}, chain = why.chain || [], bad = Boolean(app.view && !app.view.healthy);
    set_attribute(section, "data-bad", bad);
    fill(links, why.links || [], () => element("li"), set_text);
    set_text(root, bad ? `root: ${why.root || "unknown"}` : chain.length > 0 ? "" : "nobody waits");
    const shape = JSON.stringify([bad, chain]);
    if (shape === drawn || graph.contains(document.activeElement)) return;
    drawn = shape;
    graph.replaceChildren(chain.length > 0 ? picture(chain, bad, app.open_actor) : "");
  });
}
