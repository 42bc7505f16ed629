// The first line of the page: is all well, how far is it, how fast, what has it cost, and how old is what one sees.
import {element, fill, set_attribute, set_hidden, set_text} from "./dom.js";
import {clock, count, dollars, known, number, percent, span} from "./words.js";

const kOldUs = 5e6;  // data older than that is said loudly

function verdict_of(view) {
  if (!view.healthy) return ["bad", "✕", "stalled"];
  if (view.source === "over") return ["over", "■", "over"];
  if (view.source === "simulated") return ["good", "✓", "simulated, healthy"];
  if (view.paused) return ["paused", "‖", "paused"];
  return ["good", "✓", "healthy"];
}

function figures_of(view) {
  const f = view.figures || {};
  const all = [
    ["step", known(view.step) ? `${count(view.step)}` + (known(view.steps) ? ` / ${count(view.steps)}` : "") : "–"],
    ["loss", known(f.loss) ? f.loss.toFixed(4) : "–"]
  ];
  if (known(f.reward)) all.push(["reward", f.reward.toFixed(3)]);
  all.push(["tokens/s", count(f.tokens_per_second)]);
  if (known(f.mfu)) all.push(["MFU", percent(f.mfu)]);
  all.push(["cost", dollars(f.cost_dollars)], ["run for", clock(f.seconds)]);
  if (view.source !== "over") all.push(["left", clock(f.seconds_left)]);
  if (view.attempt > 0) all.push(["attempt", number(view.attempt)]);
  return all;
}

export function make_overview(app) {
  const header = document.getElementById("overview");
  const verdict = header.querySelector("#verdict"), figures = header.querySelector("#figures");
  const age = header.querySelector("#age"), connection = header.querySelector("#connection");
  const notice = document.getElementById("notice");

  function render() {
    const view = app.view;
    if (!view) return;
    const [kind, sign, word] = verdict_of(view);
    set_attribute(verdict, "data-kind", kind);
    set_text(verdict.querySelector(".sign"), sign);
    set_text(verdict.querySelector("h1"), `${view.name}: ${word}`);
    set_text(verdict.querySelector("p"), view.verdict || "");
    document.title = `${sign} ${view.name} – Troupe`;
    fill(figures, figures_of(view), () => element("div", {}, element("dt"), element("dd")), (node, [name, value]) => {
      set_text(node.firstChild, name);
      set_text(node.lastChild, value);
    });
    set_hidden(notice, !view.tainted);
    set_text(notice, view.tainted || "");
    tell_age();
  }

  function tell_age() {
    if (!app.view) return;
    const us = (app.view.data_age_us || 0) + (performance.now() - app.heard_ms) * 1000;
    const over = app.view.source === "over";
    set_text(age, over ? "the run is over" : `data as of ${us < 1e6 ? (us / 1e6).toFixed(1) + " s" : span(us)} ago`);
    set_attribute(age, "class", !over && us > kOldUs ? "old" : null);
  }
  setInterval(() => app.redraw(tell_age), 500);

  return {
    render,
    tell({state, sentence}) {
      set_attribute(connection, "data-state", state);
      set_text(connection, sentence);
    },
  };
}
