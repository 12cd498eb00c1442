// One script, no build step. Everything that the page shows comes from this server's own API.

const PARTS = ["invariant", "equivariant"];
const GALLERY = ["astronaut", "cat", "coffee", "rocket", "photographer", "bricks"];
const STEP = 15; // degrees between the points of the curves
const GALLERY_STEP = 45; // degrees between the copies of a photo in the gallery
const NEAREST = 5;
const AT_ONCE = 16; // images of a request, if the server takes so many: others wait meanwhile
const RETRIES = 5;
const GRID = range(-180, 180, STEP);

const el = (id) => document.getElementById(id);
const state = {
  models: [], key: "", gallery: [], a: null, b: null,
  // The choice of a model: another object for each, so that what comes late is known to be old.
  // Its vectors are by photo, angle and mirroring; its mean is of those of the gallery.
  model: null,
  curve: null, wanted: false, busy: false, failed: false,
};

// ---------------------------------------------------------------- photos

/** A photo: its middle square, large enough for every model. */
async function makePhoto(name, blob) {
  const bitmap = await createImageBitmap(blob); // upright, as the camera's EXIF says
  const edge = Math.min(bitmap.width, bitmap.height);
  const source = canvasOf(512);
  const [left, top] = [(bitmap.width - edge) / 2, (bitmap.height - edge) / 2];
  const brush = source.getContext("2d");
  brush.imageSmoothingQuality = "high";
  brush.drawImage(bitmap, left, top, edge, edge, 0, 0, 512, 512);
  bitmap.close();
  return { name, source, id: `${name}#${photoCount++}` };
}
let photoCount = 0;

function canvasOf(side) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = side;
  return canvas;
}

/**
 * Draw a photo, mirrored, then turned counter-clockwise, through a disc: at every angle the same
 * part of the photo is seen, and no corner gives the angle away.
 */
function draw(canvas, { photo, angle, mirrored }, model = state.model) {
  const side = canvas.width, brush = canvas.getContext("2d");
  const color = model ? model.color : [124, 116, 104];
  brush.setTransform(1, 0, 0, 1, 0, 0);
  brush.fillStyle = `rgb(${color.join(",")})`;
  brush.fillRect(0, 0, side, side);
  if (!photo) return;
  brush.save();
  brush.beginPath();
  brush.arc(side / 2, side / 2, side / 2, 0, 2 * Math.PI);
  brush.clip();
  brush.translate(side / 2, side / 2);
  brush.rotate((-angle * Math.PI) / 180); // the canvas counts clockwise
  if (mirrored) brush.scale(-1, 1);
  brush.imageSmoothingQuality = "high";
  brush.drawImage(photo.source, -side / 2, -side / 2, side, side);
  brush.restore();
}

function blobOf(view, model) {
  // Twice what the model sees, so that resampling leaves no trace of the angle.
  const canvas = canvasOf(Math.min(512, Math.max(256, 2 * model.size)));
  draw(canvas, view, model);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
}

// ---------------------------------------------------------------- the API

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function call(path, form) {
  for (let attempt = 0; ; attempt++) {
    const headers = state.key ? { Authorization: `Bearer ${state.key}` } : {};
    const options = form ? { method: "POST", body: form, headers } : { headers };
    const answer = await fetch(path, options);
    if (answer.ok) return answer.json();
    if (answer.status === 503 && attempt < RETRIES) {
      const seconds = answer.headers.get("Retry-After") || 1;
      status(`The server is full; asking again in ${seconds} s`);
      await new Promise((done) => setTimeout(done, 1000 * seconds));
      status("");
      continue;
    }
    const content = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, content.error?.message ?? `The server answered ${answer.status}.`);
  }
}

/** Another model was chosen while this one's answers were awaited. */
class Outdated extends Error {}

function mustBeChosen(model) {
  if (model !== state.model) throw new Outdated();
}

async function formOf(views, model) {
  const form = new FormData();
  form.set("model", model.id);
  for (const view of views) form.append("input", await blobOf(view, model), "view.jpg");
  return form;
}

const keyOf = ({ photo, angle, mirrored }) => `${photo.id}|${angle}|${mirrored ? 1 : 0}`;

/**
 * The embeddings of views: in each part a unit vector, less the gallery's mean, which all photos
 * share and which makes any two of them look alike. What is known already is not asked for.
 */
