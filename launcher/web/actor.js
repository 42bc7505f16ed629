// One actor, opened: what it does, what it waits for, its credits on every edge, and the last messages that it took.
import {chip, element, hint, set_hidden} from "./dom.js";
import {bytes, number, percent, span, work} from "./words.js";

const kLookBackUs = 2e6, kMessagesMax = 20, kLimit = 5000;

function facts_of(actor, place) {
  if (!actor) return place ? [["node", place[1]], ["state", place[2]]] : [];
  const share = (value, word) => (value === undefined ? "" : `${percent(value)} ${word}`);
  return [
    ["node", actor.node], ["state", actor.state],
    ["does", actor.doing ? `${actor.doing}, ${span(actor.doing_age_us)}` : "nothing"],
    ["queue", actor.queue > 0 ? `${actor.queue}, oldest ${span(actor.oldest_age_us)}` : "0"],
    ["version, attempt", `${number(actor.version)}, ${number(actor.attempt)}`], ["segments", number(actor.segments)],
    ["handled", `${number(actor.handled)}, ${number(actor.messages_per_second)}/s`],
    [
      "last second",
      [share(actor.busy, "computing"), share(actor.handling, "handling"), share(actor.waiting, "neither")]
          .filter(Boolean)
          .join(", ")
    ],
    ["memory", `${bytes(actor.memory?.bytes)} of ${bytes(actor.memory?.bound)}`],
    ["credits free", actor.credits ? `${actor.credits.free} of ${actor.credits.of}` : "–"]
  ];
}

function waits_of(actor, open) {
  if (!actor?.waits?.length) return hint("nothing");
  return element(
      "ul", {},
      ...actor.waits.map(
          (wait) => element(
              "li", {}, `${wait.what} from `, chip(wait.holder, open),
              ` ${wait.item || ""}, for ${span(wait.age_us)}`)),
      actor.waits_more ? element("li", {}, "and more") : null);
}

function edges_of(view, name, open) {
  const edges = (view.edges || [])
                    .filter((edge) => edge.from === name || edge.to === name)
                    .sort((a, b) => (b.messages_per_second || 0) - (a.messages_per_second || 0))
                    .slice(0, 24);
  const row = (edge) => {
    const out = edge.from === name, other = out ? edge.to : edge.from;
    return element(
        "tr", {class: edge.credits?.free === 0 ? "starved" : null},
        element("td", {}, out ? "to " : "from ", chip(other, open)),
        element("td", {class: "number"}, `${number(edge.messages_per_second)}/s`),
        element("td", {class: "number"}, `${bytes(Math.round(edge.bytes_per_second || 0))}/s`),
        element("td", {class: "number"}, edge.credits ? `${edge.credits.free} of ${edge.credits.of} credits` : ""));
  };
  return edges.length > 0 ? element("table", {}, element("tbody", {}, ...edges.map(row))) :
                            hint("no message in the last second");
}

function messages_of(rows, now_us, show) {
  if (!rows) return hint("reading the journals");
  if (rows.length === 0) return hint(`none in the last ${span(kLookBackUs)}`);
  return element("ol", {class: "messages"}, ...rows.map((row) => {
    const [id, , kind, from, , , , sent_us, begin_us, took_us, step, microbatch, layer] = row;
    return element(
        "li", {}, element("button", {class: "link", title: "show in the timeline", onclick: () => show(row)}, kind),
        ` from ${from}, ${work({step, microbatch, layer})}`,
        element(
            "small", {},
            ` ${span(now_us - begin_us)} ago, waited ${span(begin_us - sent_us)}, took ${span(took_us)}, id ${id}`));
  }));
}

export function make_actor(app) {
  const panel = document.getElementById("actor");
  let name = null, known = null, messages = null, before = null, asking = false, shown = "";

  async function ask() {
    if (asking || !app.view) return;
    asking = true;
    const asked = name, now = app.view.now_us;
    try {
      if (!app.view.actors.some((a) => a.actor === asked)) {
        const answer = await app.api.get("/api/view", {filter: asked, limit: 200});
        if (asked === name) known = answer.actors.find((a) => a.actor === asked) || known;
      }
      const answer = await app.api.get(
          "/api/timeline", {from_us: Math.max(0, now - kLookBackUs), to_us: now, limit: kLimit, actor: asked});
      if (asked === name)
        messages = answer.messages.filter((row) => row[4] === asked).sort((a, b) => b[8] - a[8]).slice(0, kMessagesMax);
    } catch (problem) {
      app.say(problem.message);
    }
    asking = false;
    app.redraw(render);
  }
  function open(actor) {
    if (panel.hidden) before = document.activeElement;
    name = actor;
    known = messages = null;
    shown = "";
    set_hidden(panel, false);
    render();
    panel.querySelector("button")?.focus({preventScroll: true});
    ask();
  }
  function close() {
    set_hidden(panel, true);
    name = null;
    before?.focus?.({preventScroll: true});
  }
  panel.addEventListener("keydown", (key) => key.key === "Escape" && close());

  // Written anew only if something changed, and never under the reader's keyboard but for what he is on.
  function render() {
    if (!name || !app.view) return;
    const {view} = app;
    known = view.actors.find((a) => a.actor === name) || known;
    const facts = facts_of(known, (view.places || []).find(([actor]) => actor === name));
    const now = JSON.stringify([name, facts, known?.waits, messages, view.step]);
    if (now === shown) return;
    shown = now;
    const at = [...panel.querySelectorAll("button")].indexOf(document.activeElement);
    const list = element("dl", {});
    for (const [term, value] of facts) list.append(element("dt", {}, term), element("dd", {}, String(value)));
    const show = (row) => app.show_event({message: row});
    panel.replaceChildren(
        element("header", {}, element("h2", {}, name), element("button", {"aria-label": "Close", onclick: close}, "✕")),
        list, element("h3", {}, "waits for"), waits_of(known, open), element("h3", {}, "edges"),
        edges_of(view, name, open), element("h3", {}, "last messages"), messages_of(messages, view.now_us, show));
    if (at >= 0) panel.querySelectorAll("button")[at]?.focus({preventScroll: true});
  }
  return {
    open,
    close,
    heard: () => {
      if (!name) return;
      app.redraw(render);
      ask();
    }
  };
}
