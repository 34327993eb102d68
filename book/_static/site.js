// What the theme and the tables of pandas leave open for screen readers.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const sidebar = document.querySelector(".bd-sidebar-primary");
  sidebar?.setAttribute("role", "navigation");
  sidebar?.setAttribute("aria-label", "Book");
  for (const corner of document.querySelectorAll("th")) {
    if (corner.textContent.trim()) continue; // an empty corner is no header
    corner.replaceWith(document.createElement("td"));
  }
  // Short options and names are not broken at their dashes.
  const SHORT = 28; // letters, our choice: they fit into a phone's line
  for (const code of document.querySelectorAll(".bd-article :not(pre) > code")) {
    if (code.textContent.includes("-") && code.textContent.length <= SHORT) code.classList.add("short");
  }
  // What scrolls must be reachable with the Tab key, and fades where it goes on.
  const article = document.querySelector(".bd-article");
  if (!article) return;
  const fade = one => {
    one.classList.toggle("goes-on", one.scrollLeft + one.clientWidth < one.scrollWidth - 1);
  };
  const look = () => {
    for (const one of article.querySelectorAll("pre, table, .math, mjx-container")) {
      if (one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight) one.tabIndex = 0;
      fade(one);
    }
  };
  new ResizeObserver(look).observe(article);
  article.addEventListener("scroll", event => fade(event.target), true);
});
