// One step of a made-up training, event by event: token batches, forward and backward through stages and expert shards,
// votes and the decision. The law: times follow from the messages, each event has its cause, and the same step is always
// the same.

const kTakes = {
  forward: 900,
  shard: 700,
  backward: 1500,
  weight_gradient: 600,
  apply: 800
};  // microseconds
const kHandler = 6, kNear = 8, kFar = 90, kBetweenBatches = 40;
const kBytes = {
  TokenBatch: 16384,
  Activations: 65536,
  ActivationGradients: 65536,
  ExpertBatch: 131072,
  ExpertResult: 131072
};

// Numbers between 0 and 1 that depend on the seed alone.
export function dice(seed) {
  let state = Math.imul(Math.floor(seed) + 1, 2654435761) >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

// layout: {threads, replicas, stages, shards (of one stage), microbatches, home(actor)}.
class Step {
  constructor(layout, step) {
    this.layout = layout;
    this.step = step;
    this.roll = dice(step + 1);
    this.segments = [];
    this.messages = [];
    this.queue = [];         // {us, act}, sorted by time
    this.free = new Map();   // node -> when each of its threads is free
    this.loops = new Map();  // node -> when its loop thread is free
    this.events = 0;
    this.votes = 0;
    this.learned_count = new Map();
  }
  id() { return String(BigInt(this.step) * 1000000n + BigInt(++this.events)); }
  at(us, act) {
    let low = 0, high = this.queue.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.queue[middle].us < us)
        low = middle + 1;
      else
        high = middle;
    }
    this.queue.splice(low, 0, {us, act});
  }

  // of: {cause, us, m, layer}. A message travels, waits for the loop thread and is handled: then(of) as its effect.
  post({us, cause, m, layer}, kind, from, to, then, id = this.id()) {
    const a = this.layout.home(from), b = this.layout.home(to);
    const arrives = us + (a === b ? kNear : kFar * (0.7 + this.roll()));
    this.at(arrives, () => {
      const begin = Math.max(arrives, this.loops.get(b) || 0), took = Math.round(kHandler * (0.5 + this.roll()));
      const rounded = [Math.round(us), Math.round(begin), took];
      this.loops.set(b, begin + took);
      this.messages.push([id, cause, kind, from, to, a, b, ...rounded, this.step, m, layer, kBytes[kind] || 512]);
      if (then) this.at(begin + took, () => then({us: begin + took, cause: id, m, layer}));
    });
  }
  // A segment runs on the thread that is free first; its end is a message to its actor.
  submit({us, cause, m, layer}, kind, actor, takes, then) {
    const node = this.layout.home(actor);
    if (!this.free.has(node)) this.free.set(node, new Array(this.layout.threads).fill(0));
    const threads = this.free.get(node), thread = threads.indexOf(Math.min(...threads));
    const begin = Math.round(Math.max(us, threads[thread])),
          end = Math.round(begin + takes * (0.8 + 0.4 * this.roll()));
    const id = this.id();
    threads[thread] = end;
    this.segments.push([id, cause, node, thread, begin, end, kind, actor, this.step, m, layer]);
    this.post({us: end, cause, m, layer}, "SegmentDone", actor, actor, then, id);
  }

  stage(replica, s) { return `stage ${replica * this.layout.stages + s}`; }
  shard(s, m) {
    return `expert shard ${s * this.layout.shards + ((m + s + Math.floor(this.roll() * 2)) % this.layout.shards)}`;
  }
  // A segment at the stage, its rows to an expert shard and back.
  through_experts(of, kind, me, them, then) {
    this.submit(
        of, kind, me, kTakes[kind],
        (done) => this.post(
            done, "ExpertBatch", me, them,
            (batch) => this.submit(
                batch, kind, them, kTakes.shard, (ended) => this.post(ended, "ExpertResult", them, me, then))));
  }
  forward(of, replica, s) {
    const me = this.stage(replica, s);
    this.through_experts({...of, layer: s}, "forward", me, this.shard(s, of.m), (result) => {
      if (s + 1 === this.layout.stages) return this.backward(result, replica, s);
      this.post(result, "Activations", me, this.stage(replica, s + 1), (next) => this.forward(next, replica, s + 1));
    });
  }
  backward(of, replica, s) {
    const me = this.stage(replica, s);
    this.through_experts({...of, layer: s}, "backward", me, this.shard(s, of.m), (result) => {
      if (s > 0)
        this.post(
            result, "ActivationGradients", me, this.stage(replica, s - 1),
            (next) => this.backward(next, replica, s - 1));
      this.submit(result, "weight_gradient", me, kTakes.weight_gradient, (learned) => this.learned(learned, me));
    });
  }
  learned(of, me) {
    const {replicas, stages, microbatches} = this.layout;
    this.learned_count.set(me, (this.learned_count.get(me) || 0) + 1);
    if (this.learned_count.get(me) < microbatches / replicas) return;
    this.post({...of, m: -1, layer: -1}, "Vote", me, "conductor 0", (vote) => {
      if (++this.votes === replicas * stages) this.decide(vote);
    });
  }
  decide(vote) {
    for (let n = 0; n < this.layout.replicas * this.layout.stages; ++n) {
      this.post(
          vote, "Decision", "conductor 0", `stage ${n}`,
          (decision) => this.submit(decision, "apply", `stage ${n}`, kTakes.apply, null));
    }
  }
  run(begin_us) {
    this.post({us: begin_us, cause: "0", m: -1, layer: -1}, "StartStep", "conductor 0", "loader 0", (start) => {
      for (let m = 0; m < this.layout.microbatches; ++m) {
        const replica = m % this.layout.replicas, of = {...start, us: start.us + m * kBetweenBatches, m};
        this.post(of, "TokenBatch", "loader 0", this.stage(replica, 0), (batch) => this.forward(batch, replica, 0));
      }
    });
    while (this.queue.length > 0) this.queue.shift().act();
    return this;
  }
}

// Rows as /api/timeline has them.
export function schedule_step(layout, step, begin_us) {
  const {segments, messages} = new Step(layout, step).run(begin_us);
  return {segments, messages, end_us: Math.max(...segments.map((s) => s[5]), ...messages.map((m) => m[8] + m[9]))};
}
