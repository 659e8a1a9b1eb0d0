import { expect, test } from "vitest";

import { ackHash } from "../src/hash.js";
import { vectors } from "./vectors.js";

test.each(vectors("sampling"))("$device|$gen|$seq is sampled as everywhere", ({ device, gen, seq, hash }) => {
  expect(ackHash(device, gen, seq)).toBe(hash);
});
