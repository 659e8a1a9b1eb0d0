/** The vectors that are made from the Python SDK: what every device SDK must do, whatever its language. */
import { readFileSync } from "node:fs";

const FOLDER = new URL("../../../tests/stagecast/wire/vectors/", import.meta.url);

/**
 * @param {string} name
 * @returns {any[]}
 */
export const vectors = (name) => JSON.parse(readFileSync(new URL(`${name}.json`, FOLDER), "utf8"));

/**
 * A random source that gives these numbers and then no more.
 * @param {number[]} draws
 */
export function scripted(draws) {
  const left = [...draws];
  return {
    left,
    random() {
      const next = left.shift();
      if (next === undefined) throw new Error("more chance drawn than the vector has");
      return next;
    },
  };
}
