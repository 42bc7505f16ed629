// What /api/view tells of a made-up run (mock_world.mjs). Figures roll once a second.
import {dice} from "./mock_schedule.mjs";

const kShares = {
  useful: 0.61,
  messages: 0.05,
  narrow: 0.03,
  bubble: 0.09,
  imbalance: 0.07,
  waiting: 0.04,
  checkpoint: 0.03,
  redo: 0.02,
  "start-up": 0.08
};
const kOrders = {
  actor: (a, b) =>
      (a.role < b.role     ? -1 :
           a.role > b.role ? 1 :
                             a.index - b.index),
  queue: (a, b) => b.queue - a.queue,
  oldest: (a, b) => b.oldest_age_us - a.oldest_age_us,
  messages: (a, b) => b.messages_per_second - a.messages_per_second,
  busy: (a, b) => b.busy - a.busy,
  waits: (a, b) => (b.waits[0]?.age_us || 0) - (a.waits[0]?.age_us || 0),
  memory: (a, b) => b.memory.bytes - a.memory.bytes,
};
const kStuck = "expert shard 1", kEdgesMax = 2000, kInFlightMax = 50;

const second_of = (world) => Math.floor(world.now_us() / 1e6);
const stalled_for = (world) => world.now_us() - world.stall_us;

function state_of(world, actor, node, waits, roll) {
  if (world.deaths.has(node)) return "stuck";
  if (world.of.stalled) return actor === kStuck ? "stuck" : waits ? "waiting" : "idle";
  return ["computing", "waiting", "idle", "handling"][Math.floor(roll() * 3.2)];
}

function actor_of(world, actor, node, nth) {
  const {of} = world, roll = dice(nth + 7 + 31 * second_of(world)),
        {role, index} = actor.match(/^(?<role>.*) (?<index>\d+)$/).groups;
  const waits = role === "stage" && (of.stalled || roll() < 0.6), stuck = of.stalled && actor === kStuck;
  const state = state_of(world, actor, node, waits, roll), works = role === "stage" || role === "expert shard";
  const busy = of.stalled ? 0 : works ? 0.4 + 0.5 * roll() : 0.02 * roll();
  const holder = of.stalled ? kStuck : `expert shard ${index % (of.shards * of.stages)}`;
  return {
    actor,
    role,
    index: Number(index),
    node,
    state,
    version: world.step_now(),
    attempt: world.attempt,
    segments: Math.floor(roll() * 3),
    doing: state === "stuck"  ? "handles ExpertBatch from stage 0" :
        state === "computing" ? `forward, microbatch ${Math.floor(roll() * 4)}, layer 1` :
                                "",
    doing_age_us: stuck ? stalled_for(world) : Math.round(900 * roll()),
    queue: stuck ? 3 : Math.floor(roll() * 3),
    oldest_age_us: stuck ? stalled_for(world) : Math.round(roll() * 2000),
    handled: Math.round(world.now_us() / 900 + nth),
    messages_per_second: of.stalled ? 0 : Math.round(9000 * roll()) / 10,
    busy,
    handling: 0.02,
    waiting: 0.98 - busy,
    memory: {bytes: Math.round(2e7 + roll() * 3e7), bound: 64 * 2 ** 20},
    credits: role === "stage" ? {free: Math.floor(roll() * 5), of: 4} : null,
    waits: waits ? [{
      what: "expert results",
      holder,
      item: `step ${world.step_now()}, microbatch 2, layer 1`,
      age_us: of.stalled ? stalled_for(world) : Math.round(4000 * roll())
    }] :
                   [],
    waits_more: false,
  };
}

function edges_of(world) {
  const {of} = world, all = [], roll = dice(3 + second_of(world));
  const edge = (from, to, messages, bytes, credits = null) => {
    const rate = of.stalled ? 0 : Math.round(messages * (0.8 + 0.4 * roll()) * 10) / 10;
    all.push({from, to, messages_per_second: rate, bytes_per_second: rate * bytes, credits});
  };
  for (let n = 0; n < of.replicas * of.stages; ++n) {
    const me = `stage ${n}`, s = n % of.stages, replica = Math.floor(n / of.stages);
    if (s === 0) edge("loader 0", me, 100, 16384, {free: 2, of: 4});
    if (s + 1 < of.stages) edge(me, `stage ${n + 1}`, 100, 65536, {free: 1, of: 4});
    if (s + 1 < of.stages) edge(`stage ${n + 1}`, me, 100, 65536);
    for (let k = 0; k < Math.min(of.shards, 8); ++k) {
      const them = `expert shard ${s * of.shards + ((k + replica) % of.shards)}`;
      edge(me, them, 180, 131072, {free: of.stalled && them === kStuck ? 0 : 1 + (k % 2), of: 2});
      edge(them, me, 180, 131072);
    }
    edge(me, "conductor 0", 12, 2048);
    edge("conductor 0", me, 12, 512);
    if (n < of.shadows) edge(me, `shadow ${n}`, 12, 500000);
  }
  edge("stage 0", "checkpointer 0", 2, 1e6);
  return all.slice(0, kEdgesMax);
}

