// The nodes: life, how old what we know is, what they compute, memory against its bound, and how to end or restart one.
import {element, fill, set_attribute, set_hidden, set_text, table} from "./dom.js";
import {bytes, known, number, span, work} from "./words.js";

const kRowsMax = 256, kSureMs = 4000;
const kHeads =
    ["node", "life", "data", "computing", "ready", "pending", "disk jobs", "memory, of bound", "heard from peers", ""];

function computing_of(node) {
  const all = node.computing || [];
  if (all.length === 0) return "nothing";
  const [first] = all;
  return `${first.actor} ${first.what.replace("_", " ")}${first.microbatch >= 0 ? ` m${first.microbatch}` : ""}${
      all.length > 1 ? `, and ${all.length - 1} more` : ""}`;
}
const details_of = (node) =>
    (node.computing || [])
        .map((c) => `thread ${c.thread}: ${c.actor} ${c.what}, ${work(c)}, for ${span(c.age_us)}`)
        .join("\n");

function peers_of({peers}) {
  if (!peers?.length) return "–";
  const worst = peers.reduce((a, b) => (b.heard_age_us > a.heard_age_us ? b : a));
  const missing = peers.filter((peer) => known(peer.missing_age_us)).length;
  return `${peers.length}, oldest ${span(worst.heard_age_us)}${missing ? `, ${missing} miss a frame` : ""}`;
}

// A button that asks once more before it does something to a real run.
function sure_button(act) {
  const button = element("button", {class: "small"});
  let timer = 0;
  button.addEventListener("click", () => {
    if (button.dataset.sure === "yes" || button.dataset.harmless === "yes") {
      button.dataset.sure = "no";
      clearTimeout(timer);
      act(button.dataset.do, Number(button.dataset.node));
    } else {
      button.dataset.sure = "yes";
      set_text(button, `really ${button.dataset.do} node ${button.dataset.node}?`);
      timer = setTimeout(() => (button.dataset.sure = "no"), kSureMs);
    }
  });
  return button;
}

export function make_nodes(app) {
  const section = document.getElementById("nodes");
  const body = element("tbody");
  section.querySelector(".scroll").append(table(kHeads, body));
  const make = () => {
    const cells = kHeads.map(() => element("td"));
    cells[1].append(element("span", {class: "life"}));
    cells[7].append(element("span", {class: "meter"}, element("i")), element("span"));
    cells[9].append(sure_button((what, node) => app.control({do: what, node})));
    return element("tr", {}, ...cells);
  };
  function update(row, node) {
    const [name, life, age, computing, ready, pending, disk, memory, peers, last] = row.children;
    set_text(name, `${node.node}`);
    set_attribute(name, "title", `process ${node.pid}, incarnation ${node.incarnation}, ${node.threads} threads`);
    set_text(life.firstChild, node.life + (node.incarnation > 1 ? ` (life ${node.incarnation})` : ""));
    set_attribute(life.firstChild, "data-life", node.life);
    set_text(age, span(node.age_us));
    set_text(computing, computing_of(node));
    set_attribute(computing, "title", details_of(node));
    set_text(ready, number(node.ready));
    set_text(pending, number(node.pending));
    set_text(disk, number(node.disk_jobs));
    const {bytes: now, peak, bound} = node.memory || {};
    memory.firstChild.firstChild.style.width = `${bound ? Math.min(100, (100 * now) / bound) : 0}%`;
    set_attribute(memory, "title", `now ${bytes(now)}, peak ${bytes(peak)}, bound ${bytes(bound)}`);
    set_text(memory.lastChild, ` ${bytes(now)} of ${bytes(bound)}`);
    set_text(peers, peers_of(node));
    update_button(last.firstChild, node);
  }
  function update_button(button, node) {
    const dead = node.life === "dead", simulated = app.view.source === "simulated";
    set_hidden(button, !app.view.can_control || node.life === "ended" || (dead && !simulated));
    button.dataset.do = dead ? "restart" : "kill";
    button.dataset.node = node.node;
    button.dataset.harmless = simulated ? "yes" : "no";
    if (button.dataset.sure !== "yes") set_text(button, button.dataset.do);
    set_attribute(
        button, "aria-label", button.dataset.sure === "yes" ? null : `${button.dataset.do} node ${node.node}`);
  }
  return app.in_section(section, () => {
    const nodes = app.view?.nodes || [];
    fill(body, nodes.slice(0, kRowsMax), make, update);
    const troubled = nodes.filter((node) => ["dead", "stopped", "silent"].includes(node.life)).length;
    const more = nodes.length > kRowsMax ? `, the first ${kRowsMax} shown` : "";
    set_text(
        section.querySelector("small"),
        `${nodes.length}${troubled ? `, ${troubled} not running` : ", none in trouble"}${more}`);
  });
}
