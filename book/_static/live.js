// The page "Try it": LiteMedSAM in the browser. `live_worker.js` runs the network, and
// `live/examples.js`, made by tools/live.py, holds the images and the masks that Python computed.
"use strict";

(() => {
  const {element, maskOf, paint, iou} = Shared;
  const MASK = [230, 159, 0], EXPERTS = [86, 180, 233]; // orange and sky blue, as in the figures
  const STEP = 0.01, SMALLEST = 2, CLICK = 4; // share of the image; pixels; CSS pixels
  const LARGEST = 4096; // pixels along one side of a reader's image
  const NAMES = ["left", "top", "right", "bottom"];

  const form = document.getElementById("live");
  const at = name => form.querySelector(`[data-part=${name}]`);
  const [picture, overlay, stage, frame] = ["picture", "overlay", "stage", "box"].map(at);
  const say = (part, text) => { at(part).textContent = text; };
  const fields = NAMES.map(name => form.elements[name]);
  const number = x => x.toLocaleString("en");
  const pointing = () => form.elements.prompt.value === "point";

  let shown; // the image: key, width, height, objects, prompts, pixels (null if they cannot be read)
  let box = [0, 0, 1, 1], result; // a point is a box without a size; result: mask and score, or undefined
  let worker, asking = false, waiting = false, requests = new Map(), count = 0;

  // ---- the network

  function ask(kind, given = {}) {
    return new Promise((resolve, reject) => {
      requests.set(++count, {resolve, reject});
      worker.postMessage({number: count, kind, ...given});
    });
  }

  function whyNot() {
    if (LIVE.why) return `The network is not part of this build: ${LIVE.why}`;
    if (location.protocol === "file:") return "A browser runs the network only on pages that come from a server: run make serve.";
    if (typeof WebAssembly === "undefined") return "This browser has no WebAssembly.";
    return "";
  }

  async function load() {
    const why = whyNot();
    if (why) {
      say("progress", `${why} The page shows masks that Python computed: choose one of the boxes.`);
      form.elements.own.disabled = true;
      form.dataset.state = "precomputed";
      return;
    }
    worker = new Worker(new URL("live_worker.js", SOURCE), {type: "module"});
    worker.onmessage = ({data}) => {
      if (data.kind === "progress") return say("progress", `Loading the network: ${(data.loaded / 1e6).toFixed(1)} of ${(data.total / 1e6).toFixed(1)} MB.`);
      if (data.kind === "starting") return say("progress", "Starting the network.");
      const {resolve, reject} = requests.get(data.number);
      requests.delete(data.number);
      return data.kind === "failed" ? reject(new Error(data.message)) : resolve(data);
    };
    worker.onerror = event => fail(event.message || "its script cannot be loaded");
    try {
      const {threads, seconds} = await ask("load", {side: LIVE.side});
      say("progress", `The network is ready, after ${seconds.toFixed(1)} s; it uses ${threads} ${threads === 1 ? "thread" : "threads"}.`);
      form.dataset.state = "ready";
      await segment();
    } catch (error) {
      fail(error.message);
    }
  }

  function fail(message) {
    say("progress", `The network cannot run here (${message}). The page shows masks that Python computed: choose one of the boxes.`);
    form.dataset.state = "precomputed";
    worker = undefined;
    draw();
  }

  // Ask for the mask of the box; while an answer is on its way, only the last wish is remembered.
  async function segment() {
    if (form.dataset.state !== "ready" || !shown.pixels) return;
    if (asking) {
      waiting = true;
      return;
    }
    asking = true;
    const image = shown, asked = [...box], size = {key: image.key, height: image.height, width: image.width};
    try {
      if (!image.embedded) {
        say("progress", "Encoding the image: once, a few seconds.");
        const {seconds} = await ask("embed", {pixels: image.pixels, ...size});
        image.embedded = true;
        say("progress", `The image is encoded, after ${seconds.toFixed(1)} s.`);
      }
      const answer = await ask("segment", {box: asked, ...size});
      if (shown === image) {
        result = {...answer, box: asked};
        draw();
      }
    } catch (error) {
      fail(error.message);
    }
    asking = false;
    if (waiting) {
      waiting = false;
      await segment();
    } else if (result) {
      tell();
    }
  }

  // ---- what is shown

  function draw() {
    const {width, height} = shown, [x0, y0, x1, y1] = box;
    frame.classList.toggle("live-point", pointing());
    Object.assign(frame.style, {left: `${100 * x0 / width}%`, top: `${100 * y0 / height}%`, width: `${100 * (x1 - x0) / width}%`, height: `${100 * (y1 - y0) / height}%`});
    fields.forEach((field, i) => { field.value = box[i]; });
    const context = overlay.getContext("2d", {willReadFrequently: true});
    context.clearRect(0, 0, width, height);
    if (result) paint(context, result.mask, width, height, MASK);
    if (form.elements.experts.checked) for (const one of shown.objects) paint(context, one, width, height, EXPERTS, false);
  }

  function tell() {
    const {mask, score, seconds} = result, pixels = mask.reduce((sum, one) => sum + one, 0);
    const share = (100 * pixels / mask.length).toFixed(1);
    const best = Math.max(0, ...shown.objects.map(one => iou(one, mask)));
    say("result", `The mask has ${number(pixels)} pixels, ${share} % of the image. The network estimates its IoU as ${score.toFixed(2)}.` +
      (shown.objects.length ? ` Its IoU with the reference mask is ${best.toFixed(2)}.` : "") +
      (seconds === undefined ? " Python computed this mask." : ` The ${pointing() ? "point" : "box"} took ${seconds.toFixed(2)} s.`));
    form.dataset.answers = String(1 + Number(form.dataset.answers || 0));
  }

  // Without the network, a box has a mask only if Python computed it.
  function stored() {
    const found = shown.prompts.find(prompt => prompt.box.every((x, i) => x === box[i]));
    result = found && {mask: maskOf(found.mask, shown.width * shown.height), score: found.score, box: [...box]};
    draw();
    if (result) tell();
    else if (form.dataset.state === "precomputed") say("result", `There is no mask of this ${pointing() ? "point" : "box"} without the network; choose one of the boxes below.`);
    else say("result", "The mask follows when the network is ready.");
  }

  function moveTo(wanted) {
    const limits = [shown.width - 1, shown.height - 1], whole = wanted.map(Math.round);
    const least = pointing() ? 0 : SMALLEST;
    for (const axis of [0, 1]) {
      if (pointing()) whole[axis] = whole[axis + 2] = Math.round((wanted[axis] + wanted[axis + 2]) / 2);
      const [low, high] = [Math.min(whole[axis], whole[axis + 2]), Math.max(whole[axis], whole[axis + 2])];
      whole[axis] = Math.max(0, Math.min(low, limits[axis] - least));
      whole[axis + 2] = Math.min(limits[axis], Math.max(high, whole[axis] + least));
    }
    box = whole;
    if (form.dataset.state === "ready") {
      draw();
      segment();
    } else {
      stored();
    }
  }

  // The first box: that of an object, or the middle of the reader's image.
  function start() {
    const {width, height} = shown;
    return shown.prompts.length ? shown.prompts[0].box : [width / 4, height / 4, 3 * width / 4, 3 * height / 4];
  }

  function show(image, source) {
    shown = {key: `image ${++count}`, objects: [], prompts: [], ...image};
    for (const canvas of [picture, overlay]) Object.assign(canvas, {width: shown.width, height: shown.height});
    const context = picture.getContext("2d", {willReadFrequently: true});
    context.drawImage(source, 0, 0, shown.width, shown.height);
    try {
      shown.pixels = context.getImageData(0, 0, shown.width, shown.height).data;
    } catch (error) { // a page that was opened as a file may not read its images
      if (error.name !== "SecurityError") throw error;
      shown.pixels = null;
    }
    picture.setAttribute("aria-label", shown.name);
    say("credit", shown.credit);
    at("experts").hidden = !shown.objects.length;
    at("prompts").replaceChildren(...shown.prompts.map((prompt, i) => {
      const button = element("button", {type: "button"}, `box ${i + 1}`);
      button.addEventListener("click", () => choose("box", prompt.box));
      return button;
    }));
    result = undefined;
    moveTo(start());
  }

  // Change the kind of prompt; a point begins in the middle of the box.
  function choose(kind, wanted) {
    form.elements.prompt.value = kind;
    for (const name of ["right", "bottom"]) form.elements[name].disabled = pointing();
    moveTo(wanted);
  }

  async function showExample(index) {
    const example = LIVE.examples[index], image = new Image();
    image.src = new URL(`live/${example.file}`, SOURCE);
    await image.decode();
    const pixels = example.width * example.height;
    const seen = {likely: "LiteMedSAM has probably seen it in training.", "not known": "It is not known whether LiteMedSAM has seen it in training.", no: "A drawing, not a patient."}[example.seen];
    show({...example, credit: `${example.credit} ${seen}`, objects: example.objects.map(runs => maskOf(runs, pixels))}, image);
  }

  async function showOwn(file) {
    try {
      const bitmap = await createImageBitmap(file, {colorSpaceConversion: "none", premultiplyAlpha: "none"});
      const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
      const [width, height] = [bitmap.width, bitmap.height].map(one => Math.max(SMALLEST + 1, Math.round(one * scale)));
      for (const one of form.elements.example) one.checked = false;
      show({name: file.name, width, height, credit: "Your image. It stays in this browser."}, bitmap);
    } catch {
      say("result", `The browser cannot read ${file.name} as an image; save it as PNG or JPEG.`);
    }
  }

  // ---- the reader's hands

  function place(event) {
    const {left, top, width, height} = overlay.getBoundingClientRect();
    return [(event.clientX - left) / width * shown.width, (event.clientY - top) / height * shown.height];
  }

  let from;
  stage.addEventListener("pointerdown", event => {
    from = {place: place(event), x: event.clientX, y: event.clientY, dragged: false};
    stage.setPointerCapture(event.pointerId);
    stage.focus({preventScroll: true});
    event.preventDefault();
  });
  stage.addEventListener("pointermove", event => {
    if (!from) return;
    from.dragged ||= Math.hypot(event.clientX - from.x, event.clientY - from.y) > CLICK;
    const now = place(event);
    if (from.dragged) moveTo(pointing() ? [...now, ...now] : [...from.place, ...now]);
  });
  stage.addEventListener("pointerup", event => {
    if (from && !from.dragged) {
      const [x, y] = place(event), [w, h] = [box[2] - box[0], box[3] - box[1]];
      const left = Math.max(0, Math.min(x - w / 2, shown.width - 1 - w)), top = Math.max(0, Math.min(y - h / 2, shown.height - 1 - h));
      moveTo([left, top, left + w, top + h]);
    }
    from = undefined;
  });
  stage.addEventListener("pointercancel", () => { from = undefined; });

  const KEYS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  stage.addEventListener("keydown", event => {
    const way = KEYS[event.key];
    if (!way) return;
    event.preventDefault();
    const step = Math.max(1, Math.round(STEP * Math.max(shown.width, shown.height)));
    let [dx, dy] = way.map(one => one * step);
    const [x0, y0, x1, y1] = box;
    if (event.shiftKey && !pointing()) return moveTo([x0, y0, Math.max(x0 + SMALLEST, x1 + dx), Math.max(y0 + SMALLEST, y1 + dy)]);
    dx = Math.max(-x0, Math.min(dx, shown.width - 1 - x1));
    dy = Math.max(-y0, Math.min(dy, shown.height - 1 - y1));
    return moveTo([x0 + dx, y0 + dy, x1 + dx, y1 + dy]);
  });
  for (const field of fields) field.addEventListener("change", () => {
    const values = fields.map(one => Number(one.value));
    moveTo(pointing() ? [...values.slice(0, 2), ...values.slice(0, 2)] : values);
  });
  for (const choice of form.elements.prompt) choice.addEventListener("change", ({target}) => choose(target.value, pointing() ? box : start()));
  form.elements.experts.addEventListener("change", draw);
  form.elements.own.addEventListener("change", ({target}) => { if (target.files.length) showOwn(target.files[0]); });
  form.addEventListener("dragover", event => event.preventDefault());
  form.addEventListener("drop", event => {
    event.preventDefault();
    if (event.dataTransfer.files.length && !form.elements.own.disabled) showOwn(event.dataTransfer.files[0]);
  });
  form.addEventListener("submit", event => event.preventDefault());

  // ---- the start

  const SOURCE = document.currentScript.src;
  LIVE.examples.forEach((example, i) => {
    const choice = element("input", {type: "radio", name: "example", value: i});
    choice.checked = i === 0;
    choice.addEventListener("change", () => showExample(i));
    at("examples").append(element("label", {}, choice, ` ${example.name}`));
  });
  form.hidden = false;
  showExample(0).then(load);
})();
