// The two forms of the page "Will it fit my GPU?". Their numbers are in fit_table.js and
// fit_lite.js, which `python -m tools.fit` writes. This file computes only sums of these numbers
// and straight lines between them.
"use strict";

const GIB = 2 ** 30;
const PARTS = ["weights", "gradients", "states", "activations"];
const TABLES = {vit_b: FIT, lite_medsam: FIT_LITE};
const BACKBONES = {vit_b: "SAM's ViT-B", lite_medsam: "LiteMedSAM"};
const FIRST_SIZE = {vit_b: 512, lite_medsam: 128};
const STAGES = {whole: "the whole encoder", late: "its last stage and neck", frozen: "none: the decoder alone"};
const METHODS = {medsaga: "MedSAGa", samed: "SAMed", s_sam: "S-SAM", full: "full fine-tuning"};
const CARDS = {4: "laptop", 8: "RTX 4060", 12: "RTX 3060", 15: "T4 (free Colab)", 16: "RTX 4080", 24: "RTX 4090", 40: "A100", 80: "A100, H100"};
const NUMBER_BYTES = 4;

const mib = bytes => (bytes / 2 ** 20).toFixed(bytes < 100 * 2 ** 20 ? 2 : 0);
const gib = bytes => (bytes / GIB).toFixed(bytes < 9.95 * GIB ? 2 : 1);

// Rows of ViT-B name no stages: its whole encoder is trained.
function rowOf(plan, recipe) {
  return TABLES[plan.backbone].rows.find(row => row.recipe === recipe && row.size === plan.size &&
    (row.stages || "whole") === plan.stages &&
    row.attention === (plan.fused ? "fused" : "original") &&
    row.precision === (plan.bf16 ? "bf16" : "fp32") && row.checkpointing === plan.checkpointing);
}

// The same row with AdamW's states of 8 or 4 bits, and with a successor of GaLore, which only rows of
// MedSAGa have. The states are held throughout a step.
function withStates(row, bits, successor) {
  const of = kind => row[`states_${kind}`] ?? row.states;
  const states = of(bits) + of(successor) - row.states;
  const moved = peaks => peaks.map(peak => peak - row.states + states);
  return {...row, states, peaks: moved(row.peaks), peaks_per_layer: moved(row.peaks_per_layer)};
}

function activations(row, batch) {
  const [one, two] = row.activations;
  return one + (batch - 1) * (two - one);
}

// The straight line through the peaks at the two FIT.batches, which are those of both tables.
function peak(row, batch, perLayer) {
  const [few, many] = perLayer ? row.peaks_per_layer : row.peaks;
  const [first, last] = FIT.batches;
  return few + (batch - first) * (many - few) / (last - first);
}

function largestBatch(row, bytes, perLayer) {
  let batch = 0;
  while (batch < 4096 && peak(row, batch + 1, perLayer) <= bytes) batch++;
  return batch;
}

const {element, table} = Shared;
const total = parts => Object.values(parts).reduce((a, b) => a + b, 0);

// Bars of {name, parts, peak}: parts by PARTS, in bytes; a peak is a dot, and `card` a line.
function bars(list, card) {
  const longest = 1.02 * Math.max(card || 0, ...list.map(bar => Math.max(total(bar.parts), bar.peak || 0)));
  const chart = element("div", {class: "fit-bars", role: "img",
    "aria-label": list.map(bar => `${bar.name}: ${PARTS.filter(p => bar.parts[p]).map(p => `${p} ${gib(bar.parts[p])} GiB`).join(", ")}`).join("; ")});
  for (const bar of list) {
    const line = element("div", {class: "fit-bar"});
    for (const part of PARTS) {
      const width = `${100 * (bar.parts[part] || 0) / longest}%`;
      line.append(element("span", {class: `fit-${part}`, style: `width:${width}`, title: `${part}: ${gib(bar.parts[part] || 0)} GiB`}));
    }
    if (card) line.append(element("i", {style: `left:${100 * card / longest}%`, title: "the GPU"}));
    if (bar.peak) line.append(element("b", {style: `left:${100 * bar.peak / longest}%`, title: `peak: ${gib(bar.peak)} GiB`}));
    chart.append(element("span", {class: "fit-name"}, bar.name), line);
  }
  const legend = element("p", {class: "fit-legend"});
  const shown = PARTS.filter(part => list.some(bar => bar.parts[part] > 0));
  for (const part of shown) legend.append(element("span", {class: "one-item"}, element("span", {class: `fit-${part}`}), ` ${part} `), " ");
  if (card) legend.append("● peak  | the GPU");
  return [chart, legend];
}

