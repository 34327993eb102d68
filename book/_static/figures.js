// Figures that readers can change without a kernel. A cell of a chapter puts their numbers into the
// page (medsaga_lib.display.interactive); this file draws them, and tells each result in words.
"use strict";

const Figures = (() => {
  const {element} = Shared;
  const COLOURS = ["#0072b2", "#d55e00"]; // of Dice and IoU, by Okabe and Ito
  const WIDTH = 440, HEIGHT = 270, LEFT = 58, BOTTOM = 44, TOP = 12, RIGHT = 12;
  const MIB = 2 ** 20, NUMBER_BYTES = 4;
  const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1], MOST = 5; // between lines of a grid, and how many
  const tint = colour => `var(--of-${colour.slice(1).toLowerCase()}, ${colour})`; // book.css: in the dark theme
  const percent = share => `${(100 * share).toFixed(1)} %`;
  const svg = (name, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };

  // Values of the lines of a grid from at most `low` to at least `high`, all round.
  function rounds(low, high) {
    const step = STEPS.find(one => (high - low) / one <= MOST + 1e-9) ?? 1;
    const first = Math.floor(low / step + 1e-9), last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
    return Array.from({length: last - first + 1}, (_, i) => (first + i) * step);
  }

  // Lines {name, x, y, colour} over a logarithmic axis; the y axis goes from about `low` to `high`.
  function chart({lines, ticks, xLabel, yLabel, low, high, mark, linear}) {
    const place = linear ? x => x : Math.log;
    const [first, last] = [Math.min(...ticks), Math.max(...ticks)].map(place);
    const grades = rounds(low, high), bottom = grades[0], top = grades.at(-1);
    const across = x => LEFT + (place(x) - first) / (last - first) * (WIDTH - LEFT - RIGHT);
    const down = y => HEIGHT - BOTTOM - (y - bottom) / (top - bottom) * (HEIGHT - BOTTOM - TOP);
    const drawn = svg("svg", {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, "aria-hidden": "true"});
    const grid = {stroke: "currentColor", "stroke-opacity": 0.25}, ink = {fill: "currentColor", "font-size": 14};
    for (const y of grades) {
      drawn.append(svg("line", {x1: LEFT, x2: WIDTH - RIGHT, y1: down(y), y2: down(y), ...grid}),
        svg("text", {x: LEFT - 6, y: down(y) + 5, "text-anchor": "end", ...ink}, y.toFixed(2)));
    }
    for (const x of ticks) drawn.append(svg("text", {x: across(x), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle", ...ink}, x));
    drawn.append(svg("text", {x: (WIDTH + LEFT) / 2, y: HEIGHT - 6, "text-anchor": "middle", ...ink}, xLabel),
      svg("text", {x: 12, y: HEIGHT / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${HEIGHT / 2})`, ...ink}, yLabel));
    if (mark) drawn.append(svg("line", {x1: across(mark), x2: across(mark), y1: TOP, y2: HEIGHT - BOTTOM, stroke: "currentColor", "stroke-width": 2}));
    lines.forEach(({x, y, colour}) => {
      drawn.append(svg("polyline", {points: x.map((one, k) => `${across(one)},${down(y[k])}`).join(" "), fill: "none", style: `stroke:${tint(colour)}`, "stroke-width": 3}));
      if (x.length < 10) x.forEach((one, k) => drawn.append(svg("circle", {cx: across(one), cy: down(y[k]), r: 5, style: `fill:${tint(colour)}`})));
    });
    const names = element("p", {class: "figure-names"}, ...lines.map(({name, colour}) => element("span", {}, element("i", {style: `background:${tint(colour)}`}), ` ${name} `)));
    return [drawn, names];
  }

  // Energy of a gradient in its strongest directions, and the states of Adam in them.
  function spectrum({shape, curves, colours}) {
    const [m, n] = shape, ranks = curves[Object.keys(curves)[0]].map((_, i) => i + 1);
    const slider = element("input", {type: "range", min: 1, max: m, value: Math.round(m / 12)});
    const picture = element("div"), said = element("p", {role: "status"});
    const answer = () => {
      const r = Number(slider.value), states = Math.min(2 * r * n + r * m, 2 * m * n);
      picture.replaceChildren(...chart({lines: Object.entries(curves).map(([name, y]) => ({name, x: ranks, y, colour: colours[name]})),
        ticks: [1, 4, 16, 64, m], xLabel: "rank r (directions)", yLabel: "share of energy", low: 0, high: 1, mark: r}));
      said.textContent = `Rank ${r} of ${m}: ${Object.entries(curves).map(([name, y]) => `${name} ${percent(y[r - 1])}`).join(", ")} of the energy. ` +
        `GaLore's states, 2 r n + r m numbers, take ${(NUMBER_BYTES * states / MIB).toFixed(2)} MiB, ${percent(states / (2 * m * n))} of Adam's ${(NUMBER_BYTES * 2 * m * n / MIB).toFixed(2)} MiB` +
        (2 * r * n + r * m > 2 * m * n ? ": at this rank the projection would need more, so Adam's are kept." : ".");
    };
    slider.addEventListener("input", answer);
    answer();
    return [element("label", {}, "rank r ", slider), said, picture];
  }

  // Means over the chosen seeds, against the number of labels: rows of {method, shots, seed, dice}.
  function seeds({rows, least, colours}) {
    const distinct = key => [...new Set(rows.map(row => row[key]))].sort((a, b) => a - b);
    const methods = [...new Set(rows.map(row => row.method))], shots = distinct("shots");
    const best = Math.max(...rows.map(row => row.dice));
    const boxes = distinct("seed").map(seed => {
      const box = element("input", {type: "checkbox", value: seed});
      box.checked = true;
      return box;
    });
    const picture = element("div"), said = element("p", {role: "status"});
    const answer = () => {
      if (!boxes.some(box => box.checked)) boxes[0].checked = true;
      const chosen = boxes.filter(box => box.checked).map(box => Number(box.value));
      const mean = (method, shot) => {
        const found = rows.filter(row => row.method === method && row.shots === shot && chosen.includes(row.seed));
        return found.reduce((sum, row) => sum + row.dice, 0) / found.length;
      };
      const lines = methods.map(name => ({name, x: shots, y: shots.map(shot => mean(name, shot)), colour: colours[name]}));
      picture.replaceChildren(...chart({lines, ticks: shots, xLabel: "labelled images", yLabel: "mean Dice", low: least, high: best}));
      const ordered = shot => methods.map(name => [name, mean(name, shot)]).sort((a, b) => b[1] - a[1]);
      said.textContent = `${chosen.length === 1 ? "Seed" : "Mean over seeds"} ${chosen.join(", ")}. ` +
        shots.map(shot => `${shot} labels: ${ordered(shot).map(([name, dice]) => `${name} ${dice.toFixed(3)}`).join(", ")}.`).join(" ");
    };
    for (const box of boxes) box.addEventListener("change", answer);
    answer();
    return [element("fieldset", {}, element("legend", {}, "Seeds"), ...boxes.map(box => element("label", {}, box, ` ${box.value} `))), said, picture];
  }

  // A soft mask cut at a threshold, beside the annotator's: objects of {name, width, height, picture,
  // probability, truth, unit, scores}; scores has a row {threshold, dice, iou, hd95} for each step.
  function threshold({objects}) {
    const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    const MASK = [0, 114, 178], TRUTH = [230, 159, 0]; // blue and orange of the style
    const kept = objects.map(one => {
      const loaded = new Image();
      loaded.src = one.picture;
      return {...one, loaded, shades: bytes(one.probability), mask: bytes(one.truth), curves: ["dice", "iou"].map((key, i) =>
        ({colour: COLOURS[i], name: key === "dice" ? "Dice" : "IoU", x: one.scores.map(row => row.threshold), y: one.scores.map(row => row[key])}))};
    });
    const choice = element("select", {}, ...objects.map(({name}, i) => element("option", {value: i}, name)));
    const steps = objects[0].scores.length;
    const slider = element("input", {type: "range", min: 0, max: steps - 1, value: (steps - 1) >> 1});
    const canvas = element("canvas", {"aria-hidden": "true", class: "figure-mask"});
    const said = element("p", {role: "status"}), curves = element("div");
    const answer = () => {
      const one = kept[choice.value], row = one.scores[slider.value], cut = row.threshold;
      const context = canvas.getContext("2d");
      [canvas.width, canvas.height] = [one.width, one.height];
      context.drawImage(one.loaded, 0, 0);
      Shared.paint(context, one.shades.map(shade => shade > 255 * cut), one.width, one.height, MASK);
      Shared.paint(context, one.mask, one.width, one.height, TRUTH, false);
      said.textContent = `Threshold ${cut.toFixed(2)}: Dice ${row.dice.toFixed(3)}, IoU ${row.iou.toFixed(3)}, HD95 ${row.hd95 === null ? "not defined: the mask is empty" : `${row.hd95.toFixed(1)} ${one.unit}`}.`;
      curves.replaceChildren(...chart({lines: one.curves, ticks: [0, 0.25, 0.5, 0.75, 1], xLabel: "threshold", yLabel: "score", low: 0, high: 1, mark: cut, linear: true}));
    };
    slider.addEventListener("input", answer);
    choice.addEventListener("change", answer);
    for (const {loaded} of kept) loaded.addEventListener("load", answer);
    answer();
    const names = element("p", {class: "figure-names"}, ...[["mask at the threshold", MASK], ["annotator's contour", TRUTH]].map(([name, colour]) =>
      element("span", {}, element("i", {style: `background:rgb(${colour})`}), ` ${name} `)));
    return [element("label", {}, "image ", choice), element("label", {}, "threshold ", slider), said, element("div", {class: "figure-pair"}, element("div", {}, canvas, names), curves)];
  }

  // The four parts of training memory as a bar: rows of {method, saving, parts: {name: bytes}}.
  function bytes({rows, colours}) {
    const distinct = key => [...new Set(rows.map(row => row[key]))];
    const methods = distinct("method"), savings = distinct("saving");
    const most = Math.max(...rows.map(({parts}) => Object.values(parts).reduce((sum, size) => sum + size, 0)));
    const choice = element("select", {}, ...methods.map(name => element("option", {}, name)));
    const slider = element("input", {type: "range", min: 0, max: savings.length - 1, value: 0});
    const bar = element("div", {class: "figure-bar", "aria-hidden": "true"}), said = element("p", {role: "status"});
    const names = element("p", {class: "figure-names"}, ...Object.entries(colours).map(([name, colour]) => element("span", {}, element("i", {style: `background:${colour}`}), ` ${name} `)));
    const answer = () => {
      const saving = savings[slider.value];
      const {parts} = rows.find(row => row.method === choice.value && row.saving === saving);
      const sum = Object.values(parts).reduce((all, size) => all + size, 0);
      bar.replaceChildren(...Object.entries(parts).map(([name, size]) => element("span", {style: `width:${100 * size / most}%;background:${colours[name]}`})));
      said.textContent = `${choice.value}, ${saving}: ${Object.entries(parts).map(([name, size]) => `${name} ${Math.round(size / MIB).toLocaleString("en")} MiB`).join(", ")}; ` +
        `sum ${(sum / 2 ** 30).toFixed(2)} GiB, ${percent(sum / most)} of the largest.`;
    };
    for (const control of [choice, slider]) control.addEventListener("input", answer);
    answer();
    return [element("label", {}, "method ", choice), element("label", {}, "savings, one after another ", slider), said, bar, names];
  }

  const KINDS = {spectrum, seeds, threshold, bytes};
  const start = () => {
    for (const figure of document.querySelectorAll("figure.figure-live")) {
      figure.prepend(...KINDS[figure.dataset.kind](JSON.parse(figure.querySelector("script").textContent)));
    }
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
  return {start};
})();
