// Expert load, over layers and steps: each layer's busiest expert over the mean, and of the chosen layer every expert.
// A step is a column, the newest on the right; colour is rows over the mean, on a scale that the colour-blind can read.
import {load_colour} from "./colours.js";
import {clean_canvas, element, fill, set_attribute, set_hidden, set_text} from "./dom.js";
import {number} from "./words.js";

const kRowMost = 16, kRowLeast = 2, kHeightMax = 320, kLeft = 64, kTicks = [0.25, 0.5, 1, 2, 4];

const mean_of = (counts) => counts.reduce((sum, n) => sum + n, 0) / counts.length || 1;

// Rows of the two pictures: {label, values: one a step}.
const layers_rows = (experts) => experts.layers.map(
    ({layer, counts}) => ({label: `layer ${layer}`, values: counts.map((row) => Math.max(...row) / mean_of(row))}));
function experts_rows({counts}) {
  const means = counts.map(mean_of);
  return (counts[0] || [])
      .map((_, expert) => ({label: `expert ${expert}`, values: counts.map((row, step) => row[expert] / means[step])}));
}

function draw_rows(canvas, rows, colours) {
  const height = Math.max(kRowLeast, Math.min(kRowMost, Math.floor(kHeightMax / Math.max(1, rows.length))));
  canvas.style.height = `${height * rows.length}px`;
  const {context, width} = clean_canvas(canvas);
  const columns = rows[0]?.values.length || 1, wide = (width - kLeft) / columns;
  context.font = "10px system-ui, sans-serif";
  const every = Math.ceil(12 / height);
  rows.forEach((row, i) => {
    context.fillStyle = colours.muted;
    if (i % every === 0) context.fillText(row.label, 0, i * height + Math.max(8, Math.min(height, 12) - 2));
    row.values.forEach((times, step) => {
      context.fillStyle = load_colour(times, colours.dark);
      context.fillRect(
          kLeft + step * wide, i * height, wide > 4 ? wide - 1 : wide + 0.5, height > 5 ? height - 1 : height);
    });
  });
  return {height, wide};
}

export function make_heat(app) {
  const section = document.getElementById("heat"), maps = section.querySelector(".maps"),
        tools = section.querySelector(".tools");
  const pictures = ["busiest expert of each layer", "experts of the layer"].map((title) => {
    const picture = {title: element("h4", {}, title), canvas: element("canvas", {role: "img"}), rows: [], size: null};
    picture.box = element("div", {}, picture.title, picture.canvas);
    picture.canvas.addEventListener("pointermove", (at) => point(picture, at));
    picture.canvas.addEventListener("pointerleave", () => app.tip(null));
    return picture;
  });
  const [layers, detail] = pictures;
  const select = element("select", {"aria-label": "layer", onchange: () => app.redraw(draw)});
  tools.append(element("label", {}, "layer ", select));
  maps.append(layers.box, detail.box);
  layers.canvas.addEventListener("click", (at) => {
    const row = Math.floor(at.offsetY / layers.size.height);
    if (row < select.options.length) select.selectedIndex = row;
    app.redraw(draw);
  });

  function point(picture, at) {
    const row = picture.rows[Math.floor(at.offsetY / picture.size.height)],
          step = Math.floor((at.offsetX - kLeft) / picture.size.wide);
    if (!row || row.values[step] === undefined) return app.tip(null);
    app.tip(at, [`${row.label}, step ${app.view.experts.steps[step]}`, `${number(row.values[step])} times the mean`]);
  }
  function draw() {
    const experts = app.view?.experts;
    const any = experts?.layers?.length > 0 && experts.steps.length > 0;
    set_hidden(maps, !any);
    set_hidden(tools, !any || experts.layers.length < 2);
    if (!any) return set_text(section.querySelector("small"), "no step has told its counts yet");
    fill(select, experts.layers, () => element("option"), (option, {layer}) => set_text(option, String(layer)));
    const chosen = experts.layers[Math.max(0, select.selectedIndex)];
    layers.rows = layers_rows(experts);
    detail.rows = experts_rows(chosen);
    set_hidden(layers.box, experts.layers.length < 2);
    set_text(detail.title, `experts of layer ${chosen.layer}`);
    for (const picture of pictures)
      if (!picture.box.hidden) picture.size = draw_rows(picture.canvas, picture.rows, app.colours);
    const last = Math.max(...layers.rows.map((row) => row.values.at(-1)));
    const said =
        `steps ${experts.steps[0]} to ${experts.steps.at(-1)}; busiest in the last: ${number(last)} times the mean`;
    set_text(section.querySelector("small"), said);
    set_attribute(detail.canvas, "aria-label", `load of the experts of layer ${chosen.layer}, ${said}`);
    set_attribute(layers.canvas, "aria-label", `busiest expert of each layer, ${said}`);
    legend();
  }
  function legend() {
    const box = section.querySelector(".legend");
    fill(box, kTicks, () => element("span", {}, element("i"), element("span")), (node, times) => {
      node.firstChild.style.background = load_colour(times, app.colours.dark);
      set_text(node.lastChild, ` ${times === 0.25 ? "≤ ¼" : times === 0.5 ? "½" : times === 4 ? "≥ 4" : times}×`);
    });
  }
  return app.in_section(section, draw);
}
