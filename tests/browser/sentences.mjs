// What must hold on the page, sentence by sentence, and on which kinds of run. A sentence uses only what a person has:
// eyes (text, pixels), mouse and keyboard. So it holds for a mock and for a real server alike.
import assert from "node:assert/strict";

const kAll = ["small", "stalled", "finished", "simulated", "large"];
const kFrameMs = 200;  // from an interaction to what it paints, at most

const text = (page, selector) => page.locator(selector).first().innerText();
const see = (page, what, argument, ms = 10000) => page.waitForFunction(what, argument, {timeout: ms});

// How many different colours a canvas shows, and how many pixels are painted at all.
const painted = (page, selector) => page.locator(selector).first().evaluate((canvas) => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height), colours = new Set();
  let pixels = 0;
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 0) ++pixels;
    colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
  }
  return {colours: colours.size, pixels};
});

async function go(page, selector) {
  await page.locator(selector).scrollIntoViewIfNeeded();
  await page.waitForTimeout(250);
}

// Clicks along the first rows of the timeline until a segment is chosen.
async function click_a_segment(page) {
  await go(page, "#timeline");
  await see(page, () => Number(document.querySelector("#timeline").dataset.segments) > 0);
  const box = await page.locator("#timeline canvas").boundingBox();
  for (let y = 41; y < box.height - 8; y += 25) {
    for (let x = box.width - 20; x > 100; x -= 23) {
      await page.mouse.click(box.x + x, box.y + y);
      const title = await page.locator("#event h3").count() ? await text(page, "#event h3") : "";
      if (/^(forward|backward|weight gradient|apply|evaluate) of /.test(title)) return title;
    }
  }
  throw new Error("no segment was hit");
}

