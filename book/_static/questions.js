// Questions for self-test. A chapter has them as Markdown: a paragraph, a list of options, and
// <details class="answers"> with a list of what to say about each. This file makes a form of each.
"use strict";

const Questions = (() => {
  const {element} = Shared;
  const RIGHT = "Yes"; // the first word of what is said about the right option

  // Options or answers: the content of each item after its letter, "A." in bold.
  const items = list => [...list.children].map(item => {
    const holder = item.querySelector(":scope > p") ?? item;
    return {letter: holder.querySelector("strong").textContent, content: [...holder.childNodes].slice(1)};
  });

  function form(details, number) {
    const list = details.previousElementSibling, asked = list.previousElementSibling;
    const answers = items(details.querySelector("ul"));
    const said = element("p", {role: "status"});
    const options = items(list).map(({letter, content}, i) => {
      const radio = element("input", {type: "radio", name: `question-${number}`, value: i});
      radio.addEventListener("change", () => said.replaceChildren());
      return element("label", {}, radio, element("span", {}, letter, ...content));
    });
    const check = element("button", {type: "button"}, "Check");
    const made = element("fieldset", {class: "question"}, element("legend", {}, ...asked.childNodes), ...options, check, said);
    check.addEventListener("click", () => {
      const chosen = made.querySelector("input:checked");
      if (!chosen) {
        said.textContent = "Choose an option first.";
        return;
      }
      const {letter, content} = answers[chosen.value];
      const copies = content.map(node => node.cloneNode(true));
      const right = copies.map(node => node.textContent).join("").trim().startsWith(RIGHT);
      said.replaceChildren(element("strong", {class: right ? "question-right" : "question-wrong"}, letter), ...copies);
    });
    asked.remove();
    list.replaceWith(made);
    details.hidden = true;
  }

  const start = () => document.querySelectorAll("details.answers").forEach(form);
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
  return {start};
})();
