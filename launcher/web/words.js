// Numbers as people read them. The law: what is unknown is a dash, never a zero.

const kNone = "–";
export const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

function digits(value, most = 3) {
  if (value === 0) return "0";
  const decimals = Math.max(0, most - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(decimals, 6));
}

export function number(value, most = 3) {
  if (!known(value)) return kNone;
  const size = Math.abs(value);
  if (size >= 1e9) return digits(value / 1e9, most) + "G";
  if (size >= 1e6) return digits(value / 1e6, most) + "M";
  if (size >= 1e4) return digits(value / 1e3, most) + "k";
  if (size > 0 && size < 1e-4) return value.toExponential(1).replace("e-0", "e-");
  return Number.isInteger(value) ? String(value) : digits(value, most);
}

export const count = (value) => (known(value) ? Math.round(value).toLocaleString("en-US") : kNone);
export const percent = (share) =>
    (known(share) ? (100 * share).toFixed(share > 0 && share < 0.0995 ? 1 : 0) + "%" : kNone);
export const dollars = (value) =>
    (known(value) ? "$" + (value > 0 && value < 0.001 ? number(value, 2) : value.toFixed(value < 10 ? 4 : 2)) : kNone);

// A time span, from microseconds.
export function span(us) {
  if (!known(us)) return kNone;
  const size = Math.abs(us);
  if (size < 1e3) return `${Math.round(us)} µs`;
  if (size < 1e6) return `${digits(us / 1e3, 2)} ms`;
  if (size < 1e8) return `${digits(us / 1e6, 2)} s`;
  return clock(us / 1e6);
}

// Seconds as 2:05, 1:02:05 or 3d 04h.
export function clock(seconds) {
  if (!known(seconds)) return kNone;
  const s = Math.round(seconds), two = (n) => String(n).padStart(2, "0");
  if (s >= 86400) return `${Math.floor(s / 86400)}d ${two(Math.floor(s / 3600) % 24)}h`;
  if (s >= 3600) return `${Math.floor(s / 3600)}:${two(Math.floor(s / 60) % 60)}:${two(s % 60)}`;
  return `${Math.floor(s / 60)}:${two(s % 60)}`;
}

export function bytes(value) {
  if (!known(value)) return kNone;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  for (; value >= 1024 && power < units.length - 1; ++power) value /= 1024;
  return `${power === 0 ? value : digits(value)} ${units[power]}`;
}

// "expert shard 3" -> role "expert shard", index 3.
export function address(actor) {
  const cut = actor.lastIndexOf(" ");
  return {role: actor.slice(0, cut).replace("_", " "), index: Number(actor.slice(cut + 1))};
}

export function work(item) {
  const parts = [];
  for (const part of ["step", "microbatch", "layer"])
    if (known(item[part]) && item[part] >= 0) parts.push(`${part} ${item[part]}`);
  return parts.join(", ");
}