async function embed(views, model) {
  model.mean ??= mean(await ask(galleryViews(state.gallery), model));
  return (await ask(views, model)).map((vectors) => {
    vectors.centred ??= Object.fromEntries(
      PARTS.map((part) => [part, unit(vectors[part].map((x, i) => x - model.mean[part][i]))]));
    return vectors.centred;
  });
}

async function ask(views, model) {
  const { vectors, atOnce } = model;
  const missing = [...new Map(views.map((view) => [keyOf(view), view])).entries()]
    .filter(([key]) => !vectors.has(key));
  for (let start = 0; start < missing.length; start += atOnce) {
    if (missing.length > atOnce) status(`Embedding: ${start} of ${missing.length}`);
    const some = missing.slice(start, start + atOnce);
    const form = await formOf(some.map(([, view]) => view), model);
    form.set("encoding_format", "base64");
    const answer = await call("v1/embeddings", form);
    mustBeChosen(model);
    for (const { index, embedding } of answer.data) {
      const bytes = Uint8Array.from(atob(embedding), (letter) => letter.charCodeAt(0));
      const full = new Float32Array(bytes.buffer);
      vectors.set(some[index][0], {
        invariant: unit(full.subarray(0, model.split)),
        equivariant: unit(full.subarray(model.split)),
      });
    }
  }
  status("");
  return views.map((view) => vectors.get(keyOf(view)));
}

// ---------------------------------------------------------------- numbers

function range(from, to, step) {
  return Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => from + i * step);
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function unit(vector) {
  const length = Math.sqrt(dot(vector, vector)) || 1;
  return vector.map((value) => value / length);
}

const signed = (degrees) => ((((degrees + 180) % 360) + 360) % 360) - 180;
const number = (value) => value.toFixed(2).replace("-", "−");
const degrees = (value) => `${Math.round(value)}°`.replace("-", "−");

/** Which turn of A is most like B: the best of 24, refined by the parabola through its neighbours. */
function search(turned, vector) {
  const scores = turned.map((one) => dot(one.equivariant, vector.equivariant));
  const best = scores.indexOf(Math.max(...scores)), n = scores.length;
  const [left, mid, right] = [scores[(best + n - 1) % n], scores[best], scores[(best + 1) % n]];
  const bend = left - 2 * mid + right;
  return signed(-180 + STEP * (best + (bend < 0 ? (left - right) / (2 * bend) : 0)));
}

/** The mean of vectors in each part. */
function mean(all) {
  return Object.fromEntries(PARTS.map((part) => {
    const sum = new Float32Array(all[0][part].length);
    for (const vectors of all) vectors[part].forEach((x, i) => { sum[i] += x / all.length; });
    return [part, sum];
  }));
}

/** The gallery's entries nearest to a vector in one part, but for the very same view. */
function nearest(entries, vector, part, self) {
  return entries
    .filter((entry) => keyOf(entry) !== self)
    .map((entry) => ({ ...entry, score: dot(entry.vectors[part], vector[part]) }))
    .sort((x, y) => y.score - x.score)
    .slice(0, NEAREST);
}

// ---------------------------------------------------------------- what is asked for now

const viewA = () => ({ photo: state.a, angle: 0, mirrored: false });
const viewB = (angle) => ({ photo: state.b ?? state.a, angle, mirrored: el("mirror").checked });
const turnNow = () => Number(el("turn").value);
// Both ends of the slider are one view.
const same = (angle) => (angle === -180 ? 180 : angle);
const galleryViews = (photos) => photos.flatMap((photo) =>
  range(-135, 180, GALLERY_STEP).map((angle) => ({ photo, angle, mirrored: false })));
const curveKey = () => [state.model.id, state.a.id, keyOf(viewB(0))].join();

/** Ask for a new look; while one is being made, only the last of several wishes is kept. */
async function update() {
  drawPhotos();
  state.wanted = true;
  if (state.busy || !state.model || !state.a) return;
  busy(true);
  try {
    while (state.wanted) {
      state.wanted = false;
      const { model } = state;
      try {
        await look(model);
      } catch (error) {
        // Of a model that is no longer chosen an error does not matter: the look is wanted anew.
        if (!(error instanceof Outdated) && model === state.model) throw error;
      }
    }
    if (state.failed) problem(""); // what else is said there, such as of a file, stays
    state.failed = false;
  } catch (error) {
    report(error);
  } finally {
    busy(false);
  }
}