export const sentences = [
  {
    says: "the verdict, step, tokens per second and cost stand on top",
    on: kAll,
    does: async ({page, scenario}) => {
      const wanted =
          {small: /healthy/, stalled: /stalled/, finished: /over/, simulated: /simulated/, large: /healthy|simulated/}[scenario];
      assert.match(await text(page, "h1"), wanted);
      const figures = await text(page, "#figures");
      for (const name of ["step", "loss", "tokens/s", "cost"])
        assert.ok(figures.includes(name), `${name} is missing in ${figures}`);
      return (await text(page, "h1")).trim();
    }
  },
  {
    says: "the page is live and says how old its data is",
    on: ["small", "stalled", "large", "simulated"],
    does: async ({page}) => {
      await see(page, () => document.querySelector("#connection").dataset.state === "live");
      assert.match(await text(page, "#age"), /data as of .* ago/);
    }
  },
  {
    says: "the topology is drawn, edges and all",
    on: kAll,
    does: async ({page, scenario}) => {
      await go(page, "#topology");
      const boxes = await page.locator(".places button").count(),
            {pixels, colours} = await painted(page, "#topology canvas");
      assert.ok(boxes > 0 && pixels > 1000 && colours > 3, `${boxes} boxes, ${pixels} pixels, ${colours} colours`);
      if (scenario === "large") assert.ok(boxes <= 160, `${boxes} boxes are not grouped`);
      assert.match(await text(page, "#topology small"), /actors on \d+ nodes, .*messages\/s/);
      return `${boxes} boxes`;
    }
  },
  {
    says: "a box of the topology opens its actor, with credits and rates of its edges",
    on: ["small", "simulated", "stalled"],
    does: async ({page}) => {
      await page.locator(".places button", {hasText: /^stage 0$/}).click();
      await page.waitForSelector("#actor:not([hidden])");
      assert.match(await text(page, "#actor h2"), /stage 0/);
      const edges = await text(page, "#actor table");
      assert.match(edges, /\d\/s/);
      assert.match(edges, /\d+ of \d+ credits/);
      await page.keyboard.press("Escape");
      assert.ok(await page.locator("#actor").isHidden());
    }
  },
  {
    says: "the timeline shows segments and arrows",
    on: kAll,
    does: async ({page}) => {
      await go(page, "#timeline");
      await see(
          page,
          () => Number(document.querySelector("#timeline").dataset.segments) > 0 &&
              Number(document.querySelector("#timeline").dataset.arrows) > 0);
      const {segments, arrows} = await page.locator("#timeline").evaluate((section) => ({...section.dataset}));
      assert.ok((await painted(page, "#timeline canvas")).colours > 8);
      return `${segments} segments, ${arrows} arrows`;
    }
  },
  {
    says: "a click on a segment shows its cause and its effects, and one follows them back and forth",
    on: kAll,
    does: async ({page}) => {
      const chosen = await click_a_segment(page);
      let links = 0;
      for (; links < 6 && (await page.locator("#event .cause button").count()) > 0; ++links) {
        const before = await text(page, "#event");
        await page.locator("#event .cause button").click();
        await see(page, (was) => document.querySelector("#event").innerText !== was, before);
        await page.waitForTimeout(150);
      }
      assert.ok(links >= 2, `only ${links} causes from "${chosen}"`);
      await page.waitForSelector("#event .caused button");
      for (let i = 0; i < links; ++i) await page.locator("#event button", {hasText: /^back$/}).click();
      assert.equal(await text(page, "#event h3"), chosen);
      return `${links} links from ${chosen}`;
    }
  },
  {
    says: "keys alone choose segments, zoom, pan and go along the chain",
    on: ["small", "finished", "simulated", "large"],
    does: async ({page}) => {
      const canvas = page.locator("#timeline canvas"), small = "#timeline small";
      await canvas.focus();
      await page.keyboard.press("Escape");
      await page.keyboard.press("ArrowRight");
      const first = await text(page, "#event");
      for (let more = 0; more < 50 && await text(page, "#event") === first; ++more)  // neighbours may read alike
        await page.keyboard.press("ArrowRight");
      assert.notEqual(await text(page, "#event"), first);
      await page.keyboard.press("c");
      await page.keyboard.press("b");
      const wide = await text(page, small);
      await page.keyboard.press("+");
      await see(page, (was) => document.querySelector("#timeline small").innerText !== was, wide);
      await page.keyboard.press("Shift+ArrowLeft");
      await page.keyboard.press("f");
      assert.equal(await page.locator("#timeline .tools button").first().getAttribute("aria-pressed"), "true");
    }
  },
  {
    says: "expert load is a heat map that tells its numbers",
    on: kAll,
    does: async ({page, scenario}) => {
      await go(page, "#heat");
      await page.waitForTimeout(300);
      if (scenario === "simulated" && (await page.locator("#heat .maps").isHidden())) return "no step has ended yet";
      const detail = "#heat .maps div:last-child canvas";
      assert.ok((await painted(page, detail)).colours > 5);
      await page.locator(detail).hover({position: {x: 300, y: 10}});
      await page.waitForSelector("#tip:not([hidden])");
      assert.match(await text(page, "#tip"), /times the mean/);
      await page.mouse.move(5, 300);
    }
  },
  {
    says: "loss, tokens per second and cost are curves",
    on: ["small", "stalled", "finished", "large"],
    does: async ({page, scenario}) => {
      await go(page, "#curves");
      await see(
          page,
          (least) => [...document.querySelectorAll("#curves figure")].filter((figure) => !figure.hidden).length >= least,
          scenario === "large" ? 2 : 3);  // a simulated world costs nothing
      await page.waitForTimeout(300);
      assert.ok((await painted(page, "#curves canvas")).pixels > 200);
      await page.locator("#curves canvas").first().hover({position: {x: 120, y: 40}});
      assert.match(await text(page, "#tip"), /step \d+\s+loss/);
      await page.mouse.move(5, 300);
    }
  },
  {
    says: "the bill is a bar and its numbers add up",
    on: kAll,
    does: async ({page}) => {
      await go(page, "#bill");
      await page.waitForSelector("#bill .bins li");
      const shares = await page.locator("#bill .bins b").allInnerTexts(),
            sum = shares.reduce((a, b) => a + parseFloat(b), 0);
      assert.ok(Math.abs(sum - 100) < 3, `${shares} add up to ${sum}`);
      assert.equal(await page.locator("#bill .bar span").count(), shares.length);
    }
  },
  {
    says: "who waits for whom is red and says the root",
    on: ["stalled"],
    does: async ({page}) => {
      assert.equal(await page.locator("#why").getAttribute("data-bad"), "true");
      const sentences_seen = await text(page, "#why");
      assert.match(sentences_seen, /root: /);
      assert.ok((await page.locator("#why svg .root").count()) >= 1);
      const [red, green, blue] =
          (await page.locator("#why .root_sentence").evaluate((node) => getComputedStyle(node).color))
              .match(/\d+/g)
              .map(Number);
      assert.ok(red > 1.5 * green && red > 1.5 * blue, `rgb ${red} ${green} ${blue}`);
      return (await text(page, "#why .root_sentence")).trim();
    }
  },
  {
    says: "who waits for whom is drawn, and quiet, while all is well",
    on: ["small", "large"],
    does: async ({page}) => {
      assert.equal(await page.locator("#why").getAttribute("data-bad"), "false", await text(page, "#why"));
      await page.waitForSelector("#why svg .place");
      assert.ok(await page.locator("#why ol").isHidden());
    }
  },
  {
    says: "actors are sorted, filtered and turned over by pages",
    on: ["small", "large", "stalled"],
    does: async ({page, scenario}) => {
      await go(page, "#actors");
      await page.locator("#actors th button", {hasText: "busy"}).click();
      await see(page, () => document.querySelectorAll("#actors th[aria-sort=descending]").length === 1);
      await page.locator("#actors input").fill("expert shard");
      await see(
          page,
          () => [...document.querySelectorAll("#actors tbody tr")].every((row) => row.dataset.actor.includes("shard")));
      if (scenario === "large") {
        await page.locator("#actors button", {hasText: "▸"}).click();
        await see(page, () => /^51–100/.test(document.querySelector("#actors output").innerText));
      }
      await page.locator("#actors input").fill("");
      await page.locator("#actors th button", {hasText: "actor"}).click();
      await see(
          page,
          () => [...document.querySelectorAll("#actors tbody tr")].some((row) => !row.dataset.actor.includes("shard")));
      return await text(page, "#actors output");
    }
  },
  {
    says: "an actor opened by keys tells waits, credits, version and its last messages",
    on: ["small", "large", "stalled"],
    does: async ({page, scenario}) => {
      await page.locator("#actors input").fill("stage 0");
      await see(page, () => document.querySelector("#actors tbody tr")?.dataset.actor === "stage 0");
      await page.locator("#actors tbody tr[tabindex='0']").focus();
      await page.keyboard.press("Home");
      await page.keyboard.press("Enter");
      const panel = await text(page, "#actor");
      for (const word of ["version", "credits", "waits for", "last messages"])
        assert.ok(panel.includes(word), `${word} is missing`);
      if (scenario !== "stalled") await page.waitForSelector("#actor .messages li");
      await page.keyboard.press("Escape");
      assert.equal(await page.evaluate(() => document.activeElement.dataset.actor), "stage 0");
      await page.locator("#actors input").fill("");
    }
  },
  {
    says: "nodes tell life, age and memory against its bound",
    on: kAll,
    does: async ({page}) => {
      await go(page, "#nodes");
      assert.match(
          await text(page, "#nodes tbody tr"), /(running|ended|stopped|dead|silent)[\s\S]* of [\d.]+ (MiB|GiB|KiB)/);
    }
  },
  {
    says: "a run is paused, takes one step, and is resumed",
    on: ["small"],
    does: async ({page}) => {
      if (await page.locator("#control").isHidden()) return "not allowed here";
      const button = page.locator("#control button").first();
      await button.click();
      await see(page, () => /paused/.test(document.querySelector("h1").innerText));
      const step = () => page.evaluate(() => Number(document.querySelector("#figures").innerText.match(/step\s+(\d+)/)[1]));
      const paused_at = await step();
      await page.locator("#control button", {hasText: /^step$/}).click();
      await see(
          page, (was) => Number(document.querySelector("#figures").innerText.match(/step\s+(\d+)/)[1]) === was + 1,
          paused_at);
      assert.match(await text(page, "h1"), /paused/);
      await button.click();
      await see(page, () => !/paused/.test(document.querySelector("h1").innerText));
    }
  },
  {
    says: "a kill and the recovery are seen live",
    on: ["small"],
    does: async ({page}) => {
      if (await page.locator("#control").isHidden()) return "not allowed here";
      await go(page, "#nodes");
      const button = page.locator("#nodes tbody tr").last().locator("button");
      await button.click();
      assert.match(await button.innerText(), /really kill node \d+\?/);
      await button.click();
      await see(page, () => /dead|\(life/.test(document.querySelector("#nodes tbody tr:last-child .life").innerText));
      const seen = await text(page, "#nodes tbody tr:last-child .life");
      await see(
          page, () => /running \(life \d+\)/.test(document.querySelector("#nodes tbody tr:last-child .life").innerText),
          null, 20000);
      await see(
          page,
          () => /attempt/.test(document.querySelector("#figures").innerText) &&
              /healthy/.test(document.querySelector("h1").innerText),
          null, 20000);
      return `${seen.trim()}, then ${(await text(page, "#nodes tbody tr:last-child .life")).trim()}`;
    }
  },
  {
    says: "a simulated world goes one message on, many, until, and back",
    on: ["simulated"],
    does: async ({page}) => {
      const told = () => text(page, "#control output"),
            delivered = async () => Number((await told()).match(/^[\d,]+/)[0].replaceAll(",", ""));
      const press = async (name) => {
        const before = await told();
        await page.locator("#control button", {hasText: new RegExp(`^${name}$`)}).click();
        await see(page, (was) => document.querySelector("#control output").innerText !== was, before);
      };
      const first = await delivered();
      await press("step");
      assert.equal(await delivered(), first + 1);
      await press("run");
      assert.equal(await delivered(), first + 101);
      await press("back");
      assert.equal(await delivered(), first + 100);
      await page.locator("#control select").selectOption("receives");
      await press("run");
      assert.notEqual(await text(page, "#said"), "");
      return `${await delivered()} messages delivered`;
    }
  },
  {
    says: "injecting a message in flight is told, dropping it takes it away",
    on: ["simulated"],
    does: async ({page}) => {
      if (await page.locator("#flight").isHidden()) return "not told by this server";
      await go(page, "#flight");
      await page.waitForSelector("#flight tbody tr");
      const first = page.locator("#flight tbody tr").first(), id = await first.getAttribute("data-id");
      await first.locator("button", {hasText: "inject"}).click();
      await page.waitForSelector("#notice:not([hidden])");
      await first.locator("button", {hasText: "drop"}).click();
      await see(page, (was) => document.querySelector("#flight tbody tr")?.dataset.id !== was, id);
    }
  },
  {
    says: "a node of a simulated world is killed and restarted",
    on: ["simulated"],
    does: async ({page}) => {
      await go(page, "#nodes");
      const last = page.locator("#nodes tbody tr").last();
      await last.locator("button", {hasText: "kill"}).click();
      await last.locator(".life[data-life=dead]").waitFor();
      await last.locator("button", {hasText: "restart"}).click();
      await last.locator(".life[data-life=running]").waitFor();
    }
  },
  {
    says: "a finished run has no control and no false haste",
    on: ["finished"],
    does: async ({page}) => {
      assert.ok(await page.locator("#control").isHidden());
      assert.match(await text(page, "#age"), /over/);
      assert.ok(!(await text(page, "#figures")).includes("left"));
    }
  },
  {
    says: "keys are listed under ?, and numbers go to sections",
    on: ["small"],
    does: async ({page}) => {
      await page.evaluate(() => document.activeElement.blur());
      await page.keyboard.press("?");
      assert.match(await text(page, "#help"), /to the cause/);
      await page.keyboard.press("Escape");
      await page.keyboard.press("5");
      assert.equal(await page.evaluate(() => document.activeElement.closest("section")?.id), "timeline");
    }
  },
  {
    says: "everything that can be pressed has a name, every section a heading",
    on: kAll,
    does: async ({page}) => {
      const nameless = await page.evaluate(
          () => [...document.querySelectorAll("button, input, select, canvas[tabindex], [role=img]")]
                    .filter(
                        (node) =>
                            !node.closest("[hidden]") && !(node.innerText || node.ariaLabel || node.labels?.length))
                    .map((node) => node.outerHTML.slice(0, 120)));
      assert.deepEqual(nameless, []);
      const unheaded = await page.evaluate(
          () => [...document.querySelectorAll("main section")]
                    .filter((s) => !document.getElementById(s.getAttribute("aria-labelledby")))
                    .length);
      assert.equal(unheaded, 0);
    }
  },
  {
    says: "it is dark where one wants it dark, and still where one wants it still",
    on: ["small", "stalled"],
    does: async ({open}) => {
      const light = await open({colorScheme: "light"}),
            dark = await open({colorScheme: "dark", reducedMotion: "reduce"});
      const ground = async ({page}) => (await page.evaluate(() => getComputedStyle(document.body).backgroundColor))
                                           .match(/\d+/g)
                                           .reduce((a, b) => a + Number(b), 0);
      assert.ok((await ground(light)) > 600 && (await ground(dark)) < 150);
      const moves = ({page}) => page.evaluate(() => getComputedStyle(document.documentElement).scrollBehavior);
      assert.deepEqual([await moves(light), await moves(dark)], ["smooth", "auto"]);
      for (const {page, complaints} of [light, dark]) {
        assert.deepEqual(complaints, []);
        await page.context().close();
      }
    }
  },
  {
    says: "in a narrow window nothing sticks out",
    on: ["small", "stalled", "large"],
    does: async ({open}) => {
      const {page} = await open({viewport: {width: 900, height: 800}});
      await page.waitForTimeout(600);
      const [wide, inner] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      await page.context().close();
      assert.ok(wide <= inner, `${wide} of ${inner} pixels`);
    }
  },
  {
    says: "a view with nothing but what it must have breaks nothing",
    on: ["finished"],
    does: async ({browser, server}) => {
      const page = await browser.newPage(), errors = [];
      const view = {
        format: 1,
        run: "runs/bare",
        name: "bare",
        source: "live",
        now_us: 1000,
        healthy: true,
        nodes: [{node: 0, life: "silent"}],
        actors_count: 1,
        actors: [{actor: "stage 0", node: 0, state: "idle"}]
      };
      page.on("pageerror", (error) => errors.push(error.stack));
      await page.route(
          "**/api/stream*",
          (route) => route.fulfill(
              {contentType: "text/event-stream", body: `event: view\ndata: ${JSON.stringify(view)}\n\n`}));
      await page.goto(`${server.base}/#token=${server.token}`);
      await see(page, () => /bare/.test(document.querySelector("h1").innerText));
      for (const id of ["nodes", "actors", "timeline", "heat", "bill"]) await go(page, `#${id}`);
      await page.locator("#actors tbody tr").click();
      assert.match(await text(page, "#actor"), /stage 0/);
      assert.deepEqual(errors, []);
      await page.close();
    }
  },
  {
    says: "a wrong token is refused and the page says so",
    on: ["small"],
    does: async ({browser, server}) => {
      const page = await browser.newPage();
      await page.goto(`${server.base}/#token=wrong`);
      await see(page, () => document.querySelector("#connection").dataset.state === "refused");
      assert.match(await text(page, "#connection"), /token/);
      await page.close();
    }
  },
  {
    says: "a server that goes away is told, and found again when it is back",
    on: ["finished"],
    does: async ({browser, server}) => {
      if (!server.close) return "only of the mock";
      const {serve} = await import("./mock_server.mjs"), port = Number(new URL(server.base).port) + 1,
            page = await browser.newPage();
      const first = await serve("small", port);
      await page.goto(`${first.base}/#token=${first.token}`);
      await see(page, () => document.querySelector("#connection").dataset.state === "live");
      await first.close();
      await see(page, () => /not connected; try \d/.test(document.querySelector("#connection").innerText));
      const second = await serve("small", port);
      await see(page, () => document.querySelector("#connection").dataset.state === "live");
      await page.close();
      await second.close();
    }
  },
  {
    says: `with all its actors every interaction is painted within ${kFrameMs} ms`,
    on: ["large", "small"],
    does: async ({page, busy}) => (busy ? "not timed beside a run that takes all cores" : measure(page))
  },
];

// Interactions as a person makes them; the page's own PerformanceObserver says how long each took until it was painted.
// Judged as browsers judge INP: of fifty interactions the slowest is forgiven, for a busy machine paints late now and then;
// what the page itself works for one, and the frames that it draws, are forgiven nothing. A machine that paints late has
// a second go: a page that is slow is slow again.
async function measure(page) {
  let found = await interact(page);
  if (found.paint >= kFrameMs) found = await interact(page);
  assert.ok(found.paint < kFrameMs && found.work < kFrameMs && found.frame < kFrameMs, found.told);
  return found.told;
}

async function interact(page) {
  await page.evaluate(() => {
    const known = window.interactions !== undefined;
    window.interactions = new Map();  // id -> {name, paint, work}: ms until painted, ms until its handlers are done
    window.frames = [];               // ms from an event to the second frame after it
    if (known) return;
    new PerformanceObserver((list) => {
      for (const {interactionId, name, duration, startTime, processingEnd} of list.getEntries()) {
        const before = window.interactions.get(interactionId)?.paint || 0;
        if (interactionId && duration > before)
          window.interactions.set(interactionId, {name, paint: duration, work: processingEnd - startTime});
      }
    }).observe({type: "event", durationThreshold: 16});
    for (const kind of ["click", "keydown"]) {
      addEventListener(kind, ({timeStamp}) => {
        requestAnimationFrame(() => requestAnimationFrame(() => window.frames.push(performance.now() - timeStamp)));
      }, true);
    }
  });
  const press = async (key, times = 1) => {
    for (let i = 0; i < times; ++i) await page.keyboard.press(key, {delay: 20});
  };
  for (const column of ["queue", "busy", "memory", "actor"])
    await page.locator("#actors th button", {hasText: column}).click();
  await page.locator("#actors input").pressSequentially("shard 1", {delay: 30});
  await page.locator("#actors input").fill("");
  await page.locator("#actors tbody tr").first().click();
  await press("Escape");
  await page.locator("#actors tbody tr").nth(1).focus();
  await press("ArrowDown", 8);
  await go(page, "#timeline");
  await page.locator("#timeline canvas").focus();
  for (const key
           of ["ArrowRight", "ArrowRight", "e", "c", "ArrowDown", "ArrowDown", "-", "-", "-", "-", "+", "+",
               "Shift+ArrowLeft", "Shift+ArrowRight", "a", "a", "0", "f"])
    await press(key);
  await page.waitForTimeout(1500);
  await press("-", 3);
  await go(page, "#topology");
  for (const nth of [0, 2, 5]) await page.locator(".places button").nth(nth).hover();
  await page.locator(".places button").nth(1).click();
  await press("Escape");
  await page.waitForTimeout(800);
  const {interactions, frames} =
      await page.evaluate(() => ({interactions: [...window.interactions.values()], frames: window.frames}));
  interactions.sort((x, y) => y.paint - x.paint);
  frames.sort((x, y) => x - y);
  const judged = interactions[Math.floor(frames.length / 50)] || {name: "none", paint: 0};
  const work = Math.max(0, ...interactions.map((one) => one.work)), frame = frames.at(-1);
  const told = `${frames.length} interactions: INP ${judged.paint} ms (${judged.name}), slowest paint ${
                   interactions[0]?.paint} ms, ` +
      `most work ${work.toFixed(0)} ms, second frame after ${
                   frames[frames.length >> 1].toFixed(0)} ms in the middle and ${frame.toFixed(0)} ms at most`;
  return {paint: judged.paint, work, frame, told};
}
