/**
 * Stage maps kept over reloads, in IndexedDB. Best effort: where the browser has none, refuses or does not answer, nothing is kept
 * and nothing fails.
 *
 * @typedef {import("./frames.js").StageMap} StageMap
 * @typedef {{ load(event: string): Promise<StageMap | undefined>, save(map: StageMap): Promise<void>,
 *   drop(event: string): Promise<void> }} MapCache What a device asks of a cache, which must not
 *   reject. A loaded map has the `ttl` that is left of it.
 */

const STORE = "maps";
/** Milliseconds to wait for the browser's database: some never answer, and a device must not stay away for that. */
const PATIENCE = 1000;
const UNTIL = "until";

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
const answered = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

/**
 * A cache of the maps of `member`: somebody else who signs in at the same browser must not see them, so the name is asked for.
 * @param {string} member
 * @param {{ now?: () => number }} [options] `now`: ms since 1970
 * @returns {MapCache}
 */
export function mapCache(member, { now = Date.now } = {}) {
  /** @type {Promise<IDBDatabase> | undefined} */
  let opened;

  /** @returns {Promise<IDBDatabase>} */
  async function open() {
    const request = indexedDB.open("stagecast", 1);
    request.onupgradeneeded = () => request.result.createObjectStore(STORE).createIndex(UNTIL, UNTIL);
    const database = await answered(request);
    const stale = database.transaction(STORE, "readwrite").objectStore(STORE).index(UNTIL);
    const cursors = stale.openCursor(IDBKeyRange.upperBound(now()));
    cursors.onsuccess = () => {
      cursors.result?.delete();
      cursors.result?.continue();
    };
    return database;
  }

  /**
   * @template T
   * @param {(store: IDBObjectStore) => IDBRequest<T>} use
   * @returns {Promise<T | undefined>}
   */
  async function using(use) {
    const late = new Promise((resolve) => setTimeout(resolve, PATIENCE));
    try {
      opened ??= open();
      const used = opened.then((database) => answered(use(database.transaction(STORE, "readwrite").objectStore(STORE))));
      return /** @type {T | undefined} */ (await Promise.race([used, late]));
    } catch {
      return undefined;
    }
  }

  return {
    async load(event) {
      const kept = await using((store) => store.get([member, event]));
      // A clock that was set back must not make a map live longer than it was given.
      const ttl = kept && Math.min(kept.map.ttl, (kept[UNTIL] - now()) / 1000);
      return ttl > 0 ? { ...kept.map, ttl } : undefined;
    },
    async save(map) {
      await using((store) => store.put({ map, [UNTIL]: now() + map.ttl * 1000 }, [member, map.e]));
    },
    async drop(event) {
      await using((store) => store.delete([member, event]));
    },
  };
}
