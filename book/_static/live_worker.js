// Runs LiteMedSAM in a Web Worker: one module once per image, the other once per box. `tools/live.py`
// exports both. The preprocessing is that of Python's feed "lite_medsam" (models/feeding.py), and the
// mask is enlarged as in models/frame.py.
import * as ort from "./live/ort.wasm.min.mjs";

const LEAST_RANGE = 1e-8; // as in models/feeding.py
const EPSILON = 1e-3; // smallest share of a pixel that counts, as in OpenCV
const MOST_THREADS = 4; // more help little; our choice
const KEPT = 4; // images whose tensors are kept, 14 MB each

let side, sessions;
const kept = new Map(); // tensors of an image by its key

// Download a file and report its progress.
async function fetchFile(url, report) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`${url} answers ${answer.status}`);
  const total = Number(answer.headers.get("Content-Length")), parts = [];
  let loaded = 0;
  for (const reader = answer.body.getReader(); ;) {
    const {done, value} = await reader.read();
    if (done) break;
    parts.push(value);
    report(loaded += value.length, total);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

async function load(given) {
  side = given;
  ort.env.wasm.wasmPaths = new URL("./live/", import.meta.url).href;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
  const files = ["image.onnx", "box.onnx"], state = files.map(() => ({loaded: 0, total: 0}));
  const models = await Promise.all(files.map((name, i) => fetchFile(new URL(`./live/${name}`, import.meta.url), (loaded, total) => {
    state[i] = {loaded, total};
    const sum = key => state.reduce((before, one) => before + one[key], 0);
    postMessage({kind: "progress", loaded: sum("loaded"), total: sum("total")});
  })));
  postMessage({kind: "starting"});
  sessions = [];
  for (const model of models) sessions.push(await ort.InferenceSession.create(model, {executionProviders: ["wasm"], graphOptimizationLevel: "all"}));
  return {threads: ort.env.wasm.numThreads};
}

// For each new pixel along one axis, the old pixels and their weights: OpenCV's INTER_AREA. If the
// image is enlarged, it is OpenCV's variant of linear interpolation.
function weightsOf(old, now, shrinks) {
  const scale = old / now, rows = [];
  for (let i = 0; i < now; i++) {
    const row = [];
    if (shrinks) {
      const from = i * scale, to = from + scale, width = Math.min(scale, old - from);
      const last = Math.min(Math.floor(to), old - 1), first = Math.min(Math.ceil(from), last);
      if (first - from > EPSILON) row.push([first - 1, (first - from) / width]);
      for (let k = first; k < last; k++) row.push([k, 1 / width]);
      if (to - last > EPSILON) row.push([last, Math.min(to - last, 1, width) / width]);
    } else {
      let place = Math.floor(i * scale), share = i + 1 - (place + 1) / scale;
      share = share <= 0 ? 0 : share - Math.floor(share);
      if (place >= old - 1) [place, share] = [old - 1, 0];
      row.push([place, 1 - share]);
      if (share) row.push([place + 1, share]);
    }
    rows.push(row);
  }
  return rows;
}

function halfToEven(x) {
  const down = Math.floor(x), rest = x - down;
  return rest > 0.5 || (rest === 0.5 && down % 2) ? down + 1 : down;
}

const innerSize = (height, width) => [height, width].map(one => {
  const longest = Math.max(height, width); // rounded half up, at least 1
  return Math.max(1, Math.floor((2 * one * side + longest) / (2 * longest)));
});

// RGBA pixels to the input (1, 3, side, side): resized, normalised by minimum and maximum, padded.
function feed(pixels, height, width) {
  const [h, w] = innerSize(height, width), shrinks = height >= h && width >= w;
  const down = weightsOf(height, h, shrinks), across = weightsOf(width, w, shrinks);
  const input = new Float32Array(3 * side * side);
  let low = Infinity, high = -Infinity;
  for (let c = 0; c < 3; c++) {
    for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
      let sum = 0;
      for (const [i, a] of down[y]) for (const [j, b] of across[x]) sum += a * b * pixels[4 * (i * width + j) + c];
      const level = Math.min(255, halfToEven(sum));
      input[(c * side + y) * side + x] = level;
      low = Math.min(low, level);
      high = Math.max(high, level);
    }
  }
  const range = Math.max(high - low, LEAST_RANGE);
  for (let c = 0; c < 3; c++) for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) {
    const place = (c * side + y) * side + x;
    input[place] = (input[place] - low) / range;
  }
  return input;
}

async function embed({key, pixels, height, width}) {
  if (!kept.has(key)) {
    const picture = new ort.Tensor("float32", feed(pixels, height, width), [1, 3, side, side]);
    if (kept.size >= KEPT) kept.delete(kept.keys().next().value);
    kept.set(key, await sessions[0].run({picture}));
  }
  return {};
}

// Logits (side, side) to a mask (height, width): cropped to the image, then bilinear.
function enlarge(logits, height, width) {
  const [h, w] = innerSize(height, width), mask = new Uint8Array(height * width);
  const places = (now, old) => Array.from({length: now}, (_, i) => {
    const at = Math.max(0, (i + 0.5) * old / now - 0.5), low = Math.min(Math.floor(at), old - 1);
    return [low, Math.min(low + 1, old - 1), at - low];
  });
  const across = places(width, w);
  places(height, h).forEach(([y0, y1, b], y) => across.forEach(([x0, x1, a], x) => {
    const top = logits[y0 * side + x0] * (1 - a) + logits[y0 * side + x1] * a;
    const bottom = logits[y1 * side + x0] * (1 - a) + logits[y1 * side + x1] * a;
    mask[y * width + x] = top * (1 - b) + bottom * b > 0 ? 1 : 0;
  }));
  return mask;
}

async function segment({key, box, height, width}) {
  const ratio = side / Math.max(height, width); // truncated to whole pixels, as LiteMedSAM does
  const place = new ort.Tensor("float32", Float32Array.from(box, x => Math.trunc(x * ratio)), [1, 4]);
  const {logits, score} = await sessions[1].run({box: place, ...kept.get(key)});
  return {mask: enlarge(logits.data, height, width), score: score.data[0]};
}

const WORK = {load: ({side}) => load(side), embed, segment};
let last = Promise.resolve();

// One request after the other; each answer has the number of its request.
onmessage = ({data: {number, kind, ...given}}) => {
  last = last.then(async () => {
    const start = performance.now();
    try {
      const answer = await WORK[kind](given);
      postMessage({kind: "answer", number, seconds: (performance.now() - start) / 1000, ...answer});
    } catch (error) {
      postMessage({kind: "failed", number, message: String(error.message || error)});
    }
  });
};
