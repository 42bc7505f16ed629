// A made-up run behind the mock server: its clock, its events, and what control does to it. Its view is in mock_view.mjs.
import {dice, schedule_step} from "./mock_schedule.mjs";
import {view_of} from "./mock_view.mjs";

const kTiny = {
  nodes: 2,
  threads: 2,
  replicas: 1,
  stages: 2,
  shards: 2,
  microbatches: 4,
  shadows: 1
};
const kScenarios = {
  small: {...kTiny, source: "live", can_control: true},
  stalled: {...kTiny, source: "live", can_control: true, stalled: true},
  finished: {...kTiny, source: "over", can_control: false},
  simulated: {...kTiny, source: "simulated", can_control: true},
  large: {
    nodes: 32,
    threads: 8,
    replicas: 16,
    stages: 8,
    shards: 64,
    microbatches: 64,
    shadows: 357,
    source: "live",
    can_control: true
  },
};
const kBehind = 120, kPauseUs = 400, kStalledAfter = 0.55;  // steps done when the page comes; between steps; of a step
const kRecoverUs = 2.5e6, kCachedMax = 80, kStepsHeldMax = 60, kSimulatedSteps = 6, kLinesMax = 5000;

// Every actor's node.
function places(of) {
  const home = new Map([["loader 0", 0], ["conductor 0", 0], ["checkpointer 0", of.nodes - 1]]);
  const spread = (role, count) => {
    for (let n = 0; n < count; ++n) home.set(`${role} ${n}`, Math.floor((n * of.nodes) / count));
  };
  spread("stage", of.replicas * of.stages);
  spread("expert shard", of.stages * of.shards);
  for (let n = 0; n < of.shadows; ++n) home.set(`shadow ${n}`, (1 + n) % of.nodes);
  return home;
}

export class World {
  constructor(name) {
    this.name = name;
    this.of = kScenarios[name];
    this.homes = places(this.of);
    this.layout = {...this.of, home: (actor) => this.homes.get(actor)};
    this.step_us = schedule_step(this.layout, 0, 0).end_us + kPauseUs;
    this.steps_count = this.of.source === "over" ? 400 : 20000;
    this.cache = new Map();
    this.listeners = new Set();  // of the streams: called once something was controlled
    this.born_ms = Date.now();
    this.paused_us = null;
    this.shift_us = kBehind * this.step_us;
    this.stall_us = (kBehind + kStalledAfter) * this.step_us;
    this.attempt = 0;
    this.tainted = "";
    this.deaths = new Map();  // node -> when
    this.lives = new Map();   // node -> how many
    // Of a simulated world: the messages of its first steps, in the order in which they are handled.
    const steps = this.of.source === "simulated" ? [...Array(kSimulatedSteps).keys()] : [];
    this.order = steps.flatMap((step) => this.events_of(step).messages).sort((a, b) => a[8] - b[8]);
    this.delivered = Math.min(40, this.order.length);
    this.dropped = new Set();
  }

  // ---- Time
  now_us() {
    if (this.of.source === "over") return (this.steps_count - 1) * this.step_us;
    if (this.of.source === "simulated") return this.order[this.delivered][8];
    return this.paused_us ?? (Date.now() - this.born_ms) * 1000 + this.shift_us;
  }
  events_end_us() { return this.of.stalled ? Math.min(this.now_us(), this.stall_us) : this.now_us(); }
  step_now() { return Math.min(this.steps_count - 1, Math.floor(this.events_end_us() / this.step_us)); }

