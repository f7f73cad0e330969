// The chat page: says something, shows thoughts and answers as they are written, and folds thoughts away when they are done.
"use strict";

const log = find("#log");

// ---- following what is written, but only where its reader is at the end already

let follows = true;
const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 48;
log.addEventListener("scroll", () => { follows = atEnd(); }, { passive: true });
const toEnd = () => { log.scrollTop = log.scrollHeight; };

// ---- a reply as it is written

const NOTES = {
  length: "Cut off: it was as long as it may be.",
  stopped: "Stopped.",
  failed: "This reply broke off.",
};

class Reply {
  constructor(model) {
    this.answer = make("div", { class: "answer" });
    this.render = markdown.renderer(this.answer);
    this.waiting = make("p", { class: "quiet note waiting" }, "Waiting…");
    this.element = make("article", { class: "turn model", "aria-label": model },
      make("div", { class: "who" }, model), this.waiting, this.answer);
    this.thought = null;
    this.text = "";
    this.lines = [];
    this.frame = 0;
    this.ended = null;
  }

  // Lines are put on the page once a frame, however fast they come.
  push(line) {
    this.lines.push(line);
    if (!this.frame) this.frame = requestAnimationFrame(() => this.flush());
  }

  flush() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const before = this.text;
    for (const line of this.lines.splice(0)) this.take(line);
    if (this.text !== before) this.render(this.text);
    if (follows) toEnd();
  }

  take(line) {
    if (line.state) {
      this.waiting.textContent = line.state === "loading" ? "Loading the model…" : "Waiting for the model…";
      say(this.waiting.textContent);
    } else if (line.error) {
      this.failed(line.error.message);
    } else if (line.done) {
      this.finish(line.done);
    } else if (line.answer !== undefined) {
      this.begin();
      if (!this.text) say("Answering…");
      if (this.thought && this.thoughtMs !== undefined) {
        this.thought.done(this.thoughtMs);
        this.thoughtMs = undefined;
      }
      this.text += line.answer;
    } else if (line.step !== undefined) {
      this.begin();
      if (!this.thought) {
        this.thought = new Thought(`thought-live-${Date.now()}`);
        this.element.insertBefore(this.thought.element, this.answer);
        this.since = performance.now() - line.ms;
        say("Thinking…");
      }
      this.thought.step(line);
      this.thoughtMs = performance.now() - this.since;
      this.thought.tick(this.thoughtMs);
    }
  }

  begin() { this.waiting.hidden = true; }

  failed(message) {
    this.begin();
    this.element.append(make("p", { class: "note failed", role: "alert" }, message));
    this.said = true;
  }

  finish({ ended, thought_ms: ms, thought_tokens: tokens }) {
    this.begin();
    this.ended = ended;
    if (this.thought) this.thought.done(ms);
    if (NOTES[ended] && !this.said) this.element.append(make("p", { class: "quiet note" }, NOTES[ended]));
    const thought = tokens ? `, after ${seconds(ms)} of thought, ${counted(tokens)}` : "";
    say(ended === "failed" ? "The reply broke off." : `Done${thought}.`);
  }
}

// ---- conversations

// Puts what the server says of a new conversation around it: its title, its place in the list, what can be done with it.
const adopt = async (conversation) => {
  log.dataset.conversation = conversation;
  const response = await fetch(`/chat/${conversation}`, { headers: { accept: "text/html" } }).catch(() => null);
  if (!response?.ok) return;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of [".bar", ".conversations"]) find(part).replaceWith(document.adoptNode(find(part, page)));
  document.title = page.title;
  wakeCopying();
};

const wakeCopying = () => document.querySelectorAll("[data-copy]").forEach((button) => {
  button.addEventListener("click", async () => {
    const field = find(`#${button.dataset.copy}`);
    field.select();
    await navigator.clipboard?.writeText(field.value).catch(() => {});
    button.textContent = "Copied";
  });
});

const start = () => {
  const form = find("#composer");
  if (!form) return;
  const [text, model, think, send, stop] =
    ["#text", "#model", "#think", "#send", "#stop"].map((selector) => find(selector, form));
  let conversation = log.dataset.conversation;
  let busy = false;

  // A new conversation is with the model of the last one.
  const last = [...model.options].find((option) => option.value === memory.get("model"));
  const named = new URLSearchParams(location.search).has("model");
  if (!conversation && last && !named) last.selected = true;
  model.addEventListener("change", () => memory.set("model", model.value));

  const fit = () => {
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight + 2}px`;
  };
  text.addEventListener("input", fit);
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });

  const setBusy = (now) => {
    busy = now;
    send.hidden = now;
    stop.hidden = !now;
    stop.disabled = false;
    log.setAttribute("aria-busy", String(now));
  };

  stop.addEventListener("click", async () => {
    stop.disabled = true;
    await post(`/chat/${conversation}/stop`).catch((error) => say(error.message));
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const words = text.value;
    if (busy || !words.trim()) return;
    setBusy(true);
    find(".empty", log)?.remove();
    const user = make("article", { class: "turn user", "aria-label": "You" }, make("div", { class: "text" }, words));
    const reply = new Reply(model.value);
    log.append(user, reply.element);
    follows = true;
    toEnd();
    text.value = "";
    fit();
    try {
      if (!conversation) {
        conversation = (await (await post("/chat")).json()).id;
        history.replaceState(null, "", `/chat/${conversation}`);
      }
      const isNew = !log.dataset.conversation;
      const body = { text: words, model: model.value, think: think.checked };
      const response = await post(`/chat/${conversation}/say`, body);
      if (isNew) await adopt(conversation);
      await readLines(response, (line) => reply.push(line));
      reply.flush();
      if (!reply.ended) throw new Error("The connection broke off; load the page again to see what was kept.");
    } catch (error) {
      reply.flush();
      reply.failed(error.message);
      say(error.message);
      // What was not taken is not lost.
      if (!reply.text && !reply.thought && !text.value) {
        text.value = words;
        fit();
      }
    }
    setBusy(false);
    text.focus({ preventScroll: true });
  });
};

wakeCopying();
toEnd();
start();