function node_of(world, node) {
  const {of} = world, dead = world.deaths.has(node), over = of.source === "over", still = of.stalled || dead || over,
        step = world.step_now();
  const peers =
      [...Array(of.nodes).keys()]
          .filter((n) => n !== node)
          .map((n) => ({node: n, heard_age_us: 900 + n * 10, unacknowledged: 0, early: 0, missing_age_us: null}));
  return {
    node,
    incarnation: world.lives.get(node) || 1,
    pid: 4000 + node,
    life: over ? "ended" :
        dead   ? "dead" :
                 "running",
    age_us: dead ? world.now_us() - world.deaths.get(node) : 21000 + node,
    clock_offset_us: 0,
    threads: of.threads,
    ready: still ? 0 : 3,
    pending: still ? 0 : 5,
    disk_jobs: 0,
    memory: {bytes: 180e6 + node * 1e6, peak: 230e6, bound: 256 * 2 ** 20},
    peers,
    bill: {},
    computing: still ? [] :
                       [
                         {thread: 0, actor: "stage 0", what: "forward", step, microbatch: 1, layer: 2, age_us: 300},
                         {thread: 1, actor: kStuck, what: "backward", step, microbatch: 0, layer: 2, age_us: 120}
                       ],
  };
}

function why_of(world) {
  const link = (from, to, what) => ({from, to, what, age_us: world.of.stalled ? stalled_for(world) : 12000});
  const dead = [...world.deaths.keys()][0];
  if (world.of.stalled) {
    return {
      kind: "handler",
      root: `${kStuck} on node 0 has been in the handler of ExpertBatch for ${(stalled_for(world) / 1e6).toFixed(1)} s`,
      links: [
        "conductor 0 waits for the vote of stage 0, step 120", "conductor 0 waits for the vote of stage 1, step 120",
        "stage 1 waits for activations from stage 0, microbatch 3",
        `stage 0 waits for expert results from ${kStuck}, step 120, microbatch 2, layer 1`
      ],
      chain: [
        link("conductor 0", "stage 0", "vote"), link("conductor 0", "stage 1", "vote"),
        link("stage 1", "stage 0", "activations"), link("stage 0", kStuck, "expert results")
      ]
    };
  }
  const root = dead === undefined ? "nothing stands still" : `node ${dead} is dead; the supervisor replaces it`;
  return {
    kind: dead === undefined ? "working" : "dead",
    root,
    links: ["conductor 0 waits for the vote of stage 1"],
    chain: [link("conductor 0", "stage 1", "vote")]
  };
}

function experts_of(world) {
  const step = world.step_now(), steps = [...Array(64).keys()].map((n) => step - 63 + n).filter((n) => n >= 0);
  const [layers, each] = world.of.stages > 2 ? [24, 64] : [2, 8];
  const load = (layer, s, e) => Math.round(
      100 *
      Math.exp(1.3 * Math.sin(e * 2.1 + layer) * Math.exp(-s / 150) + 0.25 * (dice(s * 97 + e + layer * 13)() - 0.5)));
  const counts = (layer) => steps.map((s) => [...Array(each).keys()].map((e) => load(layer, s, e)));
  return {steps, layers: [...Array(layers).keys()].map((layer) => ({layer: layer + 1, counts: counts(layer)}))};
}

function bill_of(world) {
  const thread_seconds = (world.now_us() / 1e6) * world.of.nodes * world.of.threads;
  const shares = Object.entries(kShares).filter(([bin]) => bin !== "redo" || world.attempt > 0);
  return {
    bins: Object.fromEntries(shares.map(([bin, share]) => [bin, share * thread_seconds])),
    thread_seconds,
    cost_dollars: 0.0004 * world.step_now(),
    worst: {imbalance: "expert shard 3", waiting: {holder: "conductor 0", thread_seconds: 1}}
  };
}

function flight_of(world) {
  const held = world.order.slice(world.delivered).filter((m) => m[7] <= world.now_us() && !world.dropped.has(m[0]));
  return {
    delivered: world.delivered,
    in_flight_count: held.length,
    in_flight: held.slice(0, kInFlightMax).map((m) => [m[0], m[2], m[3], m[4], m[8], m[10], m[11], m[12]])
  };
}

function verdict_of(world) {
  if (world.of.stalled) return [false, `nothing moves: ${kStuck} does not return from a handler`];
  if (world.deaths.size > 0) return [false, "a node is dead; the run recovers"];
  return [true, world.of.source === "over" ? `finished after ${world.steps_count} steps` : "nothing stands still"];
}

export function view_of(world, {filter = "", sort = "actor", offset = 0, limit = 200}) {
  const {of} = world, step = world.step_now(), wanted = filter.toLowerCase(), [healthy, verdict] = verdict_of(world);
  const all = [...world.homes].map(([actor, node], nth) => actor_of(world, actor, node, nth));
  const matching =
      all.filter((a) => !wanted || a.actor.includes(wanted) || a.state.includes(wanted) || `node ${a.node}` === wanted)
          .sort(kOrders[sort]);
  const {loss, reward, tokens_per_second, cost_dollars, mfu} = world.metric(step);
  const figures = {
    loss,
    reward,
    tokens_per_second: of.stalled ? 0 : tokens_per_second,
    mfu,
    cost_dollars,
    seconds: world.now_us() / 1e6,
    seconds_left: ((world.steps_count - step) * world.step_us) / 1e6
  };
  return {
    format: 1,
    run: `runs/${world.name}`,
    name: world.name,
    source: of.source,
    can_control: of.can_control,
    paused: of.source === "simulated" || world.paused_us !== null,
    tainted: world.tainted,
    now_us: world.now_us(),
    data_age_us: 20000,
    step,
    steps: world.steps_count,
    attempt: world.attempt,
    figures,
    healthy,
    verdict,
    nodes: [...Array(of.nodes).keys()].map((node) => node_of(world, node)),
    actors_count: all.length,
    actors_matching: matching.length,
    actors: matching.slice(Number(offset), Number(offset) + Number(limit)),
    places: all.map((a) => [a.actor, a.node, a.state]),
    edges: edges_of(world),
    why: why_of(world),
    bill: bill_of(world),
    experts: experts_of(world),
    ...(of.source === "simulated" ? {world: flight_of(world)} : {}),
  };
}
