/** Host by host, and app by app, where the broadcaster counts them. */

import { h, renew, say, show } from "./dom.js";
import { count, counted, percent } from "./format.js";

/** Rows shown; the worst come first, so what is left out is well. */
const ROWS = 24;

export class Hosts {
  #page;
  #summary = h("span", { class: "quiet" });
  #rows = h("ul", { class: "hosts" });
  #apps = h("ul", { class: "hosts" });
  #appsHead = h("h3", {}, "By app");

  constructor(page) {
    this.#page = page;
    this.node = h(
      "section",
      { class: "panel data", "aria-labelledby": "hosts-title" },
      h("div", { class: "panel-head" }, h("h2", { id: "hosts-title" }, "Hosts"), this.#summary),
      this.#rows,
      this.#appsHead,
      this.#apps,
    );
  }

  update() {
    const { progress } = this.#page;
    say(
      this.#summary,
      `${counted(progress.hosts, "host")} reporting${progress.silent ? `, ${count(progress.silent)} silent` : ""}`,
    );
    const hosts = parts(progress.by_host);
    const apps = parts(progress.by_app);
    renew(this.#rows, JSON.stringify(hosts), () => rows(hosts, "host"));
    renew(this.#apps, JSON.stringify(apps), () => rows(apps, "app"));
    show(this.#rows, hosts.length);
    show(this.#apps, apps.length);
    show(this.#appsHead, apps.length);
  }
}

/** Parts of a progress, as a list of {name, whole, done, silent}: worst first. */
export function parts(given) {
  const listed = Array.isArray(given) ? given : Object.entries(given ?? {}).map(([name, part]) => ({ name, ...part }));
  return listed
    .map((part) => {
      const census = part.subscribed > 0;
      return {
        name: part.name ?? part.host ?? part.app ?? "–",
        whole: (census ? part.subscribed : part.asked) ?? 0,
        done: (census ? part.at_or_past : part.switched) ?? 0,
        silent: Boolean(part.silent_since ?? false),
      };
    })
    .sort(
      (one, other) =>
        Number(other.silent) - Number(one.silent) || share(one) - share(other) || one.name.localeCompare(other.name),
    );
}

function share({ whole, done }) {
  return whole > 0 ? done / whole : 1;
}

function rows(found, kind) {
  const shown = found.slice(0, ROWS).map((part) => {
    const fill = h("span", { class: "fill" });
    fill.style.width = `${100 * share(part)}%`; // the policy forbids inline styles in markup, not this
    return h(
      "li",
      { data: { state: part.silent ? "silent" : share(part) >= 0.999 ? "well" : "behind" } },
      h("span", { class: "host-name" }, part.name),
      h("span", { class: "track", "aria-hidden": "true" }, fill),
      h("span", { class: "host-share" }, percent(part.whole ? share(part) : null)),
      h("span", { class: "host-count" }, `${count(part.done)} of ${count(part.whole)}${part.silent ? ", silent" : ""}`),
    );
  });
  if (found.length > ROWS)
    shown.push(
      h(
        "li",
        { class: "quiet" },
        `and ${counted(found.length - ROWS, kind)} that ${found.length - ROWS === 1 ? "is" : "are"} no worse`,
      ),
    );
  return shown;
}
