// The timeline: follows the run or stands still, looks at some of it, and has an event chosen. How hands move it is in
// timeline_hands.js. The law: what is loaded is the last answer alone, so memory is bounded by its limit; standing
// still loads nothing but what one looks at.
import {set_text} from "./dom.js";
import {show_event} from "./event_panel.js";
import {cause_of, caused_by, chain_of, empty_timeline, event_of, first_after, index_timeline, row_key} from "./timeline_data.js";
import {draw_timeline, height_of, rows_of} from "./timeline_draw.js";
import {attach_hands} from "./timeline_hands.js";
import {known, span} from "./words.js";

const kLimit = {
  following: 6000,
  standing: 20000
},
      kWidthUs = {
        least: 20,
        most: 600e6,
        first: 2e5
      },
      kHeight = {
        least: 120,
        most: 420
      };
const kHistoryMax = 100, kSettledMs = 120;
const kLegend = "colours and numbers are microbatches; pale: forward, full: backward, striped: weight gradients, " +
    "grey: optimizer; thin rows: messages handled by the loop thread";

class Timeline {
  constructor(app) {
    this.app = app;
    this.section = document.getElementById("timeline");
    this.canvas = this.section.querySelector("canvas");
    this.panel = document.getElementById("event");
    // What the picture shows; `zero_us` is where its axis counts from.
    this.scene = {
      data: empty_timeline(),
      rows: [],
      from_us: 0,
      to_us: kWidthUs.first,
      zero_us: 0,
      top: 0,
      chosen: null,
      chain: null,
      arrows: true
    };
    this.following = true;
    this.wish = {from_us: 0, to_us: kWidthUs.first};  // what a following picture shows once its data is there
    this.zoomed = false;
    this.history = [];
    this.settled = 0;
    this.render = app.in_section(this.section, () => this.draw());
    this.buttons = attach_hands(this);
    this.show({event: null});
    set_text(this.section.querySelector(".legend"), kLegend);
  }

  // ---- What is loaded
  async load() {
    if (this.loading) return void (this.wanted = true);
    this.loading = true;
    this.wanted = false;
    try {
      await this.fetch();
    } catch (problem) {
      this.app.say(problem.message);
    }
    this.loading = false;
    if (this.wanted) this.load();
  }
  async fetch() {
    const {scene, following} = this, {from_us, to_us} = following ? this.wish : scene;
    const margin = following ? 0 : (to_us - from_us) / 2;
    const ask = (from, to, limit) =>
        this.app.api.get("/api/timeline", {from_us: Math.max(0, Math.floor(from)), to_us: Math.ceil(to), limit});
    const answer = await ask(from_us - margin, to_us + margin, following ? kLimit.following : kLimit.standing);
    if (following !== this.following) return void (this.wanted = true);
    scene.data = index_timeline(answer);
    if (following)
      Object.assign(scene, {from_us: this.zoomed ? from_us : this.begin_of(from_us, to_us), to_us, zero_us: to_us});
    if (following && !answer.complete) this.whole_us = Math.max(kWidthUs.least, answer.to_us - answer.from_us);
    if (following && scene.data.events.size === 0) this.end_at(await ask(0, to_us, 1));
    if (scene.chosen) scene.chosen = scene.data.events.get(scene.chosen.id) || scene.chosen;
    this.rechain();
    this.render();
  }
  // A run that began just now fills the picture too.
  begin_of(from_us, to_us) {
    let first = to_us;
    for (const {begin_us} of this.scene.data.events.values()) first = Math.min(first, begin_us);
    return first < to_us ? Math.max(from_us, first - (to_us - first) / 50) : from_us;
  }
  // Nothing has happened lately: where something last did is what one wants to see.
  end_at(newest) {
    const last = [...index_timeline(newest).events.values()].at(-1), {scene} = this;
    if (!last || last.end_us > scene.from_us) return;
    const width = scene.to_us - scene.from_us, to_us = last.end_us + width / 20;
    this.idle_since_us = last.end_us;
    this.wish = {from_us: to_us - width, to_us};
    this.wanted = true;
  }
  load_if_needed() {
    clearTimeout(this.settled);
    const {from_us, to_us, complete} = this.scene.data, {scene} = this;
    if (this.following) return;
    const inside = scene.from_us >= from_us && scene.to_us <= to_us;
    const coarse = !complete && to_us - from_us > 3 * (scene.to_us - scene.from_us);
    if (!inside || coarse) this.settled = setTimeout(() => this.load(), kSettledMs);
  }

