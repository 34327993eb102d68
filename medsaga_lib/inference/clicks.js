// The image of `inference.clicks.Clicks` in a notebook: it draws the prompt, a box and points, and
// sends it to Python, which answers with a picture of the masks, `overlay`.
const SVG = "http://www.w3.org/2000/svg";
const CLICK = 4; // CSS pixels between a click and a drag
const LEAST = 384, MOST = 640; // CSS pixels of the longer side
const STEP = 0.01; // of the image, for a press of an arrow key
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

function render({model, el}) {
  const get = name => model.get(name);
  const make = (name, attributes) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  };
  const stage = document.createElement("div"), picture = new Image(), overlay = new Image(), drawn = make("svg", {});
  stage.className = "clicks";
  stage.tabIndex = 0;
  stage.setAttribute("role", "application");
  stage.append(picture, overlay, drawn);
  overlay.alt = "";
  el.append(stage);

  let box = null, cursor = null; // while they are moved; the cursor is that of the keyboard
  const size = () => [get("width"), get("height")];
  const inside = ([x, y]) => {
    const [width, height] = size();
    return [Math.max(0, Math.min(Math.round(x), width - 1)), Math.max(0, Math.min(Math.round(y), height - 1))];
  };
  const send = prompt => {
    model.set("prompt", {...get("prompt"), ...prompt});
    model.save_changes();
    draw();
  };
  const sendBox = ([x0, y0, x1, y1]) => {
    const [a, b] = [inside([Math.min(x0, x1), Math.min(y0, y1)]), inside([Math.max(x0, x1), Math.max(y0, y1)])];
    box = null;
    send({box: [...a, ...b]});
  };
  const addPoint = place => send({points: [...get("prompt").points, [...inside(place), get("tool") === "outside" ? 0 : 1]]});

  function draw() {
    const [width, height] = size(), prompt = get("prompt"), shown = box || prompt.box;
    const dot = Math.max(width, height) / 90, line = {fill: "none", "vector-effect": "non-scaling-stroke"};
    drawn.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawn.replaceChildren();
    if (shown) {
      const [x, y, w, h] = [Math.min(shown[0], shown[2]), Math.min(shown[1], shown[3]), Math.abs(shown[2] - shown[0]), Math.abs(shown[3] - shown[1])];
      for (const [stroke, thick] of [["black", 4], ["white", 2]]) drawn.append(make("rect", {x, y, width: w, height: h, stroke, "stroke-width": thick, ...line}));
    }
    for (const [x, y, object] of prompt.points) {
      drawn.append(make("circle", {cx: x, cy: y, r: dot, fill: object ? "#009e73" : "#d55e00", stroke: "white", "stroke-width": dot / 3}));
      drawn.append(make("path", {d: `M${x - dot / 2} ${y}H${x + dot / 2}${object ? `M${x} ${y - dot / 2}V${y + dot / 2}` : ""}`, stroke: "white", "stroke-width": dot / 3}));
    }
    if (cursor && get("tool") !== "box") drawn.append(make("path", {d: `M${cursor[0] - 2 * dot} ${cursor[1]}h${4 * dot}M${cursor[0]} ${cursor[1] - 2 * dot}v${4 * dot}`, stroke: "white", "stroke-width": 2, ...line}));
  }

  function load() {
    const [width, height] = size(), longer = Math.max(width, height);
    stage.style.width = `${Math.max(LEAST, Math.min(longer, MOST)) * width / longer}px`;
    picture.src = get("picture");
    picture.alt = get("alt");
    stage.setAttribute("aria-label", `${get("alt")} ${get("tool") === "box" ? "Drag to draw a box; arrow keys move it, with Shift they change its size." : "Click to add a point; arrow keys move a cross, Enter adds a point there."}`);
    const masks = get("overlay");
    overlay.hidden = !masks;
    if (masks) overlay.src = masks;
    stage.dataset.answers = get("answers");
    draw();
  }

  const place = event => {
    const {left, top, width, height} = stage.getBoundingClientRect(), [w, h] = size();
    return [(event.clientX - left) / width * w, (event.clientY - top) / height * h];
  };
  let from = null;
  stage.addEventListener("pointerdown", event => {
    if (event.button) return;
    from = {place: place(event), x: event.clientX, y: event.clientY, dragged: false};
    stage.setPointerCapture(event.pointerId);
    stage.focus({preventScroll: true});
    event.preventDefault();
  });
  stage.addEventListener("pointermove", event => {
    if (!from || get("tool") !== "box") return;
    from.dragged ||= Math.hypot(event.clientX - from.x, event.clientY - from.y) > CLICK;
    if (!from.dragged) return;
    box = [...inside(from.place), ...inside(place(event))];
    draw();
  });
  stage.addEventListener("pointerup", event => {
    if (!from) return;
    if (get("tool") !== "box") addPoint(place(event));
    else if (from.dragged) sendBox([...from.place, ...place(event)]);
    from = null;
  });
  stage.addEventListener("pointercancel", () => { from = box = null; draw(); });

  stage.addEventListener("keydown", event => {
    const way = ARROWS[event.key], [width, height] = size(), step = Math.max(1, Math.round(STEP * Math.max(width, height)));
    const middle = [width / 2, height / 2];
    if (event.key === "Enter" && get("tool") !== "box") addPoint(cursor || middle);
    else if (way && get("tool") !== "box") {
      cursor = inside((cursor || middle).map((at, i) => at + step * way[i]));
      draw();
    } else if (way) {
      const [x0, y0, x1, y1] = get("prompt").box || [width / 4, height / 4, 3 * width / 4, 3 * height / 4];
      let [dx, dy] = way.map(one => one * step);
      if (event.shiftKey) sendBox([x0, y0, Math.max(x0 + 1, x1 + dx), Math.max(y0 + 1, y1 + dy)]);
      else {
        dx = Math.max(-x0, Math.min(dx, width - 1 - x1));
        dy = Math.max(-y0, Math.min(dy, height - 1 - y1));
        sendBox([x0 + dx, y0 + dy, x1 + dx, y1 + dy]);
      }
    } else return;
    event.preventDefault();
    event.stopPropagation(); // arrow keys of a notebook choose another cell
  });

  for (const name of ["picture", "overlay", "prompt", "tool", "answers"]) model.on(`change:${name}`, load);
  load();
}

export default {render};
