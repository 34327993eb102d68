// The first use of each term of the glossary on a chapter's page becomes a link to its entry, with
// the entry's text as a tip: by pointer, by keyboard, or by a first touch. TERMS is in terms.js,
// which tools/stage.py makes from book/glossary.md.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const article = document.querySelector(".bd-article");
  if (typeof TERMS === "undefined" || !article || !location.pathname.includes("/notebooks/")) return;
  const {element} = Shared;
  const ELSEWHERE = "a, button, code, h1, h2, h3, h4, summary, label, figure, table, aside, .math, mjx-container, .cell";
  const left = new Map();
  for (const term of TERMS) for (const name of term.names) left.set(name, term);
  // A term in small letters may begin a sentence; S-SAM is not SAM.
  const form = name => /^[a-z]/.test(name) ? `[${name[0].toUpperCase()}${name[0]}]${name.slice(1)}` : name;
  const search = () => {
    const names = [...left.keys()].sort((a, b) => b.length - a.length).map(form);
    return names.length ? new RegExp(`(?<![\\w-])(${names.join("|")})s?(?![\\w-])`) : null;
  };

  function linked(text, term) {
    const tip = element("span", {class: "term-tip", role: "tooltip", id: `tip-${term.id}`, hidden: ""}, term.text);
    const link = element("a", {class: "term", href: `../book/glossary.html#${term.id}`, "aria-describedby": tip.id}, text);
    const whole = element("span", {class: "term-place"}, link, tip);
    let shownBefore = false;
    const show = () => {
      tip.hidden = false;
      tip.style.left = "0";
      const {left: start, right: end} = tip.getBoundingClientRect(), width = document.documentElement.clientWidth;
      tip.style.left = `${Math.max(8 - start, Math.min(0, width - 8 - end))}px`;
    };
    const hide = () => { tip.hidden = true; };
    link.addEventListener("pointerdown", () => { shownBefore = !tip.hidden; });
    link.addEventListener("click", event => {
      if (event.pointerType === "touch" && !shownBefore) {
        event.preventDefault();
        show();
      }
    });
    link.addEventListener("focus", () => { if (link.matches(":focus-visible")) show(); });
    link.addEventListener("blur", hide);
    whole.addEventListener("pointerenter", event => { if (event.pointerType === "mouse") show(); });
    whole.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") hide(); });
    document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
    document.addEventListener("pointerdown", event => { if (!whole.contains(event.target)) hide(); });
    return whole;
  }

  const texts = [], walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const parent = walker.currentNode.parentElement;
    if (parent.closest("p, li") && !parent.closest(ELSEWHERE)) texts.push(walker.currentNode);
  }
  let pattern = search();
  for (let text of texts) {
    for (let found; pattern && (found = pattern.exec(text.data)); pattern = search()) {
      const word = text.splitText(found.index), rest = word.splitText(found[0].length);
      const term = left.get(found[1]) || left.get(found[1][0].toLowerCase() + found[1].slice(1));
      for (const name of term.names) left.delete(name);
      word.replaceWith(linked(word.data, term));
      text = rest;
    }
  }
});
