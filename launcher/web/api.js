// The server, as `troupe inspect --web` speaks. The token comes behind # in the address and goes in a header, never in
// a URL. The law: a broken stream is told, and tried again with growing pauses; only a refusal (401, 403) ends it.

const kPausesMs = [500, 1000, 2000, 4000, 8000];
const kSilentMs = 15000;  // a stream that says nothing for so long is broken

export class Refusal extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

export function make_api() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  const headers = token ? {Authorization: `Bearer ${token}`} : {};

  async function ask(path, query = {}, options = {}) {
    const url = new URL(path, location.origin);
    for (const [name, value] of Object.entries(query))
      if (value !== "" && value !== null) url.searchParams.set(name, value);
    const answer = await fetch(url, {cache: "no-store", ...options, headers: {...headers, ...options.headers}});
    if (!answer.ok) throw new Refusal(answer.status, await sentence_of(answer));
    return answer;
  }
  return {
    get: async (path, query, signal) => (await ask(path, query, {signal})).json(),
    post: async (path, body) =>
        (await ask(
             path, {}, {method: "POST", body: JSON.stringify(body), headers: {"Content-Type": "application/json"}}))
            .json(),
    stream: (path, query, hear, tell) => follow(ask, path, query, hear, tell),
  };
}

async function sentence_of(answer) {
  try {
    return (await answer.json()).error || answer.statusText;
  } catch {
    return answer.status === 401 ? "the server wants a token: open the address that troupe inspect printed" :
                                   answer.statusText;
  }
}

// hear(event, data) for every event; tell({state: "live" | "trying" | "refused", sentence}). Answers how to end it.
function follow(ask, path, query, hear, tell) {
  const end = new AbortController();
  (async () => {
    for (let failures = 0; !end.signal.aborted;) {
      try {
        await read_once(ask, path, query, end.signal, (event, data) => {
          failures = 0;
          tell({state: "live", sentence: "live"});
          hear(event, data);
        });
        throw new Error("the server ended the stream");
      } catch (problem) {
        if (end.signal.aborted) return;
        if (problem.status === 401 || problem.status === 403)
          return tell({state: "refused", sentence: problem.message});
        const pause_ms = kPausesMs[Math.min(failures++, kPausesMs.length - 1)];
        tell({state: "trying", sentence: `not connected; try ${failures + 1} in ${pause_ms / 1000} s`});
        await new Promise((done) => setTimeout(done, pause_ms));
      }
    }
  })();
  return () => end.abort();
}

async function read_once(ask, path, query, ended, hear) {
  const silence = new AbortController();
  let watch = setTimeout(() => silence.abort(), kSilentMs);
  try {
    const answer = await ask(path, query, {signal: AbortSignal.any([ended, silence.signal])});
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = "";;) {
      const {value, done} = await reader.read();
      if (done) return;
      clearTimeout(watch);
      watch = setTimeout(() => silence.abort(), kSilentMs);
      const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
      rest = blocks.pop();
      blocks.forEach((block) => hear_block(block, hear));
    }
  } finally {
    clearTimeout(watch);
  }
}

function hear_block(block, hear) {
  let event = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) event = line.slice(6).trim();
    if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
  }
  if (data.length > 0) hear(event, JSON.parse(data.join("\n")));
}