function busy(is) {
  state.busy = is;
  el("main").setAttribute("aria-busy", String(is)); // screen readers wait for the end
}

async function look(model) {
  const angle = turnNow(), view = viewB(same(angle)), key = curveKey();
  const [a, b] = await embed([viewA(), view], model);
  const now = Object.fromEntries(PARTS.map((part) => [part, dot(a[part], b[part])]));
  if (state.curve?.key !== key) {
    const points = await embed(GRID.map((turn) => viewB(same(turn))), model);
    state.curve = { key, points: GRID.map((turn, i) => [turn, ...PARTS.map((p) => dot(a[p], points[i][p]))]) };
    showTable();
  }
  showCurves(angle, now);
  showDial(angle, await believed(b, angle, model));
  await showNearest(view, b, model);
}

async function believed(b, angle, model) {
  if (model.heads && model.atOnce > 1) { // of two photos in one request
    const answer = await call("v1/relate", await formOf([viewA(), viewB(same(angle))], model));
    mustBeChosen(model);
    return { ...answer, heads: true };
  }
  const views = GRID.slice(0, -1).map((turn) => ({ ...viewA(), angle: same(turn) }));
  const turned = await embed(views, model);
  return { angle: search(turned, b), heads: false };
}

// ---------------------------------------------------------------- showing

function status(text) { el("status").textContent = text; }

function problem(text) {
  el("problem").hidden = !text;
  el("problem").textContent = text;
}

function report(error) {
  state.failed = true;
  if (error.status === 401) {
    el("key-form").hidden = false;
    el("api").hidden = true; // a link sends no key
    return problem(state.key ? "This key is not the server's." : "This server asks for a key.");
  }
  problem(error instanceof Refused ? error.message : `The server cannot be reached: ${error.message}`);
}

function nameOf({ photo, angle, mirrored }) {
  const turned = angle ? `, turned by ${degrees(angle)}` : ", upright";
  return photo ? `${photo.name}${mirrored ? ", mirrored" : ""}${turned}` : "none";
}

