/** Numbers, times and durations as people read them. English; local time with its zone. */

const NUMBER = new Intl.NumberFormat("en-US");
const TIME = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});
const DATE_TIME = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  timeZoneName: "short",
});
const HALF_DAY = 12 * 3600 * 1000;
const NONE = "–";

/** 1,203,552 */
export function count(number) {
  return number === null || number === undefined ? NONE : NUMBER.format(number);
}

/** "1 device", "1,203,552 devices" */
export function counted(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** 99.93 %, of a share; never rounded up to 100. */
export function percent(share, digits = 1) {
  if (share === null || share === undefined || Number.isNaN(share)) return NONE;
  const scale = 10 ** digits;
  const floored = Math.floor(share * 100 * scale + 1e-9) / scale;
  return `${floored.toFixed(share === 1 ? 0 : digits)} %`;
}

/** 20:00:03 CET; with its day if that is half a day from `now` or more. */
export function moment(ms, now) {
  return (Math.abs(ms - now) < HALF_DAY ? TIME : DATE_TIME).format(new Date(ms));
}

/** "4 s", "12 min 4 s", "3 h 5 min", "2 d 4 h" */
export function duration(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (seconds < 60) return `${seconds} s`;
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** 1:02:03, 02:03: rounded up, so that it says 00:00 when it is time and not a second before. */
export function countdown(ms) {
  const seconds = Math.max(0, Math.ceil(ms / 1000));
  const parts = [Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60].map((part) =>
    String(part).padStart(2, "0"),
  );
  const days = Math.floor(seconds / 86400);
  const clock = (seconds >= 3600 ? parts : parts.slice(1)).join(":");
  return days > 0 ? `${days} d ${clock}` : clock;
}

/** "34 ms", "1.2 s" */
export function latency(ms) {
  if (ms === null || ms === undefined) return NONE;
  if (ms < 1) return "< 1 ms";
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

const ISO =
  /^P(?:(\d+(?:\.\d+)?)W)?(?:(\d+(?:\.\d+)?)D)?(?:T(?:(\d+(?:\.\d+)?)H)?(?:(\d+(?:\.\d+)?)M)?(?:(\d+(?:\.\d+)?)S)?)?$/;

/** Milliseconds of an ISO 8601 duration without months or years (a plan's `after`), or null. */
export function milliseconds(iso) {
  const found = ISO.exec(iso ?? "");
  if (!found) return null;
  const [weeks, days, hours, minutes, seconds] = found.slice(1).map((part) => Number(part ?? 0));
  return ((((weeks * 7 + days) * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000;
}