  // ---- Where one looks
  look(from_us, to_us) {
    const width = Math.min(kWidthUs.most, Math.max(kWidthUs.least, to_us - from_us)), middle = (from_us + to_us) / 2;
    this.scene.from_us = middle - width / 2;
    this.scene.to_us = middle + width / 2;
    this.zoomed = true;
    this.render();
    this.load_if_needed();
  }
  // at: the share of the width that stays where it is; by itself that of the chosen event.
  zoom(factor, at = null) {
    const {from_us, to_us, chosen} = this.scene, width = to_us - from_us;
    const share = chosen ? (chosen.begin_us - from_us) / width : 0.5;
    at ??= share >= 0 && share <= 1 ? share : 0.5;
    if (this.following) at = 1;
    const us = from_us + width * at;
    this.look(us - width * factor * at, us + width * factor * (1 - at));
    if (this.following) this.heard();
  }
  pan(share) {
    const width = this.scene.to_us - this.scene.from_us;
    this.follow(false);
    this.look(this.scene.from_us + width * share, this.scene.to_us + width * share);
  }
  fit() {
    const all = [...this.scene.data.events.values()];
    if (all.length === 0) return;
    this.follow(false);
    this.look(
        all.reduce((least, e) => Math.min(least, e.begin_us), Infinity),
        all.reduce((most, e) => Math.max(most, e.end_us), 0));
  }
  follow(on) {
    this.following = on;
    this.buttons.follow.setAttribute("aria-pressed", on);
    if (on) this.heard();
  }
  // A new view: while following, the picture ends now, or where all stopped. Until somebody
  // zooms it holds about two steps, or as much as one answer holds.
  heard() {
    const {scene, app} = this, now = app.view?.now_us;
    if (!this.following || !known(now)) return;
    const step_us = known(app.step_seconds) ? app.step_seconds * 2e6 : kWidthUs.first;
    const width = this.zoomed ? scene.to_us - scene.from_us : Math.min(this.whole_us ?? 20e6, Math.max(2e4, step_us));
    const still = !app.view.healthy && this.idle_since_us;
    const to_us = still ? this.idle_since_us + width / 20 : now;
    this.wish = {from_us: to_us - width, to_us};
    if (!still) this.idle_since_us = null;
    this.load();
  }
  refresh() { this.following ? this.heard() : this.load(); }
  scroll_rows(by) {
    this.scene.top = Math.max(0, Math.min(height_of(this.scene.rows) - this.canvas.clientHeight, this.scene.top + by));
    this.render();
  }
  bring_into_view(event) {
    const {scene} = this, width = scene.to_us - scene.from_us;
    if (event.end_us < scene.from_us || event.begin_us > scene.to_us)
      this.look(event.begin_us - width / 2, event.begin_us + width / 2);
    const row = scene.rows.find((r) => r.node === event.node && r.thread === event.thread);
    if (row && (row.y < scene.top || row.y + row.height > scene.top + this.canvas.clientHeight - 30))
      this.scroll_rows(row.y - scene.top - 60);
  }

