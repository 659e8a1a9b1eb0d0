/** Pictures for titles, drawn: the genre gives the motif and the hue, the id the rest, so a title always looks the same. */

const SVG = "http://www.w3.org/2000/svg";
const W = 320;
const H = 180;

/** Genre → hue and motifs. @type {Record<string, [number, ...Motif[]]>} */
const LOOKS = {
  football: [150, pitch, stadium, ball], highlights: [92, ball, stadium], interview: [28, spotlight], documentary: [205, rings], news: [215, rings],
  history: [38, columns], nature: [165, hills], travel: [188, hills], music: [318, bars], crime: [352, beams],
  thriller: [268, beams], drama: [8, spotlight], "science-fiction": [250, planet], comedy: [48, confetti],
  family: [22, confetti], reality: [300, confetti],
};

let count = 0;

/** @typedef {(draw: Draw, random: () => number, hue: number) => void} Motif */
/** @typedef {(tag: string, attributes: Record<string, string | number>) => void} Draw */

/**
 * @param {string} id
 * @param {string[]} genres
 * @param {boolean} [wide] for the hero: fills its box from the right
 * @returns {SVGElement}
 */
export function art(id, genres, wide = false) {
  const random = seeded(id);
  const known = genres.filter((genre) => Object.hasOwn(LOOKS, genre));
  const [base, ...motifs] = LOOKS[known[Math.floor(random() * known.length)]] ?? [random() * 360, rings];
  const motif = motifs[Math.floor(random() * motifs.length)];
  const hue = Math.round(base + (random() - 0.5) * 44);
  const svg = document.createElementNS(SVG, "svg");
  set(svg, { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: wide ? "xMaxYMid slice" : "xMidYMid slice", "aria-hidden": "true" });
  svg.classList.add("art");
  const name = `shade-${count++}`;
  const gradient = add(svg, "linearGradient", { id: name, x1: 0, y1: 0, x2: 1, y2: 1 });
  add(gradient, "stop", { offset: 0, "stop-color": `hsl(${hue} 62% 40%)` });
  add(gradient, "stop", { offset: 1, "stop-color": `hsl(${hue + 50} 68% 15%)` });
  add(svg, "rect", { width: W, height: H, fill: `url(#${name})` });
  motif((tag, attributes) => void add(svg, tag, attributes), random, hue);
  return svg;
}

/** @type {Motif} */
function pitch(draw, random) {
  const x = 150 + random() * 70;
  const line = { fill: "none", stroke: "#fff", "stroke-opacity": 0.32, "stroke-width": 2.5 };
  for (let i = 0; i < 8; i += 2) draw("rect", { x: i * 40, width: 40, height: H, fill: "#fff", "fill-opacity": 0.05 });
  draw("circle", { cx: x, cy: 90, r: 44, ...line });
  draw("path", { d: `M${x} 0V${H}M0 45h46v90H0M${W} 45h-46v90h46`, ...line });
  leather(draw, x + 20 + random() * 60, 60 + random() * 60, 9 + random() * 4);
}

/** @type {Motif} */
function ball(draw, random) {
  const [x, y, r] = [205 + random() * 50, 80 + random() * 50, 46 + random() * 22];
  for (let i = 1; i < 4; i++)
    draw("circle", { cx: x - i * 26, cy: y + i * 9, r: r * (1 - i * 0.09), fill: "#fff", "fill-opacity": 0.09 - i * 0.02 });
  leather(draw, x, y, r);
}

/** @type {Motif} */
function stadium(draw, random, hue) {
  for (let i = 0; i < 5; i++)
    draw("path", { d: `M-20 ${128 - i * 17}Q160 ${78 - i * 21} 340 ${128 - i * 17}`, fill: "none", stroke: "#fff", "stroke-opacity": 0.1 + i * 0.02, "stroke-width": 7, "stroke-dasharray": `${3 + random() * 4} ${3 + random() * 3}` });
  draw("path", { d: `M0 ${H}V146Q160 108 ${W} 146V${H}z`, fill: `hsl(${hue} 60% 36%)` });
  draw("path", { d: `M0 ${H}L120 131h80L${W} ${H}z`, fill: "#fff", "fill-opacity": 0.07 });
  for (const x of [60 + random() * 20, 236 + random() * 20]) {
    draw("path", { d: `M${x} 26l-70 ${H}h150z`, fill: "#fff", "fill-opacity": 0.09 });
    draw("rect", { x: x - 19, y: 15, width: 38, height: 16, rx: 3, fill: "#fdfdf0", "fill-opacity": 0.92 });
    draw("rect", { x: x - 2, y: 31, width: 4, height: 80, fill: "#0a0f14", "fill-opacity": 0.5 });
  }
}

/** A football. @param {Draw} draw @param {number} x @param {number} y @param {number} r */
function leather(draw, x, y, r) {
  /** @param {number} turn @param {number} far */
  const at = (turn, far) => `${x + Math.sin(turn) * r * far} ${y - Math.cos(turn) * r * far}`;
  const fifths = [0, 1, 2, 3, 4].map((i) => (i * 2 * Math.PI) / 5);
  draw("circle", { cx: x + r * 0.2, cy: y + r * 0.3, r, fill: "#000", "fill-opacity": 0.25 });
  draw("circle", { cx: x, cy: y, r, fill: "#eef2f6" });
  draw("path", { d: `M${fifths.map((turn) => at(turn, 0.36)).join("L")}z`, fill: "#1b2430" });
  const seams = fifths.map((turn) => `M${at(turn, 0.36)}L${at(turn, 0.7)}L${at(turn - 0.42, 0.92)}M${at(turn, 0.7)}L${at(turn + 0.42, 0.92)}`);
  draw("path", { d: seams.join(""), fill: "none", stroke: "#1b2430", "stroke-width": r / 16 });
}

