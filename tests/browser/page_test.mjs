// The inspector's page in headless Chromium: what a person sees and does, as sentences. By default against the mock server;
// the same sentences hold for a real one:
//   node page_test.mjs [--only small] [--shots FOLDER]
//   node page_test.mjs --base http://127.0.0.1:PORT --token T --scenario small|stalled|large|finished|simulated
import {mkdirSync} from "node:fs";
import {chromium} from "playwright-core";

import {sentences} from "./sentences.mjs";

const kScenarios = ["small", "stalled", "finished", "simulated", "large"];
const kSentenceMs = 30000;

const option = (name, otherwise = null) =>
    (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : otherwise);

// What must never happen on any page: errors, and requests to anybody else.
function watch_page(page, base) {
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`error in the page: ${error.stack}`));
  page.on(
      "request",
      (request) => !request.url().startsWith(base + "/") && complaints.push(`request elsewhere: ${request.url()}`));
  page.on("console", (message) => {
    const forgotten = message.location().url.includes("/api/event");  // a 404 that the page expects
    if (["error", "warning"].includes(message.type()) && !forgotten)
      complaints.push(`console: ${message.text()} ${message.location().url}`);
  });
  return complaints;
}

async function open_page(browser, {base, token}, options = {}) {
  const context = await browser.newContext({viewport: {width: 1440, height: 900}, ...options});
  const page = await context.newPage();
  page.setDefaultTimeout(10000);
  const complaints = watch_page(page, base);
  await page.goto(`${base}/#token=${token}`);
  await page.waitForSelector("body[data-ready=yes]");
  return {page, complaints};
}

async function take_shots(browser, server, scenario, folder) {
  mkdirSync(folder, {recursive: true});
  for (const [name, options, whole] of [
           ["light", {}, true], ["dark", {colorScheme: "dark"}, true], ["screen", {}, false],
           ["narrow", {viewport: {width: 900, height: 900}}, true]]) {
    const {page} = await open_page(browser, server, options);
    await page.waitForTimeout(1500);
    await page.screenshot({path: `${folder}/${scenario}-${name}.png`, fullPage: whole});
    await page.context().close();
  }
}

async function within(ms, work) {
  let timer;
  const late =
      new Promise((_, fail) => (timer = setTimeout(() => fail(new Error(`not done within ${ms / 1000} s`)), ms)));
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function run_scenario(browser, server, scenario) {
  let failed = 0;
  const {page, complaints} = await open_page(browser, server);
  for (const {says, on, does} of sentences) {
    if (!on.includes(scenario)) continue;
    const begin = Date.now();
    try {
      const told = await within(
          kSentenceMs, does({page, browser, server, scenario, busy: process.argv.includes("--busy"), open: (options) => open_page(browser, server, options)}));
      console.log(`ok    ${scenario}: ${says}${told ? ` (${told})` : ""}, ${Date.now() - begin} ms`);
    } catch (problem) {
      ++failed;
      console.log(`FAIL  ${scenario}: ${says}\n      ${problem.stack.split("\n").slice(0, 6).join("\n      ")}`);
    }
  }
  console.log(
      complaints.length === 0 ? `ok    ${scenario}: no error on the console, no request elsewhere` :
                                `FAIL  ${scenario}: ${complaints.slice(0, 3).join("\n      ")}`);
  await page.context().close();
  return failed + (complaints.length > 0 ? 1 : 0);
}

const browser =
    await chromium.launch({executablePath: option("--chromium", "/usr/bin/chromium"), args: ["--no-sandbox"]});
let failed = 0;
try {
  const base = option("--base");
  const scenarios =
      base ? [option("--scenario", "small")] : kScenarios.filter((name) => name === option("--only", name));
  for (const scenario of scenarios) {
    const server = base ? {base: base.replace(/\/$/, ""), token: option("--token", "")} :
                          await (await import("./mock_server.mjs")).serve(scenario);
    if (option("--shots"))
      await take_shots(browser, server, scenario, option("--shots"));
    else
      failed += await run_scenario(browser, server, scenario);
    await server.close?.();
  }
} finally {
  await browser.close();
}
console.log(failed === 0 ? "all hold" : `${failed} do not hold`);
process.exit(failed === 0 ? 0 : 1);
