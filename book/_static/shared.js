// What the interactive parts of the site share. No modules: the site also opens from files.
"use strict";

const VEIL = 80 / 255; // how much a filled mask hides of the image below; our choice

const Shared = {
  element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  },

  table(caption, header, rows) {
    const {element} = Shared;
    const cells = (kind, row) => element("tr", {}, ...row.map(cell => element(kind, {}, String(cell))));
    return element("table", {}, element("caption", {}, caption), element("thead", {}, cells("th", header)), element("tbody", {}, ...rows.map(row => cells("td", row))));
  },

  // Lengths of runs of equal pixels, background first, to a mask of 0 and 1.
  maskOf(runs, pixels) {
    const mask = new Uint8Array(pixels);
    let place = 0;
    runs.forEach((length, i) => {
      if (i % 2) mask.fill(1, place, place + length);
      place += length;
    });
    return mask;
  },

  // Draw a mask on a canvas of its size: a light area, and its outline.
  paint(context, mask, width, height, colour, filled = true) {
    const picture = context.getImageData(0, 0, width, height);
    const line = Math.max(1, Math.round(Math.max(width, height) / 320));
    const border = (x, y) => {
      for (const [dx, dy] of [[line, 0], [-line, 0], [0, line], [0, -line]]) {
        const there = x + dx < 0 || y + dy < 0 || x + dx >= width || y + dy >= height ? 0 : mask[(y + dy) * width + x + dx];
        if (!there) return true;
      }
      return false;
    };
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
      if (!mask[y * width + x]) continue;
      const edge = border(x, y), at = 4 * (y * width + x);
      if (edge) picture.data.set([...colour, 255], at);
      else if (filled) { // over the image, which stays visible
        const below = (1 - VEIL) * picture.data[at + 3] / 255, alpha = VEIL + below;
        const mixed = colour.map((one, i) => (VEIL * one + below * picture.data[at + i]) / alpha);
        picture.data.set([...mixed, 255 * alpha], at);
      }
    }
    context.putImageData(picture, 0, 0);
  },

  iou(one, other) {
    let both = 0, either = 0;
    for (let i = 0; i < one.length; i++) {
      both += one[i] & other[i];
      either += one[i] | other[i];
    }
    return either ? both / either : 1;
  },
};
