// Loss, reward, tokens a second and cost over steps, as small charts of one look. What never came has no chart.
import {clean_canvas, element, set_attribute, set_hidden, set_text} from "./dom.js";
import {kSeries} from "./metrics.js";
import {number} from "./words.js";

const kLeft = 52, kRight = 8, kTop = 8, kBottom = 18;

// At most two points a pixel, the least and the most, so that no spike is lost.
function thinned(points, most) {
  if (points.length <= most) return points;
  const out = [], size = points.length / (most / 2);
  for (let at = 0; at < points.length; at += size) {
    const part = points.slice(Math.floor(at), Math.max(Math.floor(at) + 1, Math.floor(at + size)));
    const low = part.reduce((a, b) => (b[1] < a[1] ? b : a)), high = part.reduce((a, b) => (b[1] > a[1] ? b : a));
    out.push(...(low === high ? [low] : low[0] < high[0] ? [low, high] : [high, low]));
  }
  return out;
}

function ranges(points) {
  const values = points.map((point) => point[1]);
  let low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  if (high === low) [low, high] = [low - Math.abs(low || 1) / 2, high + Math.abs(high || 1) / 2];
  return {low, high, first: points[0][0], last: Math.max(points[0][0] + 1, points.at(-1)[0])};
}

function draw_chart(chart, colours, colour) {
  const {context, width, height} = clean_canvas(chart.canvas);
  const {low, high, first, last} = ranges(chart.points);
  const x_of = (step) => kLeft + ((step - first) / (last - first)) * (width - kLeft - kRight);
  const y_of = (value) => height - kBottom - ((value - low) / (high - low)) * (height - kTop - kBottom);
  context.font = "10px system-ui, sans-serif";
  context.strokeStyle = colours.line;
  context.fillStyle = colours.muted;
  for (const value of [low, (low + high) / 2, high]) {
    const y = Math.round(y_of(value)) + 0.5, text = number(value);
    context.beginPath();
    context.moveTo(kLeft, y);
    context.lineTo(width - kRight, y);
    context.stroke();
    context.fillText(text, kLeft - 6 - context.measureText(text).width, y + 3);
  }
  context.fillText(first, kLeft, height - 5);
  context.fillText(last, width - kRight - context.measureText(last).width, height - 5);
  context.strokeStyle = colour;
  context.lineWidth = 1.5;
  context.beginPath();
  thinned(chart.points, 2 * width)
      .forEach(
          ([step, value], i) =>
              (i === 0 ? context.moveTo(x_of(step), y_of(value)) : context.lineTo(x_of(step), y_of(value))));
  context.stroke();
  chart.step_of = (x) => first + ((x - kLeft) / (width - kLeft - kRight)) * (last - first);
}

export function make_curves(app, series) {
  const section = document.getElementById("curves"), box = section.querySelector(".charts");
  const charts = kSeries.map(({name, format}) => {
    const chart = {name, format, points: series.get(name), now: element("b"), canvas: element("canvas", {role: "img"})};
    chart.figure = element("figure", {}, element("figcaption", {}, `${name} `, chart.now), chart.canvas);
    chart.canvas.addEventListener("pointermove", (at) => point(chart, at));
    chart.canvas.addEventListener("pointerleave", () => app.tip(null));
    box.append(chart.figure);
    return chart;
  });
  function point(chart, at) {
    const step = chart.step_of?.(at.offsetX);
    if (step === undefined) return;
    const nearest = chart.points.reduce((a, b) => (Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a));
    app.tip(at, [`step ${nearest[0]}`, `${chart.name} ${number(nearest[1], 5)}`]);
  }
  return app.in_section(section, () => {
    charts.forEach((chart, i) => {
      set_hidden(chart.figure, chart.points.length === 0);
      if (chart.points.length === 0) return;
      const [step, value] = chart.points.at(-1);
      set_text(chart.now, number(value, chart.format));
      set_attribute(
          chart.canvas, "aria-label", `${chart.name} over steps, ${number(value, chart.format)} at step ${step}`);
      draw_chart(chart, app.colours, kSeries[i].colour);
    });
    const steps = charts[0].points.length;
    set_text(section.querySelector("small"), steps > 0 ? "over steps" : "no step yet");
  });
}
