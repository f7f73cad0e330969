// A blind battle: asks both, shows them side by side as they are written, and then lets their reader vote.
"use strict";

class Side {
  constructor(name, element) {
    this.name = name;
    this.answer = make("div", { class: "answer" });
    this.render = markdown.renderer(this.answer);
    this.element = element;
    element.append(this.answer);
    this.text = "";
    this.thought = null;
  }

  take(line) {
    if (line.step !== undefined) {
      if (!this.thought) {
        this.thought = new Thought(`thought-${this.name}`);
        this.element.insertBefore(this.thought.element, this.answer);
      }
      this.thought.step(line);
    } else if (line.answer !== undefined) {
      if (!this.text) this.thought?.done();
      this.text += line.answer;
    } else if (line.end) {
      if (!this.text) this.thought?.done();
      const note = line.end === "length" ? "Cut off: it was as long as it may be." : "";
      if (note) this.element.append(make("p", { class: "quiet note" }, note));
    }
  }

  flush() { if (this.text) this.render(this.text); }
}

const ask = find("#ask");

if (ask) {
  const text = find("#text", ask);
  const vote = find("#vote");

  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      ask.requestSubmit();
    }
  });

  ask.addEventListener("submit", async (event) => {
    event.preventDefault();
    const prompt = text.value;
    if (!prompt.trim() || ask.hidden) return;
    ask.hidden = true;
    find("#about").hidden = true;
    find("#battle").hidden = false;
    find(".asked").textContent = prompt;
    const sides = [...document.querySelectorAll(".side")].map((element, at) => new Side("AB"[at], element));
    let battle = null;
    let over = false;
    let lines = [];
    let frame = 0;
    // Lines are put on the page once a frame, however fast they come.
    const flush = () => {
      frame = 0;
      for (const line of lines.splice(0)) sides[line.side].take(line);
      sides.forEach((side) => side.flush());
    };
    say("Both are getting ready…");
    try {
      await readLines(await post("/arena/battle", { prompt }), (line) => {
        if (line.error) throw new Error(line.error.message);
        if (line.battle) battle = line.battle;
        if (line.done) over = true;
        if (line.side === undefined) return;
        say("Both answer, at the pace of the slower one.");
        lines.push(line);
        if (!frame) frame = requestAnimationFrame(flush);
      });
      cancelAnimationFrame(frame);
      flush();
      if (!over) throw new Error("The connection broke off, so there is nothing to vote on; load the page again and start another battle.");
      say("Both have answered. Now vote.");
      vote.action = `/arena/battle/${battle}/vote`;
      history.replaceState(null, "", `/arena/battle/${battle}`);
      if (!sides.some((side) => side.thought)) find("#on-thoughts").remove();
      vote.hidden = false;
    } catch (error) {
      cancelAnimationFrame(frame);
      say("");
      find("#battle").append(make("p", { class: "note failed", role: "alert" }, error.message));
      find("#battle").append(make("p", {}, make("a", { href: "/arena/battle" }, "Start another battle")));
    }
  });
}
