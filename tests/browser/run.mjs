// The page's sentences against the real program: runs that live, stall, are over and are simulated, each served by
// `troupe inspect --web` and driven in headless Chromium.
//   node run.mjs PATH/TO/troupe [--only small] [--shots FOLDER]
import assert from "node:assert";
import {spawn} from "node:child_process";
import {existsSync, mkdtempSync, readFileSync, rmSync} from "node:fs";
import {tmpdir} from "node:os";
import {dirname, join} from "node:path";
import {fileURLToPath} from "node:url";

const kHere = dirname(fileURLToPath(import.meta.url)), kTiny = join(kHere, "../../configs/tiny.toml");
const [troupe, ...more] = process.argv.slice(2);
assert.ok(troupe && existsSync(troupe), "give the path of the program: node run.mjs build/release/troupe");
const folder = mkdtempSync(join(tmpdir(), "troupe-browser-"));
const children = [];

const sets = (all) => all.flatMap((one) => ["--set", one]);
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function start(args) {
  const child = spawn(troupe, args, {stdio: ["ignore", "pipe", "pipe"], detached: true});
  child.said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (bytes) => (child.said += bytes));
  child.over = new Promise((done) => child.on("exit", done));
  children.push(child);
  return child;
}

function end(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch {
    // it is gone
  }
}

async function until(what, happened, ms = 60000) {
  const late = Date.now() + ms;
  for (;;) {
    const found = await happened();
    if (found) return found;
    if (Date.now() > late) throw new Error(`${what}: not within ${ms / 1000} s`);
    await sleep(50);
  }
}

const steps_of = (run) => {
  const path = join(run, "metrics.jsonl");
  return existsSync(path) ? readFileSync(path, "utf8").split("\n").filter((line) => line.includes('"kind":"step"')).length : 0;
};

// What the page is of: the arguments of `troupe inspect`.
const kScenarios = {
  small: async () => {
    const run = join(folder, "small");
    start(["train", kTiny, "--out", run, "--quiet",
           ...sets(["train.steps=10000000", "layout.nodes=2", "layout.expert_shards=2", "evaluate.every_steps=0",
                    "link.delay_ms=2"])]);  // the browser needs a part of the machine too
    await until("a run begins", () => steps_of(run) > 20);
    return [run, "--allow-control"];
  },
  stalled: async () => {
    const run = join(folder, "stalled");
    const train = start(["train", kTiny, "--out", run, "--quiet",
           ...sets(["train.steps=10000000", "layout.nodes=2", "limits.silence_ms=600000", "evaluate.every_steps=0"])]);
    await until("a run begins", () => steps_of(run) > 20);
    const told = start(["inspect", run, "--json"]);
    await told.over;
    process.kill(JSON.parse(told.said).nodes[1].pid, "SIGSTOP");
    await sleep(3000);
    train.stopped = true;
    return [run];
  },
  finished: async () => {
    const run = join(folder, "finished");
    assert.equal(await start(["train", kTiny, "--out", run, "--quiet", ...sets(["layout.nodes=2"])]).over, 0);
    return [run];
  },
  simulated: () => ["--simulate", kTiny, ...sets(["layout.nodes=2", "layout.expert_shards=2", "train.steps=100"])],
  large: () => ["--simulate", kTiny, ...sets(["layout.nodes=16", "layout.replicas=16", "layout.stages=16",
                                              "layout.expert_shards=16", "model.num_hidden_layers=32",
                                              "model.n_routed_experts=16", "train.batch_sequences=64",
                                              "train.microbatches=64", "train.gradient_lanes=16", "train.steps=100"])],
};

// A world stands still until it is told: it shall have something to show.
async function run_until_step(base, token, step) {
  await until(`step ${step} of the world`, async () => {
    const answer = await fetch(`${base}/api/control`, {
      method: "POST",
      headers: {"Content-Type": "application/json", Authorization: `Bearer ${token}`},
      body: JSON.stringify({do: "run", until: {step}})
    });
    const {said, error} = await answer.json();
    if (error) throw new Error(error);
    return !said.includes("ask again");
  }, 120000);
}

async function test(scenario) {
  const web = start(["inspect", ...await kScenarios[scenario](), "--web", "--port", "0"]);
  const [, base, token] = await until(`the page of ${scenario}`, () => {
    if (web.exitCode !== null) throw new Error(web.said);
    return web.said.match(/is at (http:\/\/[^/]+)\/(?:#token=(\w+))?/);
  });
  if (["simulated", "large"].includes(scenario)) await run_until_step(base, token, 3);
  const page = spawn(process.execPath, [join(kHere, "page_test.mjs"), "--base", base, "--token", token ?? "", "--scenario",
                                        scenario, ...(scenario === "small" ? ["--busy"] : []), ...more],
                     {stdio: "inherit"});
  const code = await new Promise((done) => page.on("exit", done));
  children.forEach(end);
  return code === 0;
}

let failed = 0;
try {
  const only = more.includes("--only") ? more[more.indexOf("--only") + 1] : null;
  for (const scenario of Object.keys(kScenarios)) {
    if (only && only !== scenario) continue;
    if (!await test(scenario)) ++failed;
  }
} finally {
  children.forEach(end);
  rmSync(folder, {recursive: true, force: true});
}
console.log(failed === 0 ? "every page did as it should" : `${failed} pages did not do as they should`);
process.exitCode = failed === 0 ? 0 : 1;
