/**
 * Which devices acknowledge a broadcast: fmix32(FNV-1a-32(UTF-8 of `device|gen|seq`)), in 0 … 2^32 − 1. A device acks iff it is
 * below the policy's `p`.
 *
 * FNV-1a: http://www.isthe.com/chongo/tech/comp/fnv/; fmix32: the finisher of MurmurHash3 (A. Appleby), which spreads FNV's weak
 * high bits.
 *
 * @param {string} device
 * @param {number} gen
 * @param {number} seq
 * @returns {number}
 */
export function ackHash(device, gen, seq) {
  let h = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(`${device}|${gen}|${seq}`)) h = Math.imul(h ^ byte, 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
