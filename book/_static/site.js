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
  // What scrolls must be reachable with the Tab key.
  const article = document.querySelector(".bd-article");
  if (article) new ResizeObserver(() => {
    for (const one of article.querySelectorAll("pre, table, .math")) {
      if (one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight) one.tabIndex = 0;
    }
  }).observe(article);
});
