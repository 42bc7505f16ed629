// The messages in flight of a simulated world, and what one may do to each: drop it, delay it, deliver it once more.
import {element, fill, set_hidden, set_text, table} from "./dom.js";
import {number, span, work} from "./words.js";

export function make_flight(app) {
  const section = document.getElementById("flight"), body = element("tbody");
  const delay = element("input", {type: "number", min: 1, value: 1000, "aria-label": "Delay in microseconds"});
  const acts = [
    {name: "drop", title: "lose it on its way", more: () => ({})},
    {name: "delay", title: "let it come later", more: () => ({us: Number(delay.value)})},
    {name: "inject", title: "deliver it once more", more: () => ({})}
  ];
  section.querySelector(".scroll").append(
      element("p", {class: "tools"}, element("label", {}, "delay by, µs ", delay)),
      table(["message", "from", "to", "of", "due in", ""], body));

  function make() {
    const row = element("tr", {}, ...Array.from({length: 5}, () => element("td")));
    const button = ({name, title, more}) => element(
        "button", {class: "small", title, onclick: () => app.control({do: name, id: row.dataset.id, ...more()})}, name);
    row.append(element("td", {}, ...acts.map(button)));
    return row;
  }
  function update(row, [id, kind, from, to, due_us, step, microbatch, layer]) {
    row.dataset.id = id;
    const texts = [kind, from, to, work({step, microbatch, layer}), span(due_us - app.view.now_us)];
    texts.forEach((text, i) => set_text(row.children[i], text));
  }
  const draw = app.in_section(section, () => {
    const held = app.view?.world?.in_flight || [];
    fill(body, held, make, update);
    set_text(
        section.querySelector("small"), `${number(app.view?.world?.in_flight_count)}, the next ${held.length} shown`);
  });
  return () => {
    set_hidden(section, !(app.view?.can_control && app.view.world));
    draw();
  };
}
