// What /api/timeline tells, made ready to draw: rows sorted by time, events by id, from each event to what it caused.
// The law: a segment and the SegmentDone that tells of it are one event, for they have one id.

const kNobody = "0";

const segment_of = ([id, cause, node, thread, begin_us, end_us, kind, actor, step, microbatch, layer]) =>
    ({is: "segment", id, cause, node, thread, begin_us, end_us, kind, actor, step, microbatch, layer});
const message_of =
    ([id, cause, kind, from, to, from_node, to_node, sent_us, begin_us, took_us, step, microbatch, layer, size]) => ({
      is: "message",
      id,
      cause,
      kind,
      from,
      to,
      from_node,
      node: to_node,
      thread: -1,
      sent_us,
      begin_us,
      end_us: begin_us + Math.max(took_us, 1),
      took_us,
      step,
      microbatch,
      layer,
      size
    });

// {segment: [row]} or {message: [row]}, as /api/event answers.
export function event_of(answer) {
  if (!answer) return null;
  return answer.segment ? segment_of(answer.segment) : message_of(answer.message);
}

export const row_key = (node, thread) => `${node}/${thread}`;

export function index_timeline(answer) {
  const segments = answer.segments.map(segment_of), messages = answer.messages.map(message_of);
  const events = new Map(), caused = new Map(), rows = new Map();
  const place = (event) => {
    const key = row_key(event.node, event.thread);
    (rows.get(key) || rows.set(key, []).get(key)).push(event);
  };
  const cause = (event) => {
    if (event.cause === kNobody || event.cause === event.id) return;
    (caused.get(event.cause) || caused.set(event.cause, []).get(event.cause)).push(event);
  };
  for (const segment of segments) events.set(segment.id, segment);
  for (const message of messages) {
    const segment = events.get(message.id);
    if (segment)
      segment.done = message;
    else
      events.set(message.id, message);
    place(message);
  }
  segments.forEach(place);
  for (const event of events.values()) cause(event);
  for (const row of rows.values()) row.sort((a, b) => a.begin_us - b.begin_us);
  messages.sort((a, b) => a.begin_us - b.begin_us);
  return {
    from_us: answer.from_us,
    to_us: answer.to_us,
    complete: answer.complete,
    events,
    caused,
    rows,
    messages,
    waits: answer.waits || []
  };
}

export const empty_timeline = () => index_timeline({from_us: 0, to_us: 0, complete: true, segments: [], messages: []});

// The first of `row` that ends after `us`. Events of a row do not overlap, so ends are sorted as begins are.
export function first_after(row, us) {
  let low = 0, high = row.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (row[middle].end_us > us)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

export const cause_of = (data, event) => data.events.get(event.cause) || null;
export const caused_by = (data, event) => data.caused.get(event.id) || [];

// The chosen event, all before it back to `most`, and what it caused itself.
export function chain_of(data, event, most = 200) {
  const chain = [event];
  for (let at = cause_of(data, event); at && chain.length < most; at = cause_of(data, at)) chain.unshift(at);
  return [...chain, ...caused_by(data, event)];
}