  // ---- Events
  events_of(step) {
    if (!this.cache.has(step)) this.cache.set(step, schedule_step(this.layout, step, step * this.step_us));
    while (this.cache.size > kCachedMax) this.cache.delete(this.cache.keys().next().value);
    return this.cache.get(step);
  }
  timeline({from_us, to_us, limit = 20000, actor}) {
    const from = Number(from_us), to = Math.min(Number(to_us), this.events_end_us()),
          last = Math.floor(to / this.step_us);
    const segments = [], messages = [];
    for (let step = Math.max(0, Math.floor(from / this.step_us) - 1, last - kStepsHeldMax);
         step <= last && step < this.steps_count; ++step) {
      segments.push(
          ...this.events_of(step).segments.filter((s) => s[5] > from && s[5] <= to && (!actor || s[7] === actor)));
      messages.push(...this.events_of(step).messages.filter(
          (m) => m[8] > from && m[8] <= to && (!actor || m[3] === actor || m[4] === actor)));
    }
    const times = [...segments.map((s) => s[5]), ...messages.map((m) => m[8])].sort((a, b) => a - b);
    const cut = times.length > limit ? times[times.length - limit] : from, complete = times.length <= limit;
    const waits = [
      ["stage 1", "activations", "stage 0", from, from + (to - from) * 0.2],
      ["stage 0", "expert results", "expert shard 1", from, to]
    ];
    return {
      from_us: cut,
      to_us: Number(to_us),
      complete,
      segments: segments.filter((s) => s[5] >= cut),
      messages: messages.filter((m) => m[8] >= cut),
      waits
    };
  }
  event(id) {
    const step = Number(BigInt(id) / 1000000n), {segments, messages} = this.events_of(step);
    const find = (wanted) => {
      const segment = segments.find((s) => s[0] === wanted), message = messages.find((m) => m[0] === wanted);
      return segment ? {segment} : message ? {message} : null;
    };
    const found = find(id), row = found?.segment || found?.message;
    if (!row) return null;
    const caused = [
      ...segments.filter((s) => s[1] === id).map((segment) => ({segment})),
      ...messages.filter((m) => m[1] === id && m[2] !== "SegmentDone").map((message) => ({message}))
    ];
    return {event: found, cause: find(row[1]), caused, caused_more: false};
  }
  metric(step) {
    const roll = dice(step);
    return {
      kind: "step",
      step,
      loss: 1.2 + 4.2 * Math.exp(-step / 60) + 0.05 * roll(),
      reward: 1 - Math.exp(-step / 150) + 0.03 * roll(),
      tokens_per_second: 4100 + 300 * roll(),
      cost_dollars: 0.0004 * step,
      step_seconds: this.step_us / 1e6,
      mfu: 0.31
    };
  }
  metrics(after) {
    const count = Math.max(0, Math.min(kLinesMax, this.step_now() - after));
    return {lines: [...Array(count).keys()].map((n) => this.metric(after + n)), next: after + count};
  }
  view(query) {
    this.recover();
    return view_of(this, query);
  }

  // ---- Control
  // The killed come back after a while, all by themselves, as a supervisor would have it.
  recover() {
    if (this.of.source === "simulated") return;
    for (const [node, at] of this.deaths)
      if (this.now_us() - at > kRecoverUs) this.restart(node);
  }
  restart(node) {
    this.deaths.delete(node);
    this.lives.set(node, (this.lives.get(node) || 1) + 1);
    ++this.attempt;
    return `node ${node} starts again`;
  }
  kill(node) {
    this.deaths.set(node, this.now_us());
    return `node ${node} is killed`;
  }
  pause() {
    this.paused_us = this.now_us();
    return "the run is paused";
  }
  resume() {
    this.shift_us = this.paused_us - (Date.now() - this.born_ms) * 1000;
    this.paused_us = null;
    return "the run goes on";
  }
  advance(by) {
    this.delivered = Math.max(0, Math.min(this.order.length - 1, this.delivered + by));
    return `${this.delivered} messages are delivered`;
  }
  run({messages, until}) {
    if (messages) return this.advance(messages);
    if (until.actor)
      return this.advance(
          1 + this.order.slice(this.delivered + 1).findIndex((m) => m[4] === until.actor && m[2] === until.receives));
    const reached = (m) => ("step" in until ? m[10] >= until.step : m[8] >= until.seconds * 1e6);
    return this.advance(this.order.findIndex(reached) - this.delivered);
  }
  drop(id) {
    this.dropped.add(id);
    return `message ${id} is dropped; the link will send it again`;
  }
  inject(id) {
    this.tainted = "somebody has injected a message: this world is no longer its seed's";
    return `a copy of message ${id} is on its way`;
  }
  control(body) {
    if (!this.of.can_control) return {error: "this run is over"};
    const acts = {
      pause: () => this.pause(),
      resume: () => this.resume(),
      kill: () => this.kill(body.node),
      restart: () => this.restart(body.node),
      step: () => this.advance(1),
      run: () => this.run(body),
      back: () => this.advance(-body.messages),
      drop: () => this.drop(body.id),
      delay: () => `message ${body.id} comes ${body.us} µs later`,
      inject: () => this.inject(body.id),
    };
    return acts[body.do] ? {said: acts[body.do]()} : {error: `nobody knows how to ${body.do}`};
  }
}
