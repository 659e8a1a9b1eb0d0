/** What is on the screen: a hero, rows of cards, and a line that says what the device holds. */

import { art } from "./art.js";

/** @typedef {import("./demo.js").Title} Title */

/** Cards in a row. */
const ROW = 10;
/** Stages in which nothing is live. */
const STILL = ["tonight", "upcoming", "ended", "gone"];
/** Rows in all. */
const ROWS = 4;

/** @param {string} id */
const $ = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** How many times the screen has changed: what was begun for an earlier stage is not finished. */
let turn = 0;
/** The hero's id. */
let featured = "";

/**
 * How the connection is.
 * @param {"live" | "waiting" | "ended"} state
 * @param {string} text
 */
export function link(state, text) {
  $("link").dataset.state = state;
  $("link").textContent = text;
}

/** @param {Record<string, string>} facts by the id of their place */
export function describe(facts) {
  for (const [id, text] of Object.entries(facts)) $(id).textContent = text;
}

/**
 * Switches to what a stage shows. Resolves when the new screen is painted.
 * @param {string} stage
 * @param {string[]} picks ids, the hero first; none: what is popular, as on any evening
 * @param {Record<string, Title>} titles the catalogue
 * @returns {Promise<void>}
 */
export async function showStage(stage, picks, titles) {
  const known = picks.filter((id) => Object.hasOwn(titles, id));
  const shown = known.length ? known : Object.keys(titles);
  turn += 1;
  document.documentElement.dataset.stage = stage;
  $("stage").textContent = named(stage);
  $("stage").dataset.kind = STILL.includes(stage) ? "still" : "live";
  const hero = shown.find((id) => id !== featured) ?? shown[0]; // what was just there is no news
  if (shown.length) feature(hero, titles[hero]);
  const others = [hero, ...shown.filter((id) => id !== hero)];
  const rows = rowsOf(known.length ? "Picked for you, now" : "Popular", others, titles);
  $("rows").replaceChildren(...rows.map(([name, ids], at) => row(name, ids, titles, at)));
  await painted(turn);
}

/** @param {number} mine */
async function painted(mine) {
  if (document.hidden || mine !== turn) return; // a hidden page paints nothing
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
}

/** @param {string} id @param {Title} title */
function feature(id, { title, genres }) {
  featured = id;
  $("title").textContent = title;
  $("genres").textContent = genres.map(named).join(" · ");
  const old = [...$("backdrop").children];
  const next = art(id, genres, true);
  next.classList.add("enter");
  $("backdrop").append(next);
  const done = () => old.forEach((one) => one.remove());
  next.addEventListener("animationend", done, { once: true });
  setTimeout(done, 1000); // with reduced motion nothing is animated
}

/**
 * The picks, then what else there is of the genres that the picks are mostly of.
 * @param {string} name of the picks
 * @param {string[]} picks
 * @param {Record<string, Title>} titles
 * @returns {[string, string[]][]}
 */
function rowsOf(name, picks, titles) {
  const used = new Set(picks.slice(0, ROW + 1));
  /** @type {Map<string, number>} */
  const weight = new Map();
  for (const id of picks) for (const genre of titles[id].genres) weight.set(genre, (weight.get(genre) ?? 0) + 1);
  for (const { genres } of Object.values(titles)) for (const genre of genres) weight.set(genre, weight.get(genre) ?? 0);
  const all = [...picks, ...Object.keys(titles)];
  /** @type {[string, string[]][]} */
  const rows = [[name, picks.slice(1, ROW + 1)]];
  for (const [genre] of [...weight].sort(([, a], [, b]) => b - a)) {
    const more = all.filter((id, at) => !used.has(id) && titles[id].genres.includes(genre) && all.indexOf(id) === at);
    if (more.length < 5 || rows.length === ROWS) continue;
    more.slice(0, ROW).forEach((id) => used.add(id));
    rows.push([named(genre), more.slice(0, ROW)]);
  }
  return rows;
}

/**
 * @param {string} name
 * @param {string[]} ids
 * @param {Record<string, Title>} titles
 * @param {number} at
 */
function row(name, ids, titles, at) {
  const cards = element("ul", "cards");
  cards.tabIndex = 0;
  cards.setAttribute("aria-label", name);
  cards.append(...ids.map((id) => card(id, titles[id])));
  const section = element("section", "row enter");
  section.style.setProperty("--at", String(at));
  section.append(element("h2", "", name), cards);
  return section;
}

/** @param {string} id @param {Title} title */
function card(id, { title, genres }) {
  const item = element("li", "card");
  item.append(art(id, genres), element("span", "name", title), element("span", "kind", genres.map(named).join(" · ")));
  return item;
}

/** @param {string} tag @param {string} classes @param {string} [text] */
function element(tag, classes, text = "") {
  const made = document.createElement(tag);
  made.className = classes;
  made.textContent = text;
  return made;
}

/** `first-half` as people read it. @param {string} name */
const named = (name) => (name.charAt(0).toUpperCase() + name.slice(1)).replaceAll(/[-_.]/g, " ");
