// A server that speaks the inspector's contract about runs that do not exist: the page's stage scenery. Plain node, on
// 127.0.0.1 alone. The law: what it tells is a function of scenario and time, so a test sees the same each time.
//   node mock_server.mjs [--port 8123] [--scenario small|stalled|large|finished|simulated]
import {readdirSync, readFileSync} from "node:fs";
import {createServer} from "node:http";
import {fileURLToPath} from "node:url";

import {World} from "./mock_world.mjs";

const kWeb = fileURLToPath(new URL("../../launcher/web/", import.meta.url));
const kTypes = {
  html: "text/html; charset=utf-8",
  css: "text/css; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  svg: "image/svg+xml"
};
const kToken = "mock-token";

function page_file(path, answer) {
  const name = path === "/" ? "index.html" : path.slice(1);
  if (!readdirSync(kWeb).includes(name)) return tell(answer, 404, {error: `there is no ${name}`});
  answer.writeHead(200, {
    "Content-Type": kTypes[name.split(".").pop()],
    "Content-Security-Policy": "default-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store"
  });
  answer.end(readFileSync(kWeb + name));
}

function tell(answer, status, body) {
  answer.writeHead(status, {"Content-Type": "application/json", "Cache-Control": "no-store"});
  answer.end(JSON.stringify(body));
}

async function body_of(request) {
  let text = "";
  for await (const part of request) text += part;
  return JSON.parse(text || "{}");
}

function stream(world, query, request, answer) {
  answer.writeHead(200, {"Content-Type": "text/event-stream", "Cache-Control": "no-store"});
  const send = () => answer.write(`event: view\ndata: ${JSON.stringify(world.view(query))}\n\n`);
  send();
  const timer = setInterval(send, 1000);
  world.listeners.add(send);
  request.on("close", () => {
    clearInterval(timer);
    world.listeners.delete(send);
  });
}

async function api(world, url, request, answer) {
  if (request.headers.authorization !== `Bearer ${kToken}`)
    return tell(answer, 401, {error: "the token is missing or wrong"});
  const query = Object.fromEntries(url.searchParams);
  if (url.pathname === "/api/view") return tell(answer, 200, world.view(query));
  if (url.pathname === "/api/stream") return stream(world, query, request, answer);
  if (url.pathname === "/api/timeline") return tell(answer, 200, world.timeline(query));
  if (url.pathname === "/api/metrics") return tell(answer, 200, world.metrics(Number(query.after || 0)));
  if (url.pathname === "/api/event") {
    const event = world.event(query.id);
    return event ? tell(answer, 200, event) :
                   tell(answer, 404, {error: `the journals know no event ${query.id} any more`});
  }
  if (url.pathname !== "/api/control" || request.method !== "POST")
    return tell(answer, 404, {error: `there is no ${url.pathname}`});
  const said = world.control(await body_of(request));
  tell(answer, said.error ? 409 : 200, said);
  world.listeners.forEach((send) => send());
}

// Answers {base, token, close()}.
export async function serve(scenario, port = 0) {
  const world = new World(scenario);
  const server = createServer((request, answer) => {
    const url = new URL(request.url, "http://127.0.0.1");
    if (url.pathname.startsWith("/api/"))
      api(world, url, request, answer).catch((problem) => tell(answer, 500, {error: problem.message}));
    else
      page_file(url.pathname, answer);
  });
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  return {
    base: `http://127.0.0.1:${server.address().port}`,
    token: kToken,
    close: () => {
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    }
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const option = (name, otherwise) =>
      (process.argv.includes(name) ? process.argv[process.argv.indexOf(name) + 1] : otherwise);
  const {base, token} = await serve(option("--scenario", "small"), Number(option("--port", 8123)));
  console.log(`${base}/#token=${token}`);
}
