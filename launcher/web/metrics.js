// What metrics.jsonl has told so far, as series to draw. The law: bounded; of more than kPointsMax points every other
// one of the older half is forgotten.

const kPointsMax = 8000;

export const kSeries = [
  {name: "loss", of: (line) => line.loss, format: 4, colour: "#4477aa"},
  {name: "reward", of: (line) => line.reward, format: 3, colour: "#cc3377"},
  {name: "tokens/s", of: (line) => line.tokens_per_second, format: 3, colour: "#228833"},
  {name: "cost, $", of: (line) => line.cost_dollars, format: 3, colour: "#ee7733"},
];

export function make_metrics(api, heard) {
  const series = new Map(kSeries.map(({name}) => [name, []]));
  let next = 0, asking = false;

  function hear(line) {
    if (line.kind !== "step") return;
    for (const {name, of} of kSeries) {
      const points = series.get(name), value = of(line);
      if (!Number.isFinite(value)) continue;
      while (points.length > 0 && points.at(-1)[0] >= line.step) points.pop();  // told twice: the later line counts
      points.push([line.step, value]);
      if (points.length > kPointsMax)
        points.splice(0, points.length, ...points.filter((_, i) => i % 2 === 1 || i > kPointsMax / 2));
    }
    heard(line);
  }
  async function ask() {
    if (asking) return;
    asking = true;
    try {
      for (let more = true; more;) {
        const answer = await api.get("/api/metrics", {after: next});
        answer.lines.forEach(hear);
        more = answer.lines.length > 0 && answer.next > next;
        next = answer.next;
      }
    } finally {
      asking = false;
    }
  }
  return {series, ask};
}
