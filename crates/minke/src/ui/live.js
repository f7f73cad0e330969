// Pages of what goes on: every part that says it is live is fetched anew and put in its place, until none is.
"use strict";

(() => {
  const PAUSE = 1500;
  const parts = (page) => [...page.querySelectorAll("[data-live]")];

  // Whoever reads an output's end goes on reading its end.
  const atEnd = (box) => box.scrollTop + box.clientHeight >= box.scrollHeight - 32;
  const toEnd = (box) => { box.scrollTop = box.scrollHeight; };
  const outputs = (part) => [...part.querySelectorAll(".output")];

  const replace = (part, next) => {
    if (part.isEqualNode(next) || part.contains(document.activeElement)) return;
    const places = outputs(part).map((box) => (atEnd(box) ? null : box.scrollTop));
    part.replaceWith(document.adoptNode(next));
    outputs(next).forEach((box, i) => {
      if (places[i] === null || places[i] === undefined) toEnd(box);
      else box.scrollTop = places[i];
    });
  };

  const look = async () => {
    const response = await fetch(location.href, { headers: { accept: "text/html" } });
    // A page that can't be had any more, as after logging out, stays as it is.
    if (!response.ok || response.redirected) return false;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    parts(document).forEach((part) => {
      const next = page.getElementById(part.id);
      if (next) replace(part, next);
    });
    return true;
  };

  const turn = async () => {
    if (parts(document).length === 0) return;
    const goesOn = document.hidden || await look().catch(() => true);
    if (goesOn) setTimeout(turn, PAUSE);
  };

  document.querySelectorAll(".output").forEach(toEnd);
  setTimeout(turn, PAUSE);
})();
