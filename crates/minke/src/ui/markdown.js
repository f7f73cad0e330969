// Markdown as models write it, made of text nodes and known elements only: no string of a model's is ever read as HTML.
// It knows paragraphs, headings, lists, quotes, rules and fenced code; `code`, **strong**, *emphasis* and links.
"use strict";

const markdown = (() => {
  const element = (name, ...children) => {
    const made = document.createElement(name);
    made.append(...children);
    return made;
  };

  // Where links may lead; a model may not make up a script.
  const isSafe = (address) => /^(https?:\/\/|mailto:)/i.test(address);

  const SPANS = [
    [/^`([^`\n]+)`/, (found) => element("code", found[1])],
    [/^\*\*(?=\S)([^\n]*?\S)\*\*/, (found) => element("strong", ...spans(found[1]))],
    [/^\*(?=[^\s*])([^*\n]*?[^\s*])\*/, (found) => element("em", ...spans(found[1]))],
    [/^\[([^\]\n]*)\]\(([^\s()]+)\)/, (found) => {
      if (!isSafe(found[2])) return document.createTextNode(found[0]);
      const link = element("a", found[1] || found[2]);
      link.href = found[2];
      link.rel = "noopener noreferrer";
      link.target = "_blank";
      return link;
    }],
  ];

  // A line's text as nodes.
  const spans = (text) => {
    const nodes = [];
    let plain = "";
    let at = 0;
    while (at < text.length) {
      const rest = text.slice(at);
      let node = null;
      if (rest[0] === "\\" && /[\\`*_[\]()#+.!>-]/.test(rest[1] || "")) {
        plain += rest[1];
        at += 2;
        continue;
      }
      if ("`*[".includes(rest[0])) {
        for (const [pattern, make] of SPANS) {
          const found = pattern.exec(rest);
          if (found) {
            node = make(found);
            at += found[0].length;
            break;
          }
        }
      }
      if (node) {
        if (plain) nodes.push(plain);
        plain = "";
        nodes.push(node);
      } else {
        plain += text[at];
        at += 1;
      }
    }
    if (plain) nodes.push(plain);
    return nodes;
  };

  // Lines of one paragraph; models mean their line breaks.
  const lines = (texts) => texts.flatMap((text, at) => (at ? [element("br"), ...spans(text)] : spans(text)));

  const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;

  // Lists, nested by indentation: [indentation, ordered, text] to elements.
  const list = (items) => {
    const first = items[0];
    const made = element(first.ordered ? "ol" : "ul");
    if (first.ordered && first.number !== 1) made.start = first.number;
    let at = 0;
    while (at < items.length) {
      const item = element("li", ...lines(items[at].texts));
      made.append(item);
      let end = at + 1;
      while (end < items.length && items[end].indent > first.indent) end += 1;
      if (end > at + 1) item.append(list(items.slice(at + 1, end)));
      at = end;
    }
    return made;
  };

  // Blocks of a text, each with the line it begins at.
  const blocks = (text, depth = 0) => {
    const made = [];
    const all = text.split("\n");
    let at = 0;
    while (at < all.length) {
      const line = all[at];
      const begin = at;
      const fence = /^\s{0,3}(```+|~~~+)\s*([^\s`]*)/.exec(line);
      const heading = /^(#{1,6})\s+(.*?)\s*#*$/.exec(line);
      if (!line.trim()) {
        at += 1;
      } else if (fence) {
        at += 1;
        const code = [];
        while (at < all.length && !all[at].trim().startsWith(fence[1])) code.push(all[at++]);
        at += 1;
        made.push([begin, element("pre", element("code", code.join("\n")))]);
      } else if (heading) {
        // The page has its own first and second headings.
        made.push([begin, element(`h${Math.min(heading[1].length + 2, 6)}`, ...spans(heading[2]))]);
        at += 1;
      } else if (/^\s{0,3}([-*_])(\s*\1){2,}\s*$/.test(line)) {
        made.push([begin, element("hr")]);
        at += 1;
      } else if (/^\s{0,3}>/.test(line) && depth < 8) {
        const quoted = [];
        while (at < all.length && /^\s{0,3}>/.test(all[at])) quoted.push(all[at++].replace(/^\s{0,3}> ?/, ""));
        made.push([begin, element("blockquote", ...blocks(quoted.join("\n"), depth + 1).map(([, node]) => node))]);
      } else if (ITEM.test(line)) {
        const items = [];
        while (at < all.length && all[at].trim()) {
          const found = ITEM.exec(all[at]);
          if (found) {
            const ordered = /\d/.test(found[2]);
            const indent = Math.min(found[1].replace(/\t/g, "    ").length, 40);
            items.push({ indent, ordered, number: ordered ? parseInt(found[2], 10) : 0, texts: [found[3]] });
          } else {
            items[items.length - 1].texts.push(all[at].trim());
          }
          at += 1;
        }
        items.forEach((item) => (item.indent = Math.max(item.indent, items[0].indent)));
        made.push([begin, list(items)]);
      } else {
        const texts = [];
        while (at < all.length && all[at].trim() && !(texts.length && /^(\s{0,3}(```|~~~|>)|#{1,6}\s)/.test(all[at]))
               && !(texts.length && ITEM.test(all[at]))) {
          texts.push(all[at++]);
        }
        made.push([begin, element("p", ...lines(texts))]);
      }
    }
    return made;
  };

  // Keeps `place` up to date with a text that grows: blocks that are complete are left as they are.
  const renderer = (place) => {
    let fixed = 0;
    let kept = 0;
    return (text) => {
      const all = text.split("\n");
      const made = blocks(all.slice(fixed).join("\n"));
      while (place.childNodes.length > kept) place.lastChild.remove();
      place.append(...made.map(([, node]) => node));
      if (made.length > 1) {
        kept += made.length - 1;
        fixed += made[made.length - 1][0];
      }
    };
  };

  return { renderer };
})();