  // ---- What is chosen
  rechain() {
    const {scene} = this;
    scene.chain = scene.chosen ? new Set(chain_of(scene.data, scene.chosen)) : null;
  }
  choose(event, {remember = true} = {}) {
    const {scene} = this, {data} = scene;
    if (remember && scene.chosen && event?.id !== scene.chosen.id)
      this.history = [...this.history, scene.chosen].slice(-kHistoryMax);
    scene.chosen = event ? data.events.get(event.id) || event : null;
    this.rechain();
    this.render();
    if (!event) return this.show({event: null});
    this.follow(false);
    this.show({event: scene.chosen, cause: cause_of(data, event), caused: caused_by(data, event)});
    this.bring_into_view(scene.chosen);
    if (!data.events.has(event.cause) || caused_by(data, event).length === 0) this.ask_event(event);
  }
  // Causes and effects outside of what is loaded: the server knows them.
  async ask_event(event) {
    try {
      const answer = await this.app.api.get("/api/event", {id: event.id});
      if (this.scene.chosen?.id !== event.id) return;
      this.show({
        event: this.scene.chosen,
        cause: event_of(answer.cause),
        caused: answer.caused.map(event_of),
        more: answer.caused_more
      });
    } catch (problem) {
      if (problem.status !== 404) this.app.say(problem.message);
    }
  }
  show(what) {
    show_event(this.panel, what, {
      choose: (event) => this.choose(event),
      back: () => this.back(),
      history: this.history.length,
      open_actor: (actor) => this.app.open_actor(actor)
    });
  }
  back() {
    const last = this.history.pop();
    if (last) this.choose(last, {remember: false});
  }
  row_of(event) { return this.scene.data.rows.get(row_key(event.node, event.thread)) || []; }
  // The event before or after the chosen one in its row; the first in sight if none is chosen.
  neighbour(step) {
    const {chosen} = this.scene, row = chosen ? this.row_of(chosen) : [];
    const next = chosen ? row[row.findIndex((e) => e.id === chosen.id) + step] : this.first_in_sight();
    if (next) this.choose(next);
  }
  first_in_sight() {
    const {data, rows, from_us} = this.scene;
    const firsts =
        rows.filter((row) => row.thread >= 0)
            .map((row) => (data.rows.get(row.key) || [])[first_after(data.rows.get(row.key) || [], from_us)]);
    return firsts.find((event) => event);
  }
  other_row(step) {
    const {chosen, rows, data} = this.scene;
    if (!chosen) return this.neighbour(0);
    for (let at = rows.findIndex((r) => r.key === row_key(chosen.node, chosen.thread)) + step;
         at >= 0 && at < rows.length; at += step) {
      const events = data.rows.get(rows[at].key) || [],
            event = events[Math.min(events.length - 1, first_after(events, chosen.begin_us))];
      if (event) return this.choose(event);
    }
  }
  to_cause() { this.panel.querySelector(".cause button")?.click(); }
  // What the chosen event caused: a segment rather than a message.
  to_effect() {
    const all = this.scene.chosen ? caused_by(this.scene.data, this.scene.chosen) : [];
    const next = all.find((e) => e.is === "segment") || all[0];
    if (next)
      this.choose(next);
    else
      this.panel.querySelector(".caused button")?.click();
  }

  draw() {
    const {scene, canvas, section} = this;
    scene.rows = rows_of(scene.data, this.app.view?.nodes || []);
    canvas.style.height = `${Math.min(kHeight.most, Math.max(kHeight.least, height_of(scene.rows)))}px`;
    scene.top = Math.max(0, Math.min(scene.top, height_of(scene.rows) - canvas.clientHeight));
    const {arrows} = draw_timeline(canvas, scene, this.app.colours);
    const segments = [...scene.data.rows].reduce((sum, [key, row]) => sum + (key.endsWith("/-1") ? 0 : row.length), 0);
    Object.assign(section.dataset, {segments, arrows});
    const cut = scene.data.complete ? "" : "; not all of it: the journals forgot, or the answer's limit cut";
    const idle = this.idle_since_us && this.following ?
        `; nothing has happened since ${span(this.app.view.now_us - this.idle_since_us)}` :
        "";
    set_text(
        section.querySelector("small"),
        `${span(scene.to_us - scene.from_us)} wide, ${segments} segments, ${
            scene.data.messages.length} messages loaded${cut}${idle}`);
  }
}

export const make_timeline = (app) => new Timeline(app);
