// When to draw. The law: at most once a frame, whatever happens in between, and nothing that nobody can see.

export function make_frames() {
  const due = new Set(), away = new Map();  // section -> what it would draw
  let asked = false;
  const run = () => {
    asked = false;
    const now = [...due];
    due.clear();
    now.forEach((draw) => draw());
  };
  const redraw = (draw) => {
    due.add(draw);
    if (!asked) requestAnimationFrame(run);
    asked = true;
  };
  const seen = new Map();
  const watch = new IntersectionObserver((entries) => {
    for (const {target, isIntersecting} of entries) {
      seen.set(target, isIntersecting);
      if (isIntersecting && away.has(target)) redraw(away.get(target));
      if (isIntersecting) away.delete(target);
    }
  }, {rootMargin: "100px"});
  // redraw for what stands in one section; put off while the section is out of sight.
  const in_section = (section, draw) => {
    watch.observe(section);
    new ResizeObserver(() => redraw_seen()).observe(section);
    function redraw_seen() {
      if (seen.get(section) === false)
        away.set(section, draw);
      else
        redraw(draw);
    }
    return redraw_seen;
  };
  return {redraw, in_section};
}