function fit() {
  const form = document.getElementById("fit"), field = form.elements;
  const names = [...new Set(FIT.rows.map(row => row.recipe))];
  for (const name of names) field.recipe.append(element("option", {value: name}, METHODS[name]));
  for (const [value, name] of Object.entries(BACKBONES)) field.backbone.append(element("option", {value}, name));
  for (const [value, name] of Object.entries(STAGES)) field.stages.append(element("option", {value}, name));
  for (const [size, name] of Object.entries(CARDS)) field.card.append(element("option", {value: size}, `${size} GiB, as ${name}`));
  field.card.value = "15";

  const chooseBackbone = () => {
    const backbone = field.backbone.value, sizes = new Set(TABLES[backbone].rows.map(row => row.size));
    field.size.replaceChildren(...[...sizes].map(size => element("option", {}, String(size))));
    field.size.value = String(FIRST_SIZE[backbone]);
    field.stages.value = "whole";
    field.stages.closest("label").style.display = backbone === "vit_b" ? "none" : "";
    field.fused.checked = true;
    field.fused.disabled = backbone !== "vit_b"; // TinyViT never stores its maps
  };

  const answer = () => {
    // SAM's own attention is tabled without other savings; a frozen encoder recomputes no blocks
    field.bf16.disabled = !field.fused.checked;
    field.checkpointing.disabled = !field.fused.checked || field.stages.value === "frozen";
    for (const name of ["checkpointing", "bf16"]) if (field[name].disabled) field[name].checked = false;
    const plan = {backbone: field.backbone.value, stages: field.stages.value, size: +field.size.value, batch: +field.batch.value, fused: field.fused.checked,
      bf16: field.bf16.checked, checkpointing: field.checkpointing.checked, perLayer: field.perLayer.checked};
    const card = +field.card.value * GIB;
    field["batch-shown"].value = plan.batch;
    const results = names.map(name => {
      const row = withStates(rowOf(plan, name), field.bits.value, field.galore.value);
      const parts = {weights: row.weights, states: row.states, activations: activations(row, plan.batch),
        gradients: plan.perLayer ? row.gradients_per_layer : row.gradients};
      return {recipe: name, name: METHODS[name], parts, peak: peak(row, plan.batch, plan.perLayer), largest: largestBatch(row, card, plan.perLayer)};
    });
    const chosen = results.find(result => result.recipe === field.recipe.value);
    const fits = chosen.peak <= card;
    const sentence = element("p", {class: fits ? "fit-yes" : "fit-no"},
      `${chosen.name} needs ${gib(chosen.peak)} GiB at its peak: it ${fits ? "fits" : "does not fit"} into ${field.card.value} GiB. ` +
      (chosen.largest ? `The largest batch that does is ${chosen.largest}.` : "Not even one image does."));
    const {kept_per_copy: kept = 0} = rowOf(plan, chosen.recipe);
    const copies = kept ? [element("p", {}, `One kept copy of an image takes ${mib(kept)} MiB outside the GPU; ` +
      `12 copies of each of 16 images take ${mib(12 * 16 * kept)} MiB.`)] : [];
    const rows = results.map(({name, parts, peak, largest}) => [name, ...PARTS.map(part => gib(parts[part])), gib(peak), largest || "none"]);
    document.getElementById("fit-answer").replaceChildren(sentence, ...copies, ...bars(results, card),
      table("What each method needs with these values, and the largest batch that fits.", ["method", ...PARTS.map(part => `${part}, GiB`), "peak, GiB", "largest batch"], rows));
  };
  field.backbone.addEventListener("input", chooseBackbone); // before the form's own listener
  form.addEventListener("input", answer);
  form.hidden = false;
  chooseBackbone();
  answer();
}

