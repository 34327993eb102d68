// Slides whose content is taller or wider than the page: it is drawn smaller. If it does not fit at
// the smallest size either, it keeps its size and scrolls.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const SCALES = [1, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65]; // our choice: letters of 14 px in a table
  const ARROWS = 36; // px at the lower edge

  function fit(content) {
    const room = content.closest(".slides").offsetHeight - ARROWS - content.offsetTop;
    const width = content.parentElement.clientWidth - 2 * content.offsetLeft;
    const set = (scale, most) => {
      content.style.width = `${100 / scale}%`;
      content.style.maxHeight = most;
      content.style.transform = scale < 1 ? `scale(${scale})` : "none";
    };
    const fits = (scale, high) => {
      set(scale, "none");
      return content.scrollHeight * scale <= high && content.scrollWidth * scale <= width + 1;
    };
    const scale = SCALES.find(one => fits(one, room)) ?? SCALES.find(one => fits(one, Infinity)) ?? 1;
    set(scale, `${room / scale}px`);
  }

  // A slide gets its size when it is shown, typeset, or changed by a reader.
  const changed = new ResizeObserver(entries => requestAnimationFrame(() => {
    for (const {target} of entries) if (target.offsetHeight) fit(target.closest(".content"));
  }));
  for (const inner of document.querySelectorAll(".content > *")) changed.observe(inner);
});
