// Colours for canvases, as the style sheet has them for light or dark. Microbatches take those of launcher/colours.h,
// distinct for the colour-blind too; load is blue below the mean, orange above it.

export const kMicrobatches = ["#4477aa", "#ee7733", "#228833", "#cc3377", "#33a6c7", "#b8942a", "#8855bb", "#aa4422"];

// `changed` is called when the theme does.
export function make_colours(changed) {
  const colours = {};
  const read = () => {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["ground", "panel", "ink", "muted", "line", "track", "accent", "bad", "warn", "good"]) {
      colours[name] = style.getPropertyValue(`--${name}`).trim();
    }
    colours.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  };
  read();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    read();
    changed();
  });
  return colours;
}

export const microbatch_colour = (microbatch, other) =>
    microbatch >= 0 ? kMicrobatches[microbatch % kMicrobatches.length] : other;

// times: rows over the mean; from a quarter (blue) over 1 (ground) to four times (orange), by its logarithm.
export function load_colour(times, dark) {
  const at = Math.max(-1, Math.min(1, Math.log2(Math.max(times, 1e-3)) / 2));
  const middle = dark ? [38, 42, 50] : [244, 244, 241];
  const end = at < 0 ? (dark ? [92, 160, 222] : [33, 94, 150]) : (dark ? [255, 156, 82] : [201, 82, 12]);
  const mix = middle.map((value, i) => Math.round(value + (end[i] - value) * Math.abs(at) ** 0.8));
  return `rgb(${mix.join(",")})`;
}