function drawPhotos() {
  el("turn-value").textContent = degrees(turnNow());
  el("turn").setAttribute("aria-valuetext", `${turnNow()} degrees`);
  for (const [id, view] of [["a", viewA()], ["b", viewB(turnNow())]]) {
    draw(el(id), view);
    el(`${id}-name`).textContent = id === "a" ? view.photo?.name ?? "none" : nameOf(view);
    el(id).setAttribute("aria-label", `Photo ${id.toUpperCase()}: ${nameOf(view)}`);
  }
  for (const button of el("picks").children) {
    button.setAttribute("aria-pressed", String(button.dataset.id === state.a?.id));
  }
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

let shown = null; // what the plot shows, to draw it anew at another width

function showCurves(angle, now) {
  shown = { angle, now };
  const { points } = state.curve;
  const width = Math.max(280, el("curves").clientWidth), height = 260;
  const [left, right, top, bottom] = [36, 14, 10, 34];
  const low = Math.min(-0.1, ...points.flatMap((p) => p.slice(1)), ...Object.values(now));
  const floor = Math.floor(low * 5) / 5;
  const x = (turn) => left + ((turn + 180) / 360) * (width - left - right);
  const y = (value) => top + ((1 - value) / (1 - floor)) * (height - top - bottom);
  const label = PARTS.map((p) => `${p} part ${number(now[p])}`).join(", ");
  const title = `Similarity of A and B at ${degrees(angle)}: ${label}. The table has all figures.`;
  const plot = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": title });
  for (const value of range(floor, 1, 0.2)) {
    plot.append(
      svg("line", { class: Math.abs(value) < 0.01 ? "zero" : "grid", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
      svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, number(value + 0).slice(0, -1)),
    );
  }
  for (const turn of range(-180, 180, 90)) {
    plot.append(svg("text", { x: x(turn), y: height - bottom + 18, "text-anchor": "middle" }, degrees(turn)));
  }
  plot.append(svg("line", { class: "cursor", x1: x(angle), x2: x(angle), y1: top, y2: height - bottom }));
  PARTS.forEach((part, i) => {
    const line = points.map((p) => `${x(p[0])},${y(p[i + 1])}`).join(" ");
    plot.append(svg("polyline", { class: `curve ${part}`, points: line }));
  });
  // The higher of the two values is written above its dot and the other below: never one on the other.
  const above = now.invariant >= now.equivariant ? "invariant" : "equivariant";
  const side = angle > 120 ? { dx: -8, "text-anchor": "end" } : { dx: 8 };
  for (const part of PARTS) {
    const [cx, cy] = [x(angle), y(now[part])];
    const shift = part === above ? -8 : 18;
    plot.append(
      svg("circle", { class: part, cx, cy, r: 5 }),
      svg("text", { class: `value ${part}`, x: cx, y: Math.max(14, cy + shift), ...side }, number(now[part])),
    );
  }
  el("curves").replaceChildren(plot);
  const words = PARTS.map((p) => `${p} ${number(now[p])}`).join(", ");
  el("now").textContent = `B turned by ${degrees(angle)}: ${words}`;
}

function showTable() {
  const rows = state.curve.points.map(([turn, ...values]) => {
    const row = document.createElement("tr"), head = document.createElement("th");
    head.scope = "row";
    head.textContent = degrees(turn);
    row.append(head, ...values.map((value) => {
      const cell = document.createElement("td");
      cell.textContent = number(value);
      return cell;
    }));
    return row;
  });
  el("table").tBodies[0].replaceChildren(...rows);
}

function hand(angle, length, kind) {
  const turn = (angle * Math.PI) / 180; // 0 is up, counter-clockwise to the left
  return svg("line", { class: kind, x1: 0, y1: 0, x2: -length * Math.sin(turn), y2: -length * Math.cos(turn) });
}

function showDial(angle, answer) {
  const known = answer.angle !== null && answer.angle !== undefined;
  const text = known ? degrees(answer.angle) : "unknown";
  const label = `Set: ${degrees(angle)}. Believed: ${text}.`;
  const dial = svg("svg", { viewBox: "-60 -60 120 120", role: "img", "aria-label": label });
  dial.append(svg("circle", { class: "face", r: 50 }));
  for (const mark of range(-135, 180, 45)) {
    const turn = (mark * Math.PI) / 180;
    const end = (r) => [-r * Math.sin(turn), -r * Math.cos(turn)];
    const [[x1, y1], [x2, y2]] = [end(45), end(50)];
    dial.append(svg("line", { class: "grid", x1, y1, x2, y2 }));
  }
  if (known && answer.angle_error) {
    const [from, to] = [answer.angle - answer.angle_error, answer.angle + answer.angle_error].map((d) => (d * Math.PI) / 180);
    const at = (turn) => `${-42 * Math.sin(turn)} ${-42 * Math.cos(turn)}`;
    const large = answer.angle_error > 90 ? 1 : 0;
    dial.append(svg("path", { class: "sector", d: `M0 0L${at(from)}A42 42 0 ${large} 0 ${at(to)}Z` }));
  }
  dial.append(hand(angle, 48, "set"));
  if (known) dial.append(hand(answer.angle, 38, "found"));
  el("dial").replaceChildren(dial);
  const error = answer.angle_error ? ` ± ${degrees(answer.angle_error)}` : "";
  const mirrored = answer.mirrored ? " It takes B to be mirrored." : "";
  const chance = typeof answer.same === "number" ? ` Same photo: ${Math.round(100 * answer.same)} %.` : "";
  el("believed").textContent = `Believed: ${text}${error}. Set: ${degrees(angle)}.${mirrored}${chance}`;
  el("how").textContent = answer.by === "pixels"
    ? "Measured on the pixels: keypoints of A and B match."
    : answer.heads
    ? "The model's heads say so, from equivariant parts alone."
    : `${state.model.heads ? "This server takes one photo at a time" : "This model has no heads"}. Found by comparing B with ${GRID.length - 1} turned copies of A in the equivariant part.`;
}

async function showNearest(view, vector, model) {
  const photos = [...new Set([...state.gallery, state.a, state.b].filter(Boolean))];
  const views = galleryViews(photos), vectors = await embed(views, model);
  const entries = views.map((one, i) => ({ ...one, vectors: vectors[i] }));
  el("gallery-about").textContent =
    `${photos.length} photos, each in ${views.length / photos.length} positions; similarity as above.`;
  for (const [id, part] of [["by-content", "invariant"], ["by-pose", "equivariant"]]) {
    el(id).replaceChildren(...nearest(entries, vector, part, keyOf(view)).map(entryOf));
  }
}

function entryOf(entry) {
  const item = document.createElement("li"), canvas = canvasOf(128);
  draw(canvas, entry);
  canvas.setAttribute("aria-hidden", "true"); // its name stands below it
  const score = document.createElement("span");
  score.className = "score";
  score.textContent = number(entry.score);
  item.append(canvas, `${entry.photo.name} ${degrees(entry.angle)} `, score);
  return item;
}

// ---------------------------------------------------------------- what people do

async function take(files, slot) {
  const photos = [];
  for (const file of files) {
    try {
      photos.push(await makePhoto(file.name, file));
    } catch {
      state.failed = false; // it is said until something else is chosen
      return problem(`${file.name}: this browser cannot open it as an image.`);
    }
  }
  if (!photos.length) return;
  problem("");
  if (photos.length > 1) [state.a, state.b] = photos;
  else if (slot === "b") state.b = photos[0];
  else state.a = photos[0];
  update();
}

function listen() {
  el("turn").addEventListener("input", update);
  el("mirror").addEventListener("change", update);
  el("same").addEventListener("click", () => { problem(""); state.b = null; update(); });
  for (const slot of ["a", "b"]) {
    el(`${slot}-file`).addEventListener("change", (event) => {
      take([...event.target.files], slot);
      event.target.value = ""; // the same file may be chosen again
    });
  }
  const over = (is) => (event) => {
    event.preventDefault();
    document.body.classList.toggle("dragging", is);
  };
  addEventListener("dragover", over(true));
  addEventListener("dragleave", over(false));
  addEventListener("drop", (event) => {
    over(false)(event);
    const slot = event.target.closest?.("[data-slot]")?.dataset.slot;
    take([...event.dataTransfer.files].slice(0, 2), slot);
  });
  el("model").addEventListener("change", () => choose(el("model").value));
  el("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.key = el("key").value;
    if (/[^\x20-\x7e]/.test(state.key)) return problem("This key is not the server's.");
    start();
  });
  new ResizeObserver(() => shown && showCurves(shown.angle, shown.now)).observe(el("curves"));
}

function choose(id) {
  const model = state.models.find((one) => one.id === id);
  state.model = { ...model, vectors: new Map(), mean: null };
  state.curve = null;
  el("about").textContent = state.model.about;
  update();
}

async function loadGallery() {
  for (const name of GALLERY) {
    const blob = await (await fetch(`page/gallery/${name}.jpg`)).blob();
    const photo = await makePhoto(name, blob);
    state.gallery.push(photo);
    const button = document.createElement("button"), image = document.createElement("img");
    button.type = "button";
    button.dataset.id = photo.id;
    image.src = `page/gallery/${name}.jpg`;
    image.alt = `Take the ${name} as A`;
    button.append(image);
    button.addEventListener("click", () => { problem(""); state.a = photo; update(); });
    el("picks").append(button);
  }
  state.a = state.gallery[0];
}

function modelsOf(entries) {
  const length = (name) => entries.find((entry) => entry.id === name)?.dimensions ?? 0;
  return entries
    .filter((entry) => entry.part === "full" && length(`${entry.id}:equivariant`))
    .map((entry) => ({
      id: entry.id, color: entry.mean, size: entry.image_size, heads: entry.heads,
      atOnce: Math.min(AT_ONCE, entry.max_inputs),
      split: length(`${entry.id}:invariant`),
      about: `${entry.backbone}, ${entry.image_size} px, ${length(`${entry.id}:invariant`)} + ` +
        `${length(`${entry.id}:equivariant`)} dimensions`,
    }));
}

async function start() {
  try {
    const { data } = await call("v1/models");
    el("key-form").hidden = true;
    state.models = modelsOf(data);
    if (!state.models.length) return problem("No served model has an equivariant part.");
    el("model").replaceChildren(...state.models.map(({ id }) => new Option(id, id)));
    if (!state.gallery.length) await loadGallery();
    choose(state.models[0].id);
  } catch (error) {
    report(error);
  }
}

listen();
start();
