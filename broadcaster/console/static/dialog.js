/** A question before anything happens: modal, by keyboard alone if one likes, focus goes back to where it was. */

import { h, say, show } from "./dom.js";

let serial = 0;

/**
 * Opens a dialog.
 *
 *   title, lead, fields: what it says and asks · confirm: the button's text · tone: "go", "careful" · focus: where it begins
 *   send(form, waiting): does it; what it raises is given to `refused(error)`, which answers with what to show instead
 *
 * Enter confirms, Escape leaves. Returns {node, closed: promise of true when it was done, retitle(), settle()}.
 */
export function ask({ title, lead = [], fields = [], confirm, tone = "go", focus = null, send, refused }) {
  const id = `dialog-${(serial += 1)}`;
  const heading = h("h2", { id }, title);
  const body = h("div", { class: "dialog-body" }, lead, fields);
  const status = h("p", { class: "dialog-status", role: "status" });
  const yes = h(
    "button",
    { type: "submit", class: "button strong", data: { tone }, autofocus: true },
    confirm,
    " ",
    h("kbd", {}, "Enter"),
  );
  const no = h("button", { type: "button", class: "button" }, "Cancel ", h("kbd", {}, "Esc"));
  const form = h("form", { method: "dialog" }, heading, body, status, h("div", { class: "dialog-buttons" }, no, yes));
  const node = h("dialog", { class: "dialog", "aria-labelledby": id, data: { tone } }, form);
  let busy = false;
  let done = false;

  function settle(text, detail = []) {
    say(heading, text);
    body.replaceChildren(...[detail].flat());
    say(status, "");
    show(yes, false);
    no.replaceChildren("Close ", h("kbd", {}, "Esc"));
    no.focus();
    done = true;
  }

  form.addEventListener("submit", async (submitted) => {
    submitted.preventDefault();
    if (busy || done) return;
    busy = true;
    yes.setAttribute("aria-disabled", "true");
    say(status, "sending …");
    try {
      await send(form, (why) => say(status, why));
      node.close("done");
    } catch (error) {
      const instead = await refused(error);
      if (instead) settle(instead.title, instead.detail);
      else say(status, error.message);
    } finally {
      busy = false;
      yes.removeAttribute("aria-disabled");
    }
  });
  no.addEventListener("click", () => node.close());
  node.addEventListener("cancel", (left) => busy && left.preventDefault());

  const closed = new Promise((resolve) => {
    node.addEventListener("close", () => {
      node.remove();
      resolve(node.returnValue === "done");
    });
  });
  document.body.append(node);
  node.showModal();
  focus?.focus();
  return {
    node,
    closed,
    retitle: (text) => !done && say(heading, text),
    settle: (text, detail) => !busy && !done && settle(text, detail),
  };
}

/** A labelled input; what it says is in the form's data under `name`. */
export function field(label, name, attributes = {}, hint = null) {
  return h(
    "label",
    { class: "field" },
    h("span", {}, label),
    h("input", { name, autocomplete: "off", ...attributes }),
    hint && h("small", {}, hint),
  );
}

/** A labelled choice of [value, text]. */
export function choice(label, name, options, chosen) {
  return h(
    "label",
    { class: "field" },
    h("span", {}, label),
    h(
      "select",
      { name },
      options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)),
    ),
  );
}

/** Whether a dialog is open: then no shortcut counts. */
export function asking() {
  return document.querySelector("dialog[open]") !== null;
}
