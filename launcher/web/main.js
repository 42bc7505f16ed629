// The page: one view from the server, many pictures of it. The law: the view is heard in one place and drawn in one
// frame; a section reads `app.view` and changes nothing of it.
import {make_actor} from "./actor.js";
import {make_actors} from "./actors.js";
import {make_api} from "./api.js";
import {make_bill} from "./bill.js";
import {make_colours} from "./colours.js";
import {make_control} from "./control.js";
import {make_curves} from "./curves.js";
import {element, set_hidden, set_text} from "./dom.js";
import {make_flight} from "./flight.js";
import {make_frames} from "./frames.js";
import {make_heat} from "./heat.js";
import {make_help} from "./help.js";
import {make_metrics} from "./metrics.js";
import {make_nodes} from "./nodes.js";
import {make_overview} from "./overview.js";
import {make_timeline} from "./timeline.js";
import {event_of} from "./timeline_data.js";
import {make_topology} from "./topology.js";
import {places_of} from "./topology_layout.js";
import {make_why} from "./why.js";

const kSaidMs = 8000;

function make_said() {
  const said = document.getElementById("said");
  let timer = 0;
  return (sentence) => {
    set_text(said, sentence);
    clearTimeout(timer);
    timer = setTimeout(() => set_text(said, ""), kSaidMs);
  };
}

// tip(at, lines) shows a few lines beside the pointer; tip(null) hides them.
function make_tip() {
  const tip = document.getElementById("tip");
  return (at, lines = []) => {
    set_hidden(tip, !at);
    if (!at) return;
    tip.replaceChildren(...lines.map((line) => element("div", {}, line)));
    const left = Math.min(at.clientX + 12, innerWidth - tip.offsetWidth - 8);
    tip.style.transform = `translate(${Math.round(left)}px, ${
        Math.round(Math.min(at.clientY + 14, innerHeight - tip.offsetHeight - 8))}px)`;
  };
}

// What hears of a new view besides being drawn: what has more to ask of the server.
function hear_too(app, {actor, timeline, metrics, curves}) {
  actor.heard();
  metrics.ask().then(curves, (problem) => app.say(problem.message));
  if (app.view.source !== "over" || !app.heard_before) timeline.heard();
  app.heard_before = true;
}

// What one section may ask of another, or of the run.
function join(app, {actor, actors, timeline, overview}, hear) {
  let end = () => {};
  app.open_actor = actor.open;
  app.close_actor = actor.close;
  app.filter_actors = actors.filter_by;
  app.show_event = (answer) => {
    timeline.section.scrollIntoView({block: "start"});
    timeline.choose(event_of(answer));
  };
  // The stream sends the table's page that was asked for, at once and then ever again; another page is another stream.
  app.ask_actors = (page) => {
    end();
    end = app.api.stream("/api/stream", page, (event, view) => event === "view" && hear(view), overview.tell);
  };
  app.control = async (body) => {
    try {
      app.say((await app.api.post("/api/control", body)).said);
      hear(await app.api.get("/api/view", actors.page));
      timeline.refresh();
    } catch (problem) {
      app.say(problem.message);
    }
  };
}

function start() {
  const app = {view: null, heard_ms: 0, step_seconds: null, api: make_api(), say: make_said(), tip: make_tip()};
  Object.assign(app, make_frames());
  let draws = [], nodes = new Map();
  const draw_all = () => draws.forEach((draw) => draw());
  app.colours = make_colours(draw_all);
  app.node_of = (actor) => nodes.get(actor);

  const metrics = make_metrics(app.api, (line) => (app.step_seconds = line.step_seconds ?? app.step_seconds));
  const overview = make_overview(app), actors = make_actors(app), timeline = make_timeline(app);
  const parts = {overview, actors, timeline, metrics, actor: make_actor(app), curves: make_curves(app, metrics.series)};
  draws = [
    () => app.redraw(overview.render), make_control(app), make_why(app), make_topology(app), parts.curves,
    make_bill(app), timeline.render, make_heat(app), make_nodes(app), actors.render, make_flight(app)
  ];
  make_help(app);

  function hear(view) {
    view.experts ??= app.view?.experts;  // a server may leave out what has not changed
    app.view = view;
    app.heard_ms = performance.now();
    nodes = new Map(places_of(view).map(([actor, node]) => [actor, node]));
    document.body.dataset.ready = "yes";
    draw_all();
    hear_too(app, parts);
  }
  join(app, parts, hear);
  app.ask_actors(actors.page);
}

start();
