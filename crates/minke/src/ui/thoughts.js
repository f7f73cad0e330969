// What pages with models' thoughts share: elements, the panels that thoughts stand in, and talking with the server.
"use strict";

const find = (selector, from = document) => from.querySelector(selector);

const make = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

const status = find("#status");
const seconds = (ms) => (ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`);
const counted = (n) => `${n} ${n === 1 ? "token" : "tokens"}`;
const say = (text) => { if (status) status.textContent = text; };

// What this browser's reader chose last: whether thoughts are open once they are done, and the model.
const memory = {
  get: (key) => { try { return localStorage.getItem(key); } catch { return null; } },
  set: (key, value) => { try { localStorage.setItem(key, value); } catch { /* not kept, then */ } },
};
// Whoever follows a link to a conversation, or compares two thoughts, has come for the thoughts.
const opensThoughts = () => (memory.get("thoughts") ?? (find("#composer") ? "closed" : "open")) === "open";

// ---- thoughts

const setOpen = (thought, open) => {
  find("button", thought).setAttribute("aria-expanded", String(open));
  find("ol", thought).hidden = !open;
};

const wake = (thought) => {
  const button = find("button", thought);
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    setOpen(thought, open);
    memory.set("thoughts", open ? "open" : "closed");
    thought.dataset.chosen = "yes";
  });
};

// A thought as it grows. Where steps come without times, as in a blind battle, none are shown.
class Thought {
  constructor(id) {
    this.label = make("span", { class: "label" }, "Thinking…");
    const button = make("button", { type: "button", "aria-expanded": "true", "aria-controls": id }, this.label);
    this.list = make("ol", { id });
    this.element = make("section", { class: "thought live" }, button, this.list);
    this.steps = [];
    wake(this.element);
  }

  step({ step, ms, tokens, text }) {
    while (this.steps.length <= step) {
      const made = { text: make("span", { class: "text" }), when: make("span", { class: "when" }), raw: "", tokens: 0 };
      this.steps.push(made);
      this.list.append(make("li", {}, made.text, made.when));
    }
    const place = this.steps[step];
    place.raw += text;
    place.text.textContent = place.raw.trimEnd();
    if (ms === undefined) return;
    place.tokens = tokens;
    place.when.textContent = `${seconds(ms)} · ${tokens}`;
    place.when.title = `begun after ${ms} ms, ${counted(tokens)}`;
  }

  get tokens() { return this.steps.reduce((sum, step) => sum + step.tokens, 0); }

  tick(ms) { this.label.textContent = `Thinking for ${seconds(ms)}, ${counted(this.tokens)}`; }

  done(ms) {
    this.element.classList.remove("live");
    this.label.textContent = ms === undefined ? "Thought" : `Thought for ${seconds(ms)}, ${counted(this.tokens)}`;
    if (!this.element.dataset.chosen) setOpen(this.element, opensThoughts());
  }
}

// ---- talking with the server

const token = find('meta[name="csrf"]')?.content;

const post = async (path, body) => {
  const response = await fetch(path, {
    method: "POST",
    headers: { "x-csrf-token": token, "content-type": "application/json" },
    body: JSON.stringify(body ?? {}),
  });
  if (response.ok) return response;
  const failure = await response.json().catch(() => null);
  throw new Error(failure?.error?.message ?? `The server said ${response.status}.`);
};

// Calls `each` with every line of a response, as it comes.
const readLines = async (response, each) => {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    lines.filter((line) => line.trim()).forEach((line) => each(JSON.parse(line)));
  }
};

// ---- what the server has put on the page

document.querySelectorAll(".thought").forEach((thought) => {
  wake(thought);
  setOpen(thought, opensThoughts());
});
document.querySelectorAll("[data-markdown]").forEach((answer) => {
  const text = answer.textContent;
  answer.textContent = "";
  answer.removeAttribute("data-markdown");
  markdown.renderer(answer)(text);
});
