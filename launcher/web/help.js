// The keys, listed under "?"; and those that count everywhere.
import {element} from "./dom.js";

const kKeys = [
  [
    "everywhere",
    [
      ["?", "this list"], ["1 … 8", "go to why, topology, curves, bill, timeline, load, nodes, actors"],
      ["/", "filter the actors"], ["p", "pause or resume (where allowed)"],
      ["s", "one training step (simulated worlds: one message)"], ["Esc", "close"]
    ]
  ],
  [
    "timeline",
    [
      ["← →", "segment before, after"], ["↑ ↓", "row above, below"], ["c", "to the cause"], ["e", "to what it caused"],
      ["b", "back along the way one came"], ["+ −", "zoom; also the wheel"],
      ["Shift ← →", "earlier, later; also dragging"], ["0", "all that is loaded"], ["f", "follow the run"],
      ["a", "arrows on or off"]
    ]
  ],
  [
    "tables and topology",
    [["↑ ↓", "row above, below"], ["Page ↑ ↓", "page before, after"], ["Enter", "open the actor"]]
  ],
];
const kSections = ["why", "topology", "curves", "bill", "timeline", "heat", "nodes", "actors"];

export function make_help(app) {
  const dialog = document.getElementById("help");
  const list = ([title, keys]) => element(
      "section", {}, element("h3", {}, title),
      element(
          "dl", {},
          ...keys.flatMap(([key, what]) => [element("dt", {}, element("kbd", {}, key)), element("dd", {}, what)])));
  dialog.append(
      element("h2", {id: "help_title"}, "Keys"), ...kKeys.map(list),
      element("form", {method: "dialog"}, element("button", {}, "close")));
  const open = () => !dialog.open && dialog.showModal();
  document.getElementById("help_button").addEventListener("click", open);

  function go_to(id) {
    const section = document.getElementById(id);
    section.scrollIntoView({block: "start"});
    (section.querySelector("canvas[tabindex], [tabindex='0'], input, button") || section).focus({preventScroll: true});
  }
  const acts = {
    "?": open,
    "/": () => go_to("actors"),
    p: () => app.view?.can_control && app.control({do: app.view.paused ? "resume" : "pause"}),
    s: () => app.view?.can_control && app.control({do: "step"}),
    Escape: () => app.close_actor(),
  };
  document.addEventListener("keydown", (key) => {
    if (key.defaultPrevented || key.ctrlKey || key.metaKey || key.altKey || dialog.open) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(key.target.tagName)) return;
    const section = kSections[Number(key.key) - 1], act = acts[key.key] || (section && (() => go_to(section)));
    if (!act) return;
    key.preventDefault();
    act();
  });
}
