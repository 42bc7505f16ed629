// Who lives where and what flows between them: boxes that can be pressed over a canvas of lines.
import {clean_canvas, element, fill, move_focus, set_attribute, set_text} from "./dom.js";
import {draw_bands, draw_lines, tells_all} from "./topology_draw.js";
import {boxes_of, lay_out, lines_of, places_of} from "./topology_layout.js";
import {bytes, number} from "./words.js";

const kWorst = ["stuck", "computing", "handling", "waiting", "idle"];

function name_of(box, single) {
  if (single) return box.key;
  return box.actors.length === 1 ? box.actors[0] : `${box.role} ×${box.actors.length}`;
}
const state_of = (box) => kWorst.find((state) => box.states[state] > 0) || "idle";

export function make_topology(app) {
  const section = document.getElementById("topology"), map = section.querySelector(".map");
  const canvas = map.querySelector("canvas"), list = map.querySelector(".places");
  let chosen = null, model = null;

  const choose = (key) => {
    chosen = key;
    app.redraw(draw);
  };
  const make = () => {
    const button = element("button", {
      tabindex: "-1",
      onmouseenter: () => choose(button.key),
      onmouseleave: () => choose(null),
      onfocus: () => choose(button.key),
      onblur: () => choose(null),
      onclick: () => (button.actors.length === 1 ? app.open_actor(button.actors[0]) : app.filter_actors(button.role))
    });
    return button;
  };
  list.addEventListener("keydown", (key) => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[key.key];
    if (step) move_focus([...list.children], step);
    if (step) key.preventDefault();
  });

  function draw_buttons() {
    fill(list, [...model.boxes.values()], make, (button, box, index) => {
      button.key = box.key;
      button.actors = box.actors;
      button.role = box.role;
      set_text(button, name_of(box, model.single));
      set_attribute(button, "data-state", state_of(box));
      set_attribute(
          button, "title",
          Object.entries(box.states).map(([state, n]) => (model.single ? state : `${n} ${state}`)).join(", "));
      if (index === 0 && !list.querySelector("[tabindex='0']")) button.tabIndex = 0;
      Object.assign(button.style, {left: `${box.x}px`, top: `${box.y}px`, width: `${box.width}px`});
    });
  }

  function draw() {
    const view = app.view;
    if (!view) return;
    model = boxes_of(view);
    const layout = lay_out(model, map.clientWidth);
    map.style.setProperty("--height", `${layout.height}px`);
    draw_buttons();
    const {context, width} = clean_canvas(canvas);
    draw_bands(context, width, layout, model, app.colours);
    const lines = lines_of(view, model.home);
    draw_lines(context, lines, model.boxes, chosen, app.colours);
    tell(view, lines);
  }
  function tell(view, lines) {
    const sum = (what) => lines.reduce((all, line) => all + line[what], 0);
    const actors = number(places_of(view).length), hint = tells_all(lines) ? "" : " (point at a box to read them)";
    set_text(
        section.querySelector("small"),
        `${actors} actors on ${view.nodes.length} nodes, ${number(sum("messages"))} messages/s, ${
            bytes(Math.round(sum("bytes")))}/s`);
    set_text(
        section.querySelector(".legend"),
        `on the edges: messages/s · free credits/of${hint}; dashed: no credit left; the thicker, the more messages`);
  }
  return app.in_section(section, draw);
}
