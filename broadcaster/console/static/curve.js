/** How a transition landed over time: samples kept by (gen, seq), drawn as steps. */

import { s, say } from "./dom.js";
import { percent } from "./format.js";

/** States whose samples are kept. */
const KEPT = 8;
/** Samples of one state; over it every second one goes. */
const SAMPLES_MAX = 1200;
/** Seconds: a first sample that is later than this leaves open what was before it. */
export const SEEN_FROM_START = 2;
const MARGIN = { left: 44, right: 12, top: 10, bottom: 26 };
export const SERIES = [
  ["written", "sent to the device's socket"],
  ["switched", "switched, of those that ack"],
  ["there", "there, by the census"],
];

/** What `progress` says as shares of 1; null where nobody can say. */
export function shares(progress) {
  return {
    written: share(progress.written, progress.audience),
    switched: share(progress.switched, progress.asked),
    there: share(progress.at_or_past, progress.subscribed),
  };
}

function share(part, whole) {
  return whole > 0 ? part / whole : null;
}

export class Samples {
  #states = new Map();

  /** Takes a sample at `seconds` after the transition. */
  take(progress, seconds) {
    const key = `${progress.gen}/${progress.seq}`;
    const taken = this.of(progress);
    const sample = { seconds: Math.max(0, seconds), ...shares(progress) };
    const last = taken.at(-1);
    const same = last && SERIES.every(([name]) => last[name] === sample[name]);
    if (!same) taken.push(sample);
    if (taken.length > SAMPLES_MAX)
      taken.splice(0, taken.length, ...taken.filter((_, place) => place % 2 === 0 || place === taken.length - 1));
    this.#states.delete(key);
    this.#states.set(key, taken);
    if (this.#states.size > KEPT) this.#states.delete(this.#states.keys().next().value);
  }

  /** Puts what the broadcaster recorded before the page was open in front of what the page saw itself. */
  seed(progress, recorded) {
    const seen = this.of(progress);
    const until = seen[0]?.seconds ?? Infinity;
    this.#states.set(`${progress.gen}/${progress.seq}`, [
      ...recorded.filter((sample) => sample.seconds < until),
      ...seen,
    ]);
  }

  of(progress) {
    return this.#states.get(`${progress.gen}/${progress.seq}`) ?? [];
  }
}

/** A state's recorded curve, of a report's stage, as samples. */
export function recorded(stage) {
  return stage.curve.map(([ms, subscribed, at_or_past, written, switched]) => ({
    seconds: ms / 1000,
    ...shares({ subscribed, at_or_past, written, switched, audience: stage.audience, asked: stage.asked }),
  }));
}

/** The whole seconds that the time axis ends at: as long as it moves, and a little longer. */
export function span(samples, elapsed, settled) {
  const moving = settled ? (samples.at(-1)?.seconds ?? 0) * 1.2 : elapsed;
  return (
    [10, 15, 30, 60, 90, 120, 180, 300, 600, 1800, 3600, 7200, 14_400, 43_200].find((one) => one >= moving) ??
    Math.ceil(moving / 86_400) * 86_400
  );
}

export class Curve {
  #grid = s("g", { class: "grid" });
  #lines = new Map(SERIES.map(([name]) => [name, s("path", { class: "line", data: { series: name } })]));
  #title = s("title", {});
  #size = { width: 640, height: 240 };
  #last = null;

  constructor() {
    this.node = s("svg", { class: "curve", role: "img" }, this.#title, this.#grid, [...this.#lines.values()]);
    new ResizeObserver(([seen]) => {
      this.#size = { width: Math.max(200, seen.contentRect.width), height: Math.max(120, seen.contentRect.height) };
      if (this.#last) this.draw(...this.#last);
    }).observe(this.node);
  }

  /** Draws `samples` of the first `elapsed` seconds; `settled`: nothing more will move. */
  draw(samples, elapsed, settled) {
    this.#last = [samples, elapsed, settled];
    const { width, height } = this.#size;
    const end = span(samples, elapsed, settled);
    const x = (seconds) => MARGIN.left + (Math.min(seconds, end) / end) * (width - MARGIN.left - MARGIN.right);
    const y = (part) => MARGIN.top + (1 - part) * (height - MARGIN.top - MARGIN.bottom);
    this.node.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#drawGrid(end, x, y, width, height);
    for (const [name, line] of this.#lines) line.setAttribute("d", path(samples, name, Math.min(elapsed, end), x, y));
    const last = samples.at(-1);
    say(
      this.#title,
      last ? SERIES.map(([name, text]) => `${text}: ${percent(last[name])}`).join(", ") : "nothing counted yet",
    );
  }

  #drawGrid(end, x, y, width, height) {
    const key = `${end} ${width} ${height}`;
    if (this.#grid.dataset.key === key) return;
    this.#grid.dataset.key = key;
    const levels = [0, 0.25, 0.5, 0.75, 1].map((level) => [
      s("line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: y(level), y2: y(level) }),
      s("text", { x: MARGIN.left - 8, y: y(level) + 4, "text-anchor": "end" }, `${level * 100} %`),
    ]);
    const steps = width < 460 ? 2 : 5;
    const times = Array.from({ length: steps + 1 }, (_, place) => (end * place) / steps).map((seconds, place) =>
      s(
        "text",
        { x: x(seconds), y: height - 6, "text-anchor": place === steps ? "end" : place ? "middle" : "start" },
        axisTime(seconds, end),
      ),
    );
    this.#grid.replaceChildren(...levels.flat(), ...times);
  }
}

function axisTime(seconds, end) {
  if (end < 120) return `${Number.isInteger(seconds) ? seconds : seconds.toFixed(1)} s`;
  if (end < 7200) return `${Number((seconds / 60).toFixed(1))} min`;
  return `${Number((seconds / 3600).toFixed(1))} h`;
}

/** Steps from 0 % at the transition: a value holds until the next sample says another. */
function path(samples, name, until, x, y) {
  const known = samples.filter((sample) => sample[name] !== null);
  if (!known.length) return "";
  const parts =
    samples[0].seconds < SEEN_FROM_START ? [`M${x(0)},${y(0)}`] : [`M${x(known[0].seconds)},${y(known[0][name])}`];
  for (const sample of known) parts.push(`H${x(sample.seconds).toFixed(1)}V${y(sample[name]).toFixed(1)}`);
  parts.push(`H${x(Math.max(until, known.at(-1).seconds)).toFixed(1)}`);
  return parts.join("");
}
