// Control, where the server allows it: pause and resume; of a simulated world also one message, many, until, back.
// Each answer is a sentence, said at the foot of the page.
import {element, set_attribute, set_hidden, set_text} from "./dom.js";
import {number, span} from "./words.js";

const kUntil = {
  messages: {label: "messages", value: "100", body: (n) => ({do: "run", messages: Number(n)})},
  step: {label: "until step", value: "1", body: (n) => ({do: "run", until: {step: Number(n)}})},
  seconds: {label: "until seconds", value: "1", body: (n) => ({do: "run", until: {seconds: Number(n)}})},
  receives: {
    label: "until it receives",
    value: "stage 0, ExpertResult",
    body: (text) => {
      const [actor, receives] = text.split(",").map((part) => part.trim());
      return {do: "run", until: {actor, receives}};
    }
  },
};

export function make_control(app) {
  const form = document.getElementById("control");
  const button = (text, label, body, key = null) => element(
      "button",
      {type: "button", title: label, "aria-label": label, "aria-keyshortcuts": key, onclick: () => app.control(body())},
      text);
  const pause = button("pause", "Pause or resume the run", () => ({do: app.view.paused ? "resume" : "pause"}), "p");
  const step = button("step", "", () => ({do: "step"}), "s");
  const kind = element(
      "select", {"aria-label": "Run how far", onchange: () => (value.value = kUntil[kind.value].value)},
      ...Object.entries(kUntil).map(([key, {label}]) => element("option", {value: key}, label)));
  const value = element("input", {"aria-label": "How far", value: kUntil.messages.value, size: 18});
  const back = element("input", {"aria-label": "Messages to go back", type: "number", min: 1, value: 1});
  const world = element(
      "span", {class: "world"}, kind, value, button("run", "Run so far", () => kUntil[kind.value].body(value.value)), back,
      button("back", "Go back so many messages", () => ({do: "back", messages: Number(back.value)})));
  const told = element("output", {class: "world"});
  form.append(pause, step, world, told);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    app.control(kUntil[kind.value].body(value.value));
  });

  return function render() {
    const view = app.view;
    if (!view) return;
    const simulated = view.can_control && view.source === "simulated";
    set_hidden(form, !view.can_control);
    set_hidden(world, !simulated);
    set_text(pause, view.paused ? "resume" : "pause");
    set_attribute(pause, "aria-pressed", Boolean(view.paused));
    const one = view.source === "simulated" ? "Deliver one message" : "Take one training step, then pause";
    set_attribute(step, "title", one);
    set_attribute(step, "aria-label", one);
    set_text(
        told,
        view.world ? `${number(view.world.delivered, 9)} messages delivered, ${span(view.now_us)} of its time` : "");
  };
}
