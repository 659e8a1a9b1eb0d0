/** Signing in, by an API key that becomes a session. */

import { call } from "./api.js";
import { h, say } from "./dom.js";

export class SignIn {
  #input = h("input", {
    name: "key",
    type: "password",
    autocomplete: "current-password",
    required: true,
    spellcheck: "false",
    id: "key",
    maxlength: "256",
  });
  #status = h("p", { class: "dialog-status", role: "alert" });

  constructor(shell, whoAmI) {
    shell.title("Sign in");
    const form = h(
      "form",
      { method: "post", class: "card" },
      h("h1", {}, "Sign in"),
      h("input", {
        type: "text",
        name: "username",
        autocomplete: "username",
        value: "stagecast",
        hidden: true,
        "aria-hidden": "true",
        tabindex: "-1",
      }),
      h("label", { class: "field", for: "key" }, h("span", {}, "API key"), this.#input),
      this.#status,
      h("button", { type: "submit", class: "button strong wide" }, "Sign in"),
      h(
        "p",
        { class: "quiet" },
        "An operator's key runs events, a viewer's key watches them. ",
        h("code", {}, "stagecast key create --scope operator"),
        " makes one; ",
        h("code", {}, "stagecast dev"),
        " keeps its own in ",
        h("code", {}, ".stagecast/operator.key"),
        ".",
      ),
    );
    form.addEventListener("submit", async (submitted) => {
      submitted.preventDefault();
      say(this.#status, "");
      try {
        await call("POST", "/console/session", { key: this.#input.value.trim() });
        this.#input.value = "";
        shell.signedIn(await whoAmI());
      } catch (error) {
        say(this.#status, error.message);
        this.#input.select();
      }
    });
    this.node = h("div", { class: "signin" }, form);
  }

  open() {
    this.#input.focus();
  }

  close() {}
}
