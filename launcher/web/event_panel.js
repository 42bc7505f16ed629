// The chosen event beside the timeline: what it is, what caused it, what it caused; each a button to go on along the
// chain, back and forth.
import {chip, element, hint} from "./dom.js";
import {bytes, span, work} from "./words.js";

const kCausedMax = 30;

export function title_of(event) {
  if (event.is === "segment") return `${event.kind.replace("_", " ")} of ${event.actor}`;
  return event.from === event.to ? `${event.kind} of ${event.to}` : `${event.kind} from ${event.from} to ${event.to}`;
}

export function facts_of(event) {
  const facts = [work(event)];
  if (event.is === "segment")
    facts.push(`node ${event.node}, thread ${event.thread}`, `took ${span(event.end_us - event.begin_us)}`);
  else
    facts.push(`travelled and queued ${span(event.begin_us - event.sent_us)}`, `handled in ${span(event.took_us)}`);
  if (event.size > 0) facts.push(bytes(event.size));
  return facts.filter((fact) => fact !== "");
}

function link(event, choose) {
  return element(
      "button", {class: "link", onclick: () => choose(event)}, title_of(event),
      element("small", {}, ` ${work(event)}`));
}

// choose: goes to an event. history: how many one may go back.
export function show_event(panel, {event, cause, caused, more}, {choose, back, history, open_actor}) {
  if (!event) {
    panel.replaceChildren(
        hint("Choose a segment: a click, or the arrow keys. Then c goes to its cause, e to what it caused, b back."));
    return;
  }
  const actors = event.is === "segment" ? [event.actor] : [...new Set([event.from, event.to])];
  panel.replaceChildren(
      element("h3", {}, title_of(event)),
      element("p", {class: "facts"}, facts_of(event).join(" · ")),
      element(
          "p", {}, ...actors.map((actor) => chip(actor, open_actor)),
          history > 0 ? element("button", {class: "chip", onclick: back}, "back") : null),
      element("h4", {}, "caused by"),
      cause ? element("ul", {class: "cause"}, element("li", {}, link(cause, choose))) :
              hint(event.cause === "0" ? "nobody: it began here" : "forgotten by the journals"),
      element("h4", {}, `it caused${caused.length > 0 ? ` ${caused.length}${more ? "+" : ""}` : ""}`),
      caused.length > 0 ? element(
                              "ul", {class: "caused"},
                              ...caused.slice(0, kCausedMax).map((effect) => element("li", {}, link(effect, choose)))) :
                          hint("nothing yet"),
  );
}