/** @type {Motif} */
function hills(draw, random, hue) {
  draw("circle", { cx: 190 + random() * 90, cy: 45 + random() * 20, r: 22, fill: `hsl(${hue - 120} 90% 78%)`, "fill-opacity": 0.9 });
  for (let i = 0; i < 3; i++) {
    const y = 80 + i * 28;
    const peak = () => y - 15 - random() * 35;
    const d = `M0 ${y + 20}Q40 ${peak()} 100 ${y + 8}T200 ${y}T${W} ${peak() + 30}V${H}H0z`;
    draw("path", { d, fill: `hsl(${hue + i * 8} 45% ${30 - i * 8}%)` });
  }
}

/** @type {Motif} */
function beams(draw, random) {
  for (let i = 0; i < 4; i++) {
    const x = 40 + i * 75 + random() * 30;
    draw("path", { d: `M${x} 0h${8 + random() * 14}L${x - 60 - random() * 50} ${H}h-46z`, fill: "#fff", "fill-opacity": 0.05 + random() * 0.08 });
  }
  const x = 190 + random() * 60;
  draw("path", { d: `M${x - 24} ${H}c0-52 8-64 17-67a16 16 0 1 1 14 0c9 3 17 15 17 67z`, fill: "#05070a", "fill-opacity": 0.72 });
}

/** @type {Motif} */
function spotlight(draw, random, hue) {
  const x = 170 + random() * 80;
  draw("path", { d: `M${x} -10L${x - 85} ${H}H${x + 85}z`, fill: `hsl(${hue + 40} 90% 80%)`, "fill-opacity": 0.2 });
  draw("ellipse", { cx: x, cy: 160, rx: 84, ry: 15, fill: `hsl(${hue + 40} 90% 85%)`, "fill-opacity": 0.3 });
  draw("path", { d: `M${x - 22} 162c0-42 7-53 15-56a15 15 0 1 1 14 0c8 3 15 14 15 56z`, fill: "#0a0c10", "fill-opacity": 0.75 });
}

/** @type {Motif} */
function rings(draw, random) {
  const [x, y] = [190 + random() * 80, 60 + random() * 60];
  for (let r = 20; r < 180; r += 24)
    draw("circle", { cx: x, cy: y, r, fill: "none", stroke: "#fff", "stroke-opacity": 0.26 - r / 900, "stroke-width": 2.5 });
  draw("circle", { cx: x, cy: y, r: 9, fill: "#fff", "fill-opacity": 0.8 });
}

/** @type {Motif} */
function columns(draw, random) {
  const x = 130 + random() * 40;
  draw("path", { d: `M${x - 12} 62L${x + 67} 26l79 36z`, fill: "#fff", "fill-opacity": 0.22 });
  for (let i = 0; i < 5; i++) draw("rect", { x: x + i * 30, y: 68, width: 14, height: 80, rx: 2, fill: "#fff", "fill-opacity": 0.16 });
  draw("rect", { x: x - 14, y: 150, width: 162, height: 10, fill: "#fff", "fill-opacity": 0.24 });
}

/** @type {Motif} */
function bars(draw, random, hue) {
  for (let i = 0; i < 15; i++) {
    const h = 16 + random() * 110 * Math.sin(((i + 1) / 16) * Math.PI);
    draw("rect", { x: 22 + i * 19, y: 90 - h / 2, width: 9, height: h, rx: 4.5, fill: `hsl(${hue + i * 6} 90% 80%)`, "fill-opacity": 0.55 });
  }
}

/** @type {Motif} */
function planet(draw, random, hue) {
  for (let i = 0; i < 34; i++) draw("circle", { cx: random() * W, cy: random() * H, r: 0.5 + random() * 1.2, fill: "#fff", "fill-opacity": 0.7 });
  const [x, y, r] = [200 + random() * 60, 70 + random() * 40, 30 + random() * 16];
  draw("circle", { cx: x, cy: y, r, fill: `hsl(${hue + 90} 70% 62%)` });
  draw("circle", { cx: x + r * 0.3, cy: y + r * 0.2, r: r * 0.95, fill: "#000", "fill-opacity": 0.22 });
  draw("ellipse", { cx: x, cy: y, rx: r * 1.75, ry: r * 0.42, fill: "none", stroke: "#fff", "stroke-opacity": 0.55, "stroke-width": 3, transform: `rotate(-18 ${x} ${y})` });
}

/** @type {Motif} */
function confetti(draw, random, hue) {
  for (let i = 0; i < 26; i++) {
    const [x, y] = [random() * W, random() * H];
    const fill = { fill: `hsl(${hue + random() * 200} 85% 68%)`, "fill-opacity": 0.6 };
    if (random() < 0.5) draw("circle", { cx: x, cy: y, r: 3 + random() * 9, ...fill });
    else draw("rect", { x, y, width: 6 + random() * 12, height: 6, rx: 3, transform: `rotate(${random() * 180} ${x} ${y})`, ...fill });
  }
}

/** @param {Element} parent @param {string} tag @param {Record<string, string | number>} attributes */
function add(parent, tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  set(made, attributes);
  parent.append(made);
  return made;
}

/** @param {Element} element @param {Record<string, string | number>} attributes */
function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
}

/** Numbers in [0, 1), always the same for one text (mulberry32 over FNV-1a). @param {string} text */
function seeded(text) {
  let seed = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) seed = Math.imul(seed ^ text.charCodeAt(i), 0x01000193);
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
