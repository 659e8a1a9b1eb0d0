/**
 * @typedef {import("./device.js").Device} Device
 * @typedef {import("./device.js").Options} Options
 * @typedef {import("./device.js").Events} Events
 * @typedef {import("./device.js").Change} Change
 * @typedef {import("./frames.js").State} State
 * @typedef {import("./frames.js").StageMap} StageMap
 * @typedef {import("./cache.js").MapCache} MapCache
 */

export { createDevice } from "./device.js";
