/** Elements without markup made of text: what a producer or a server wrote is never parsed as HTML. */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. `attributes`: `class`, `data`: {name: value}, `on`: {event: listener}, the rest as they are; null, undefined and
 * false leave one out, true sets it empty. Children: nodes, strings, numbers; null and false are passed over.
 */
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same, of SVG. */
export function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "data") Object.assign(node.dataset, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(
    ...children
      .flat()
      .filter((child) => child !== null && child !== undefined && child !== false)
      .map((child) => (child instanceof Node ? child : String(child))),
  );
  return node;
}

/** Sets an element's text where it differs, so that what has not changed is not painted, and a selection stays. */
export function say(node, text) {
  const wanted = String(text ?? "");
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** Shows or hides. */
export function show(node, shown) {
  if (node.hidden === Boolean(shown)) node.hidden = !shown;
}

/** Replaces an element's children, only if `key` differs from the last time: focus and selection survive an update. */
export function renew(node, key, make) {
  if (node.dataset.key === key) return;
  node.dataset.key = key;
  node.replaceChildren(...[make()].flat());
}

/** Something for screen readers alone, at once. */
export function speak(text) {
  say(document.getElementById("spoken"), text);
}

/** A notice that goes away by itself; `tone`: "good", "bad". */
export function notice(text, tone = "good") {
  const shown = h("p", { class: "notice", data: { tone } }, text);
  const region = document.getElementById("notices");
  region.append(shown);
  while (region.children.length > 3) region.firstChild.remove();
  setTimeout(() => shown.remove(), tone === "bad" ? 12_000 : 6_000);
}
