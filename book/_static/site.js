// What the theme and the tables of pandas leave open for screen readers and on phones.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const sidebar = document.querySelector(".bd-sidebar-primary");
  sidebar?.setAttribute("role", "navigation");
  sidebar?.setAttribute("aria-label", "Book");
  for (const corner of document.querySelectorAll("th")) {
    if (corner.textContent.trim()) continue; // an empty corner is no header
    corner.replaceWith(document.createElement("td"));
  }
  // On a phone, a figure is so wide that its letters can be read, and scrolls; a button shows it whole.
  const PICTURES = ".bd-article .cell_output figure > img, .bd-article section > p > img:only-child";
  for (const picture of document.querySelectorAll(PICTURES)) {
    const place = document.createElement("div");
    const button = document.createElement("button");
    place.className = "picture";
    button.type = "button";
    button.className = "enlarge";
    const turn = large => {
      place.classList.toggle("large", large);
      button.textContent = large ? "Fit to the page" : "Enlarge";
      button.setAttribute("aria-pressed", large);
    };
    button.addEventListener("click", () => turn(!place.classList.contains("large")));
    picture.replaceWith(place);
    place.append(picture);
    place.after(button);
    turn(true);
  }
  // Short options and names are not broken at their dashes.
  const SHORT = 28; // letters, our choice: they fit into a phone's line
  for (const code of document.querySelectorAll(".bd-article :not(pre) > code")) {
    for (const word of [code, ...code.querySelectorAll(".pre")]) { // Sphinx makes a span of each word
      if (word.textContent.includes("-") && word.textContent.length <= SHORT) word.classList.add("short");
    }
  }
  // On a phone, a first column of short names keeps its width; a longer one wraps.
  const BRIEF = 12; // letters, our choice: a third of a phone's line
  for (const table of document.querySelectorAll(".bd-article table")) {
    const names = [...table.querySelectorAll("tr > :first-child")].map(cell => cell.textContent.trim().length);
    table.classList.toggle("brief-names", Math.max(...names) <= BRIEF);
  }
  // On a phone, a written table with many columns becomes a list: each row with the names of its cells.
  const MANY = 5; // columns, our choice
  for (const table of document.querySelectorAll(".bd-article table.table:not(.dataframe)")) {
    const names = [...table.querySelectorAll("thead th")].map(cell => cell.textContent.trim());
    if (names.length < MANY || table.querySelector("[colspan], [rowspan]")) continue;
    table.classList.add("cards");
    table.setAttribute("role", "table"); // the style takes the elements' own roles away
    for (const part of table.querySelectorAll("thead, tbody")) part.setAttribute("role", "rowgroup");
    for (const row of table.rows) {
      row.setAttribute("role", "row");
      [...row.cells].forEach((cell, i) => {
        cell.setAttribute("role", cell.tagName === "TH" ? "columnheader" : "cell");
        cell.dataset.label = names[i];
        cell.classList.toggle("blank", !cell.textContent.trim());
      });
    }
  }
  // A mean and its interval stay in one line.
  for (const cell of document.querySelectorAll(".bd-article td")) {
    const text = cell.textContent.trim();
    cell.classList.toggle("one-line", /^[+-]?[\d.]+ ± [\d.]+$/.test(text));
    cell.classList.toggle("one-line-on-phone", /^[+-]?[\d.]+ \([+-]?[\d.]+ to [+-]?[\d.]+\)/.test(text));
  }
  // A number and its unit stay in one line.
  const words = document.createTreeWalker(document.querySelector(".bd-article") || document.body, NodeFilter.SHOW_TEXT);
  for (let node = words.nextNode(); node; node = words.nextNode()) {
    if (!node.parentElement.closest("pre, code, script")) node.data = node.data.replace(/(\d) %/g, "$1\u00a0%");
  }
  // Printed sentences and commands wrap; aligned columns scroll.
  const COLUMNS = 88; // letters of a line; our choice
  for (const output of document.querySelectorAll(".bd-article .cell_output .stream pre")) {
    const longest = Math.max(...output.textContent.split("\n").map(line => line.length));
    output.classList.toggle("wraps", longest > COLUMNS);
    output.classList.toggle("wraps-on-phone", longest <= COLUMNS && !/\S {2,}\S/.test(output.textContent)); // no columns
  }
  // What scrolls must be reachable with the Tab key, and fades where it goes on.
  const article = document.querySelector(".bd-article");
  if (!article) return;
  const WIDE = "pre, table, div.math, .picture";
  const fade = one => {
    one.classList.toggle("goes-on", one.scrollLeft + one.clientWidth < one.scrollWidth - 1);
    if (one.matches("pre")) one.classList.toggle("goes-down", one.scrollTop + one.clientHeight < one.scrollHeight - 1);
  };
  const look = () => {
    for (const one of article.querySelectorAll(WIDE)) {
      if (one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight) one.tabIndex = 0;
      else one.removeAttribute("tabindex");
      fade(one);
    }
  };
  new ResizeObserver(look).observe(article);
  article.addEventListener("scroll", event => event.target.matches(WIDE) && fade(event.target), true);
});
