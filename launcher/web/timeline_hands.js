// How hands move the timeline: keys along rows and chains, a pointer that chooses and drags, a wheel, buttons.
import {element, set_attribute} from "./dom.js";
import {facts_of, title_of} from "./event_panel.js";
import {hit, kTimelineLeft} from "./timeline_draw.js";
import {span} from "./words.js";

const kDragPixels = 4, kWaitsTold = 3;

export function attach_hands(timeline) {
  const buttons = make_buttons(timeline);
  attach_keys(timeline, buttons);
  attach_pointer(timeline);
  attach_wheel(timeline);
  return buttons;
}

function make_buttons(timeline) {
  const button = (text, label, act) => element("button", {"aria-label": label, title: label, onclick: act}, text);
  const buttons = {
    follow: button("follow", "Follow the run", () => timeline.follow(!timeline.following)),
    closer: button("+", "Zoom in", () => timeline.zoom(0.5)),
    further: button("−", "Zoom out", () => timeline.zoom(2)),
    earlier: button("◂", "Earlier", () => timeline.pan(-0.5)),
    later: button("▸", "Later", () => timeline.pan(0.5)),
    fit: button("fit", "Show all that is loaded", () => timeline.fit()),
    arrows: button(
        "arrows", "Draw messages as arrows",
        () => {
          timeline.scene.arrows = !timeline.scene.arrows;
          set_attribute(buttons.arrows, "aria-pressed", timeline.scene.arrows);
          timeline.render();
        }),
  };
  set_attribute(buttons.follow, "aria-pressed", true);
  set_attribute(buttons.arrows, "aria-pressed", true);
  timeline.section.querySelector(".tools").append(...Object.values(buttons));
  return buttons;
}

function attach_keys(timeline, buttons) {
  const keys = {
    ArrowLeft: (shift) => (shift ? timeline.pan(-0.2) : timeline.neighbour(-1)),
    ArrowRight: (shift) => (shift ? timeline.pan(0.2) : timeline.neighbour(1)),
    ArrowUp: () => timeline.other_row(-1),
    ArrowDown: () => timeline.other_row(1),
    "+": () => timeline.zoom(0.5),
    "=": () => timeline.zoom(0.5),
    "-": () => timeline.zoom(2),
    0: () => timeline.fit(),
    c: () => timeline.to_cause(),
    e: () => timeline.to_effect(),
    b: () => timeline.back(),
    Escape: () => timeline.choose(null),
    f: () => buttons.follow.click(),
    a: () => buttons.arrows.click(),
  };
  timeline.canvas.addEventListener("keydown", (key) => {
    if (key.ctrlKey || key.metaKey || key.altKey || !keys[key.key]) return;
    key.preventDefault();
    keys[key.key](key.shiftKey);
  });
}

function attach_pointer(timeline) {
  const {canvas, scene} = timeline;
  let drag = null;
  canvas.addEventListener("pointerdown", (at) => {
    drag = {x: at.offsetX, y: at.offsetY, moved: false, from_us: scene.from_us, to_us: scene.to_us, top: scene.top};
    canvas.setPointerCapture(at.pointerId);
  });
  canvas.addEventListener("pointermove", (at) => {
    if (!drag) return hover(timeline, at);
    const dx = at.offsetX - drag.x, dy = at.offsetY - drag.y;
    if (!drag.moved && Math.abs(dx) + Math.abs(dy) < kDragPixels) return;
    if (!drag.moved) timeline.follow(false);
    drag.moved = true;
    const us = (dx / (canvas.clientWidth - kTimelineLeft)) * (drag.to_us - drag.from_us);
    timeline.look(drag.from_us - us, drag.to_us - us);
    timeline.scroll_rows(drag.top - dy - scene.top);
  });
  canvas.addEventListener("pointerup", (at) => {
    const clicked = drag && !drag.moved;
    drag = null;
    if (clicked) timeline.choose(hit(canvas, scene, at.offsetX, at.offsetY)?.event || null);
  });
  canvas.addEventListener("pointercancel", () => (drag = null));
  canvas.addEventListener("pointerleave", () => timeline.app.tip(null));
}

// Says what is under the pointer: an event, or what the actors of that node wait for while its thread is idle.
function hover({canvas, scene, app}, at) {
  const found = hit(canvas, scene, at.offsetX, at.offsetY);
  if (!found) return app.tip(null);
  if (found.event) return app.tip(at, [title_of(found.event), ...facts_of(found.event)]);
  const waits = scene.data.waits.filter(
      ([actor, , , begin, end]) => begin <= found.us && end >= found.us && app.node_of(actor) === found.row.node);
  const told =
      waits.slice(0, kWaitsTold).map(([actor, what, holder, begin,
                                       end]) => `${actor} waits for ${what} from ${holder}, ${span(end - begin)}`);
  app.tip(at, [`node ${found.row.node}: idle`, ...told]);
}

// The wheel zooms where the picture has the focus, or with Ctrl; else the page scrolls as it should.
function attach_wheel(timeline) {
  const {canvas} = timeline;
  canvas.addEventListener("wheel", (wheel) => {
    const share = (wheel.offsetX - kTimelineLeft) / (canvas.clientWidth - kTimelineLeft);
    if (Math.abs(wheel.deltaX) > Math.abs(wheel.deltaY))
      timeline.pan(wheel.deltaX / 1000);
    else if (wheel.ctrlKey || (document.activeElement === canvas && !wheel.shiftKey))
      timeline.zoom(2 ** (wheel.deltaY / 200), Math.max(0, Math.min(1, share)));
    else
      return;
    wheel.preventDefault();
  }, {passive: false});
}