// Bytes of GaLore's states: projected where that is smaller than Adam's, as in the library. The
// package keeps the whole square factor of which a basis is a part, and projects matrices only.
function states(shapes, rank, published = false) {
  return shapes.reduce((sum, [m, n, dimensions, count]) => {
    const dense = 2 * m * n, short = Math.min(m, n), moments = 2 * Math.max(m, n) * rank;
    const smaller = m > 1 && moments + short * rank < dense;
    const whole = published && dimensions === 2;
    const kept = smaller ? moments + short * (whole ? short : rank) : dense;
    return sum + count * kept * NUMBER_BYTES;
  }, 0);
}

const READINGS = {
  states: {part: "encoder", activations: "none"},
  abstract: {part: "whole", activations: "none", weights: true, gradients: true, lean: true},
  fair: {part: "whole", activations: "none", weights: true, gradients: true, lean: true, denseLean: true},
  card: {part: "whole", activations: "original", weights: true, gradients: true},
  lean: {part: "whole", activations: "checkpointed", weights: true, gradients: true, lean: true, denseLean: true},
};

function claim() {
  const form = document.getElementById("claim"), field = form.elements;
  const parts = {encoder: FIT.shapes.encoder, whole: [...FIT.shapes.encoder, ...FIT.shapes.rest]};
  const answer = () => {
    const encoder = field.part.value === "encoder", shapes = parts[field.part.value];
    field.activations.disabled = encoder; // tabled for the whole model
    if (encoder) field.activations.value = "none";
    const rank = +field.rank.value, batch = +field.batch.value;
    field["rank-shown"].value = rank;
    field["batch-shown"].value = batch;
    const bytes = NUMBER_BYTES * shapes.reduce((sum, [m, n, , count]) => sum + m * n * count, 0);
    const largest = NUMBER_BYTES * Math.max(...shapes.map(([m, n]) => m * n));
    const way = field.activations.value, row = way === "none" ? null :
      rowOf({backbone: "vit_b", stages: "whole", size: 512, fused: way !== "original", bf16: false, checkpointing: way === "checkpointed"}, "full");
    const side = (name, states, perLayer) => ({name, parts: {
      weights: field.weights.checked ? bytes : 0,
      gradients: field.gradients.checked ? (perLayer ? largest : bytes) : 0,
      states,
      activations: row ? activations(row, batch) : 0}});
    const rest = encoder ? 0 : states(FIT.shapes.rest, Infinity);
    const galore = published => states(FIT.shapes.encoder, rank, published) + rest;
    const sides = [side("AdamW", 2 * bytes, field.denseLean.checked),
      side("GaLore", galore(false), field.lean.checked),
      side("galore-torch", galore(true), field.lean.checked)];
    const [dense, ours, published] = sides.map(one => total(one.parts));
    const less = bytes => `${(100 * (1 - bytes / dense)).toFixed(0)} %`;
    const sentence = element("p", {}, element("strong", {id: "claim-number"}, less(ours)),
      ` less: ${gib(ours)} instead of ${gib(dense)} GiB; with the package, galore-torch 1.0, `,
      element("span", {id: "claim-published"}, less(published)), ". SAM's ViT-B, 512 px, every tensor trains.");
    document.getElementById("claim-answer").replaceChildren(sentence, ...bars(sides));
  };
  for (const button of form.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const reading = READINGS[button.dataset.reading];
      field.rank.value = 64;
      field.batch.value = 12;
      field.part.value = reading.part;
      field.activations.value = reading.activations;
      for (const name of ["weights", "gradients", "lean", "denseLean"]) field[name].checked = Boolean(reading[name]);
      answer();
    });
  }
  form.addEventListener("input", answer);
  form.hidden = false;
  form.querySelector("[data-reading=abstract]").click();
}

fit();
claim();
