// Plain DOM. The law: text goes in as text, never as markup; a node is touched only where it changes.

// element("td", {class: "number", title: "..."}, "text", child): properties that begin with "on" are listeners.
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on"))
      node.addEventListener(name.slice(2), value);
    else
      node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// A table of which the body is given; heads are texts or cells.
export function table(heads, body) {
  const cells = heads.map((head) => (typeof head === "string" ? element("th", {scope: "col"}, head) : head));
  return element("table", {}, element("thead", {}, element("tr", {}, ...cells)), body);
}

export const hint = (text) => element("p", {class: "hint"}, text);
// The name of an actor, which opens it.
export const chip = (actor, open) => element("button", {class: "chip", onclick: () => open(actor)}, actor);

export function svg(tag, properties = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(properties)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export function set_text(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function set_attribute(node, name, value) {
  if (value === null)
    node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value))
    node.setAttribute(name, value);
}

export function set_hidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

// `parent` has one child for each item, in order; children are made once and filled again and again.
export function fill(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, index) => {
    if (index >= parent.children.length) parent.append(make());
    update(parent.children[index], item, index);
  });
}

// A canvas as large as its box in device pixels, cleared; answers its context and size in CSS pixels.
export function clean_canvas(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  const wide = Math.round(width * ratio), high = Math.round(height * ratio);
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return {context, width, height};
}

// Arrow keys among the children of a table body or a list: one of them is a tab stop at a time.
export function move_focus(items, step) {
  const at = items.indexOf(document.activeElement);
  const next = items[Math.max(0, Math.min(items.length - 1, at + step))];
  if (!next) return;
  for (const item of items) item.tabIndex = item === next ? 0 : -1;
  next.focus();
}
