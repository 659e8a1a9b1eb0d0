/** The console's page: who is signed in, which view is shown, what all views share. */

import { call, Problem } from "./api.js";
import { ServerClock } from "./clock.js";
import { h, say, show } from "./dom.js";
import { EventPage } from "./event.js";
import { EventList } from "./events.js";
import { moment } from "./format.js";
import { SignIn } from "./signin.js";

const RESYNC = 60_000;
const clock = new ServerClock();
const page = document.getElementById("page");
const connection = h("span", { class: "chip", role: "status", hidden: true });
const time = h("span", { class: "clock" });
const who = h("span", { class: "who" });
const out = h("button", { type: "button", class: "button small", on: { click: signOut } }, "Sign out");
const crumb = h("span", { class: "crumb" });
let session = null;
let view = null;

document
  .getElementById("bar")
  .append(
    h(
      "a",
      { class: "brand", href: "/console/", "aria-label": "Stagecast: all events" },
      h("img", { src: "/console/static/icon.svg", alt: "", width: "24", height: "24" }),
      h("span", { class: "brand-name" }, "Stagecast"),
    ),
    crumb,
    h("span", { class: "gap" }),
    connection,
    time,
    h("span", { class: "me" }, who, out),
  );

/** What views may ask of the page. */
const shell = {
  clock,
  get session() {
    return session;
  },
  title(text, heading = "") {
    document.title = text ? `${text} · Stagecast` : "Stagecast";
    say(crumb, heading);
  },
  /** `state`: "live", "stale" or null for none; stale data is greyed. */
  connection(state, text) {
    show(connection, state !== null);
    connection.dataset.state = state ?? "";
    say(connection, text ?? "");
    document.body.dataset.fresh = state === "stale" ? "no" : "yes";
  },
  signedOut() {
    session = null;
    route();
  },
  signedIn(found) {
    session = found;
    route();
  },
  go(path) {
    history.pushState(null, "", path);
    route();
  },
};

async function whoAmI() {
  const asked = Date.now();
  const found = await call("GET", "/console/session");
  clock.heard(found.now, asked, Date.now());
  return found;
}

async function signOut() {
  await call("DELETE", "/console/session").catch(() => {});
  shell.signedOut();
}

function route() {
  view?.close();
  const event = /^\/console\/events\/([^/]+)\/?$/.exec(location.pathname);
  if (!session) view = new SignIn(shell, whoAmI);
  else if (event) view = new EventPage(shell, decodeURIComponent(event[1]));
  else view = new EventList(shell);
  say(who, session ? `${session.scope} ${session.id}` : "");
  show(out, session);
  shell.connection(null);
  page.replaceChildren(view.node);
  view.open?.();
}

document.addEventListener("click", (clicked) => {
  const link = clicked.target.closest("a[href^='/console/']");
  if (!link || clicked.button !== 0 || clicked.metaKey || clicked.ctrlKey || clicked.shiftKey) return;
  clicked.preventDefault();
  shell.go(link.getAttribute("href"));
});
addEventListener("popstate", route);

setInterval(() => {
  say(time, moment(clock.now(), clock.now()));
  view?.tick?.();
}, 250);
setInterval(async () => {
  if (!session) return;
  await whoAmI().catch((error) => error instanceof Problem && error.status === 401 && shell.signedOut());
}, RESYNC);

async function start() {
  for (;;) {
    try {
      session = await whoAmI();
      return route();
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return route();
      page.replaceChildren(h("p", { class: "alone" }, `${error.message}; trying again …`));
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}
start();
