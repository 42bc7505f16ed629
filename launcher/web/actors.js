// The actors as a table. The server sorts, filters and cuts pages; here is one page, however many actors there are.
import {element, fill, move_focus, set_attribute, set_hidden, set_text, table} from "./dom.js";
import {bytes, count, number, percent, span} from "./words.js";

const kColumns = [
  {head: "actor", sort: "actor", cell: (a) => a.actor},
  {head: "node", cell: (a) => a.node},
  {head: "state", cell: (a) => a.state},
  {head: "doing", cell: (a) => a.doing || ""},
  {head: "queue", sort: "queue", cell: (a) => number(a.queue), number: true},
  {head: "oldest", sort: "oldest", cell: (a) => (a.queue > 0 ? span(a.oldest_age_us) : "–"), number: true},
  {head: "messages/s", sort: "messages", cell: (a) => number(a.messages_per_second), number: true},
  {head: "busy", sort: "busy", cell: (a) => percent(a.busy), number: true},
  {head: "credits", cell: (a) => (a.credits ? `${a.credits.free}/${a.credits.of}` : "–"), number: true},
  {head: "waits for", sort: "waits", cell: (a) => waits_of(a)},
  {head: "memory", sort: "memory", cell: (a) => bytes(a.memory?.bytes), number: true},
];
const kPageSizes = [25, 50, 100, 200], kTypingMs = 200;

function waits_of({waits, waits_more}) {
  if (!waits?.length) return "";
  const oldest = waits.reduce((a, b) => (b.age_us > a.age_us ? b : a));
  const more = waits.length > 1 || waits_more ? ` (+${waits.length - 1}${waits_more ? "…" : ""})` : "";
  return `${oldest.what} of ${oldest.holder}, ${span(oldest.age_us)}${more}`;
}

// Filter, size of a page, and turning pages. ask(change) asks for another page.
function make_tools(page, ask, matching) {
  let typing = 0;
  const filter =
      element("input", {type: "search", placeholder: "filter: name, state, node 3", "aria-label": "Filter actors"});
  filter.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => ask({filter: filter.value.trim()}), kTypingMs);
  });
  const size = element(
      "select", {"aria-label": "Actors a page", onchange: () => ask({limit: Number(size.value)})},
      ...kPageSizes.map((n) => element("option", {value: n, selected: n === page.limit}, `${n} a page`)));
  const turn = (step) => {
    const offset = page.offset + step * page.limit;
    if (offset >= 0 && offset < matching()) ask({offset});
  };
  const before = element("button", {"aria-label": "Page before", onclick: () => turn(-1)}, "◂");
  const after = element("button", {"aria-label": "Next page", onclick: () => turn(1)}, "▸");
  const where = element("output", {"aria-live": "polite"});
  const render = (shown) => {
    const last = page.offset + shown;
    set_text(where, shown > 0 ? `${page.offset + 1}–${last} of ${count(matching())}` : "none");
    before.disabled = page.offset === 0;
    after.disabled = last >= matching();
    set_hidden(size, matching() <= kPageSizes[0]);
  };
  return {nodes: [filter, size, before, where, after], filter, turn, render};
}

// The rows, and the keys that move among them.
function make_rows(turn, open) {
  const body = element("tbody"), move = (by) => move_focus([...body.children], by);
  const acts = {
    ArrowDown: () => move(1),
    ArrowUp: () => move(-1),
    Home: () => move(-Infinity),
    End: () => move(Infinity),
    PageDown: () => turn(1),
    PageUp: () => turn(-1),
    Enter: (row) => open(row.dataset.actor)
  };
  body.addEventListener("keydown", (key) => {
    if (!acts[key.key]) return;
    key.preventDefault();
    acts[key.key](key.target);
  });
  const make = () => element(
      "tr", {tabindex: "-1", onclick: (at) => open(at.currentTarget.dataset.actor)},
      ...kColumns.map(({number: right}) => element("td", {class: right ? "number" : null})));
  const render = (actors) => {
    fill(body, actors, make, (row, actor) => {
      row.dataset.actor = actor.actor;
      set_attribute(row, "data-state", actor.state);
      kColumns.forEach(({cell}, i) => set_text(row.children[i], String(cell(actor))));
    });
    if (body.firstChild && !body.querySelector("[tabindex='0']")) body.firstChild.tabIndex = 0;
  };
  return {body, render};
}

export function make_actors(app) {
  const section = document.getElementById("actors");
  const page = {limit: 50, offset: 0, sort: "actor", filter: ""};
  const matching = () => app.view?.actors_matching ?? app.view?.actors_count ?? 0;
  const ask = (change) => {
    Object.assign(page, {offset: 0}, change);
    mark_sorted();
    app.ask_actors({...page});
  };
  const tools = make_tools(page, ask, matching), rows = make_rows(tools.turn, (actor) => app.open_actor(actor));
  const heads = kColumns.map(
      ({head, sort, number: right}) => element(
          "th", {scope: "col", class: right ? "number" : null},
          sort ? element("button", {onclick: () => ask({sort})}, head) : head));
  section.querySelector(".tools").append(...tools.nodes);
  section.querySelector(".scroll").append(table(heads, rows.body));
  function mark_sorted() {
    const order = page.sort === "actor" ? "ascending" : "descending";
    heads.forEach((head, i) => set_attribute(head, "aria-sort", kColumns[i].sort === page.sort ? order : null));
  }
  function filter_by(text) {
    tools.filter.value = text;
    ask({filter: text});
    section.scrollIntoView({block: "start"});
  }
  mark_sorted();
  const render = app.in_section(section, () => {
    const view = app.view;
    if (!view) return;
    rows.render(view.actors);
    tools.render(view.actors.length);
    set_text(
        section.querySelector("small"), count(view.actors_count) + (page.filter ? `, ${count(matching())} match` : ""));
  });
  return {render, page, filter_by};
}
