"use strict";
// One state; `show` draws what depends on the crop, `paint` the pictures of the current frame.
const DATA = JSON.parse(document.getElementById("data").textContent);
const { width: WIDTH, height: HEIGHT, crop: CROP, frames: FRAMES, across: ACROSS,
  tops: TOPS, lefts: LEFTS } = DATA.size;
const CROPS = TOPS * LEFTS;
const MOTION = ["u", "v"], COLOURS = ["diverse", "stable"];
const MILLISECONDS = 90, CELL = 12;
const STOPS = [[255, 255, 229], [161, 218, 180], [65, 182, 196], [34, 94, 168], [8, 29, 88]];

const state = { clip: 0, top: TOPS >> 1, left: (LEFTS - 1) >> 1, flip: false, frame: FRAMES >> 1,
  playing: false, layer: "film", drawn: DATA.partitions[0].name, label: null, scope: "clip" };
const number = Object.fromEntries(DATA.labels.map((label, k) => [label.name, k]));
const partitions = Object.fromEntries(DATA.partitions.map((one) => [one.name, one]));
const $ = (id) => document.getElementById(id);

function element(name, settings = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(settings)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawing(name, settings = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(settings)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// ---- The data of clips

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function picture(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  return image;
}

// Every clip is read once, when it is first asked for.
async function load(clip) {
  clip.loaded ??= (async () => {
    const fields = Object.entries(clip.fields).map(async ([name, at]) => [name, await picture(at)]);
    clip.map = await unpack(clip.labels);
    clip.rates = rates(clip.map);
    clip.images = Object.fromEntries(await Promise.all(fields));
    clip.images.film = await picture(clip.film);
  })();
  await clip.loaded;
  return clip;
}

const current = () => DATA.clips[state.clip];

// The mirror image of the crop at `left` lies at LEFTS - 1 - left of the mirrored frame.
function valueAt(k, top, left) {
  const map = current().map, row = k * CROPS + top * LEFTS;
  return state.flip ? DATA.labels[k].flip[map[row + LEFTS - 1 - left]] : map[row + left];
}

const value = (name) => valueAt(number[name], state.top, state.left);

function neighbours(crop) {
  const left = crop % LEFTS, near = [];
  if (left > 0) near.push(crop - 1);
  if (left < LEFTS - 1) near.push(crop + 1);
  if (crop >= LEFTS) near.push(crop - LEFTS);
  if (crop < CROPS - LEFTS) near.push(crop + LEFTS);
  return near;
}

const NEAR = Array.from({ length: CROPS }, (_, crop) => neighbours(crop));

// By label and crop: of the crops that lie one pixel away, the share with another value.
function rates(map) {
  const shares = new Float32Array(map.length);
  for (let k = 0; k < map.length; k += CROPS)
    for (let crop = 0; crop < CROPS; crop++) {
      const other = NEAR[crop].filter((near) => map[k + near] !== map[k + crop]).length;
      shares[k + crop] = other / NEAR[crop].length;
    }
  return shares;
}

const mean = (numbers) => numbers.reduce((sum, one) => sum + one, 0) / numbers.length;

// ---- Pictures

const film = element("canvas", { width: WIDTH, height: HEIGHT });

// Draws a frame of a sheet of them, or a picture of one, as it is or mirrored.
function draw(canvas, image, at, mirrored) {
  const pen = canvas.getContext("2d");
  pen.save();
  if (mirrored) pen.transform(-1, 0, 0, 1, WIDTH, 0);
  pen.drawImage(image, (at % ACROSS) * WIDTH, Math.floor(at / ACROSS) * HEIGHT, WIDTH, HEIGHT,
    0, 0, WIDTH, HEIGHT);
  pen.restore();
}

function paint() {
  const images = current().images;
  draw(film, images.film, state.frame, state.flip);
  if (state.layer === "film") $("film").getContext("2d").drawImage(film, 0, 0);
  else draw($("film"), images[state.layer], 0, state.flip);
  // Colours are of the film whatever else is looked at.
  for (const { canvas, whats } of panels)
    canvas.getContext("2d").drawImage(whats === COLOURS ? film : $("film"), state.left, state.top,
      CROP, CROP, 0, 0, CROP, CROP);
  for (const [k, button] of [...$("times").children].entries())
    button.setAttribute("aria-pressed", k === state.frame);
}

function edges(partition) {
  const path = partition.blocks.map((block) => block.path).join("");
  return ["edge under", "edge"].map((name) => drawing("path", { d: path, class: name }));
}

function arrow(angle, length, settings) {
  const turn = (angle * Math.PI) / 180, x = Math.cos(turn) * length, y = -Math.sin(turn) * length;
  const tip = (by) => {
    const at = turn + by;
    return `${x - Math.cos(at) * length * .55},${y + Math.sin(at) * length * .55}`;
  };
  return drawing("path", { ...settings,
    d: `M${-x},${-y}L${x},${y}M${tip(.5)}L${x},${y}L${tip(-.5)}` });
}

// Black or white, whichever is easier to read on a colour.
function ink(colour) {
  const parts = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16) / 255);
  const [red, green, blue] = parts.map((part) => part ** 2.2);
  return .2126 * red + .7152 * green + .0722 * blue > .18 ? "#000" : "#fff";
}

// A letter at the block's anchor, and beside it the way or the colour that is told of it.
function tag(what, told, x, y, size) {
  const { colour, letter } = DATA.styles[what];
  const made = drawing("g", { class: "tag", transform: `translate(${x},${y}) scale(${size})` });
  const box = (at, fill, edge) => drawing("rect", { x: at - 6.5, y: -6.5, width: 13, height: 13,
    rx: 2.5, fill, stroke: edge, "stroke-width": 1 });
  const text = drawing("text", { x: -7, y: .5, fill: ink(colour) });
  text.textContent = letter;
  made.append(box(-7, colour, "#fff"), text);
  if (told.angle !== undefined) {
    const way = drawing("g", { transform: "translate(8,0)" });
    way.append(arrow(told.angle, 7, { class: "way under" }),
      arrow(told.angle, 7, { class: "way", stroke: colour }));
    made.append(way);
  } else made.append(box(7, told.swatch, "#fff"));
  return made;
}

function hatch(what, id) {
  const { colour } = DATA.styles[what];
  const pattern = drawing("pattern", { id, width: 6, height: 6, patternUnits: "userSpaceOnUse",
    patternTransform: what === "diverse" ? "rotate(45)" : "" });
  pattern.append(what === "diverse"
    ? drawing("rect", { width: 1.2, height: 6, fill: colour })
    : drawing("circle", { cx: 2, cy: 2, r: 1, fill: colour }));
  return pattern;
}

// What labels say of one partition, for `whats` of u, v, diverse and stable.
function marksOf(partition, whats) {
  return whats.map((what) => {
    const branch = MOTION.includes(what) ? "motion" : "appearance";
    const name = `${branch}/${partition.name}/${what}`;
    const block = value(`${name}_location`);
    const told = MOTION.includes(what)
      ? { angle: DATA.labels[number[`${name}_orientation`]].angles[value(`${name}_orientation`)] }
      : { swatch: DATA.colours[value(`${name}_color`) - 1]?.[1] };
    return { what, block, told };
  }).filter((mark) => mark.block);
}

function drawMarks(svg, partition, whats, size) {
  const marks = marksOf(partition, whats), lines = [], tags = [];
  for (const { what, block, told } of marks) {
    const { path, anchor: [row, column] } = partition.blocks[block - 1];
    const { colour, line } = DATA.styles[what];
    const same = marks.filter((mark) => mark.block === block);
    const step = 15 * size, high = step * same.length / 2;
    const shift = step * (same.findIndex((mark) => mark.what === what) + .5) - high;
    const fill = line === "solid" ? "none" : `url(#${svg.id}-${what})`;
    lines.push(drawing("path", { d: path, class: "halo" }), drawing("path", { d: path, fill,
      class: `mark ${line}`, stroke: colour, style: `fill: ${fill}`,
      "data-mark": `${partition.name} ${what}`, "data-block": block }));
    const x = Math.min(Math.max(column + .5, 15 * size), CROP - 15 * size);
    const y = Math.min(Math.max(row + .5, high), CROP - high) + shift;
    tags.push(tag(what, told, x, y, size));
  }
  svg.replaceChildren(...whats.filter((what) => DATA.styles[what].line !== "solid")
    .map((what) => hatch(what, `${svg.id}-${what}`)), ...edges(partition), ...lines, ...tags);
}

// ---- The crop, and the labels

const rows = {};
const panels = [];

function show() {
  const { top, left } = state, crop = $("crop");
  Object.assign(crop.style, { left: `${(100 * left) / WIDTH}%`, top: `${(100 * top) / HEIGHT}%`,
    width: `${(100 * CROP) / WIDTH}%`, height: `${(100 * CROP) / HEIGHT}%` });
  $("over").replaceChildren(drawing("path", { class: "shade",
    d: `M0,0H${WIDTH}V${HEIGHT}H0ZM${left},${top}h${CROP}v${CROP}h${-CROP}Z` }));
  const over = crop.firstElementChild, drawn = partitions[state.drawn];
  if (drawn) drawMarks(over, drawn, [...MOTION, ...COLOURS], crop.clientWidth < 300 ? .7 : .5);
  else over.replaceChildren();
  const size = panels[0].canvas.clientWidth < 140 ? 1 : .8;
  for (const { svg, partition, whats } of panels) drawMarks(svg, partition, whats, size);
  const changed = DATA.labels.filter((label) => tell(label)).length;
  showPairs();
  Object.assign($("here").style, { left: `${(100 * (left + .5)) / LEFTS}%`,
    top: `${(100 * (top + .5)) / TOPS}%` });
  $("said").textContent = `Crop at top ${top}, left ${left}`
    + (state.flip ? " of the mirrored frame" : "")
    + (changed ? `; ${changed} of ${DATA.labels.length} labels changed` : "");
  paint();
}

// Writes a label's value, and says whether it is another one than before.
function tell(label) {
  const row = rows[label.name], now = valueAt(number[label.name], state.top, state.left);
  const cell = row.querySelector(".value"), before = cell.textContent;
  cell.textContent = now;
  row.querySelector(".words").textContent = label.words[now] || `of ${label.values}`;
  const glyph = row.querySelector(".glyph");
  glyph.replaceChildren();
  if (label.angles && now)
    glyph.append(drawing("svg", { viewBox: "-10 -10 20 20" },
      arrow(label.angles[now], 8, { class: "way", stroke: "currentColor" })));
  if (label.name.endsWith("color")) {
    const swatch = drawing("svg", { viewBox: "0 0 10 10" });
    swatch.append(drawing("rect", { width: 10, height: 10, fill: DATA.colours[now - 1][1],
      stroke: "currentColor" }));
    glyph.append(swatch);
  }
  if (before === "" || before === String(now)) return false;
  row.animate([{ backgroundColor: "#e69f00" }, {}], 500);
  return true;
}

function showPairs() {
  const marks = MOTION.map((what) => [what, value(`motion/global/${what}_frame`)]);
  const places = [...new Set(marks.map(([, pair]) => pair))];
  $("pairs").replaceChildren(...places.map((pair) => {
    const letters = marks.filter(([, other]) => other === pair).map(([what]) => what);
    const colour = DATA.styles[letters[0]].colour;
    return element("span", { style: `left: ${(100 * pair) / FRAMES}%; border-color: ${colour}` },
      letters.join(" "));
  }));
}

function moveTo(top, left) {
  top = Math.min(Math.max(Math.round(top), 0), TOPS - 1);
  left = Math.min(Math.max(Math.round(left), 0), LEFTS - 1);
  if (top === state.top && left === state.left) return;
  Object.assign(state, { top, left });
  show();
}

async function choose(index) {
  state.clip = (index + DATA.clips.length) % DATA.clips.length;
  for (const [k, button] of [...$("clips").children].entries())
    button.setAttribute("aria-current", k === state.clip);
  const button = $("clips").children[state.clip];
  $("clips").scrollLeft = button.offsetLeft - ($("clips").clientWidth - button.clientWidth) / 2;
  const clip = await load(DATA.clips[state.clip]);
  // Meanwhile another may have been chosen.
  if (clip !== current()) return;
  $("title").textContent = `${clip.video}, frames ${clip.start} to ${clip.start + FRAMES - 1}`
    + (clip.class ? `, ${clip.class}` : "") + (clip.energy ? "" : ": a still clip");
  if (!(state.layer in clip.images)) state.layer = "film";
  for (const row of Object.values(rows)) row.querySelector(".value").textContent = "";
  showRates();
  showHeat();
  showChoices();
  show();
}

function flip() {
  // The crop stays on what it shows.
  Object.assign(state, { flip: !state.flip, left: LEFTS - 1 - state.left });
  $("flip").setAttribute("aria-pressed", state.flip);
  showHeat();
  show();
}

let timer;
function play() {
  state.playing = !state.playing;
  $("play").setAttribute("aria-pressed", state.playing);
  $("play").textContent = state.playing ? "Pause" : "Play";
  clearInterval(timer);
  if (state.playing) {
    if (state.layer !== "film") set("layer", "film");
    timer = setInterval(() => {
      state.frame = (state.frame + 1) % FRAMES;
      paint();
    }, MILLISECONDS);
  }
}

// ---- How often labels change

function showRates() {
  for (const [k, label] of DATA.labels.entries()) {
    const rate = mean(current().rates.subarray(k * CROPS, (k + 1) * CROPS));
    const row = rows[label.name];
    // The longest bar is a change at every fifth move.
    row.querySelector(".rate").style.setProperty("--rate", `${Math.min(500 * rate, 100)}%`);
    row.title = `${label.name}: another value at ${(100 * rate).toFixed(1)}% of moves by one pixel`;
  }
}

// By crop, how often the chosen label, or how many of all labels, change when it moves by a pixel.
function heat() {
  const clips = state.scope === "all" ? DATA.clips.filter((clip) => clip.rates) : [current()];
  const found = new Float32Array(CROPS);
  const asked = state.label === null ? DATA.labels.map((_, k) => k) : [number[state.label]];
  for (const clip of clips)
    for (const k of asked)
      for (let crop = 0; crop < CROPS; crop++)
        found[crop] += clip.rates[k * CROPS + crop] / clips.length;
  return found;
}

function shade(share) {
  const last = STOPS.length - 1, at = Math.min(Math.max(share, 0), 1) * last;
  const low = Math.min(Math.floor(at), last - 1);
  const parts = STOPS[low].map((part, k) => part + (at - low) * (STOPS[low + 1][k] - part));
  return `rgb(${parts.join(",")})`;
}

const shownLeft = (left) => state.flip ? LEFTS - 1 - left : left;

function showHeat() {
  const pen = $("heat").getContext("2d");
  const regions = state.label !== null && state.scope === "clip";
  $("every").hidden = state.label === null;
  $("scale").hidden = regions;
  if (regions) drawRegions(pen, state.label);
  else drawRates(pen);
  const whose = state.scope === "all" ? `in ${DATA.clips.length} clips` : "in this clip";
  $("asked").textContent = regions ? `${state.label} of every crop` :
    `How often ${state.label ?? "labels"} change${state.label ? "s" : ""} ${whose}`;
  $("meaning").textContent = regions ? MEANINGS.regions
    : state.label === null ? MEANINGS.labels : MEANINGS.label;
}

const MEANINGS = {
  labels: "Each place is a crop: how many of the 27 labels change when it moves by one pixel, on "
    + "average over the ways it can move. Choose a label by its row to see that one; the thin bar "
    + "there says how often it changes.",
  label: "Each place is a crop: in which share of clips and moves by one pixel the label changes.",
  regions: "Each place is a crop; the numbers are this label's values there. The dot is the crop "
    + "that is shown.",
};

function drawRates(pen) {
  const found = heat(), most = Math.max(...found, 1e-9);
  for (let crop = 0; crop < CROPS; crop++) {
    pen.fillStyle = shade(found[crop] / most);
    pen.fillRect(shownLeft(crop % LEFTS) * CELL, Math.floor(crop / LEFTS) * CELL, CELL, CELL);
  }
  $("least").textContent = "0";
  $("most").textContent = state.label === null ? `${most.toFixed(1)} labels`
    : `${(100 * most).toFixed(0)}%`;
}

// Where a label has the same value, with that value at the place that is furthest from others.
function drawRegions(pen, name) {
  const k = number[name];
  const values = Array.from({ length: CROPS },
    (_, crop) => valueAt(k, Math.floor(crop / LEFTS), crop % LEFTS));
  const present = [...new Set(values)].sort((a, b) => a - b);
  const tone = (one) => .05 + .65 * present.indexOf(one) / Math.max(present.length - 1, 1);
  for (let crop = 0; crop < CROPS; crop++) {
    const x = (crop % LEFTS) * CELL, y = Math.floor(crop / LEFTS) * CELL;
    pen.fillStyle = shade(tone(values[crop]));
    pen.fillRect(x, y, CELL, CELL);
    pen.fillStyle = "#000";
    if (crop % LEFTS && values[crop - 1] !== values[crop]) pen.fillRect(x - 1, y, 2, CELL);
    if (crop >= LEFTS && values[crop - LEFTS] !== values[crop]) pen.fillRect(x, y - 1, CELL, 2);
  }
  pen.font = `bold ${2 * CELL}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  for (const one of present) {
    const crop = innermost(values, one);
    pen.fillStyle = tone(one) > .5 ? "#fff" : "#000";
    pen.fillText(one, (crop % LEFTS + .5) * CELL, (Math.floor(crop / LEFTS) + .5) * CELL);
  }
}

// The crop of a value that is most moves away from any of another value, and from the map's rim.
function innermost(values, one) {
  let ring = values.map((other) => other === one), last = ring;
  while (ring.includes(true)) {
    last = ring;
    ring = last.map((inside, crop) => inside && NEAR[crop].length === 4
      && NEAR[crop].every((near) => last[near]));
  }
  const places = last.flatMap((inside, crop) => inside ? [crop] : []);
  return places[places.length >> 1];
}

// ---- Building the page, once

function set(key, chosen) {
  state[key] = chosen;
  showChoices();
  if (key === "scope" || key === "label") showHeat();
  show();
}

const choices = [];
function addChoice(holder, key, chosen, text) {
  const button = element("button", { type: "button", "data-choice": `${key} ${chosen}` }, text);
  button.addEventListener("click", () => set(key, chosen));
  choices.push({ button, key, chosen });
  holder.append(button);
}

function showChoices() {
  for (const { button, key, chosen } of choices) {
    button.setAttribute("aria-pressed", state[key] === chosen);
    if (key === "layer") button.disabled = !(chosen in current().images);
  }
  for (const [name, row] of Object.entries(rows))
    row.setAttribute("aria-pressed", name === state.label);
}

function addLabel(holder, label) {
  const row = element("button", { type: "button", class: "label", "data-label": label.name },
    element("span", { class: "name" }, label.name.split("/").pop()),
    element("span", { class: "glyph" }), element("b", { class: "value" }),
    element("span", { class: "words" }), element("span", { class: "rate" }));
  row.addEventListener("click", () => set("label", state.label === label.name ? null : label.name));
  rows[label.name] = row;
  holder.append(row);
}

function key(what) {
  const { letter, colour } = DATA.styles[what];
  return element("span", { class: "key", style: `background: ${colour}; color: ${ink(colour)}` },
    letter);
}

function addBranch(name, whats, ...words) {
  const three = element("div", { class: "three" });
  for (const partition of DATA.partitions) {
    const canvas = element("canvas", { width: CROP, height: CROP, role: "img",
      "aria-label": `The crop under the ${partition.name}, with its ${name} labels` });
    const svg = drawing("svg", { viewBox: `0 0 ${CROP} ${CROP}`,
      id: `${name}-${partition.name}`, "aria-hidden": true });
    const group = element("div", { role: "group", "aria-label": `${name}/${partition.name}` },
      element("div", { class: "panel" }, canvas, svg),
      element("h3", {}, element("span", {}, `${name}/`), partition.name));
    for (const label of DATA.labels)
      if (label.name.startsWith(`${name}/${partition.name}/`)) addLabel(group, label);
    panels.push({ canvas, svg, partition, whats });
    three.append(group);
  }
  $("groups").append(element("section", { class: `branch ${name}` },
    element("p", { class: "quiet" }, ...words), three));
}

function addWhole() {
  const three = element("div", { class: "three" });
  for (const label of DATA.labels)
    if (label.name.includes("/global/")) {
      const [branch, whole] = label.name.split("/");
      const group = element("div", {}, element("h3", {}, element("span", {}, `${branch}/`), whole));
      addLabel(group, label);
      three.append(group);
    }
  $("groups").append(element("section", { class: "branch" }, three));
}

function addClips() {
  for (const [k, clip] of DATA.clips.entries()) {
    const canvas = element("canvas", { width: WIDTH, height: HEIGHT });
    const told = `${clip.video} from frame ${clip.start}`;
    const button = element("button", { type: "button", title: told,
      "aria-label": `Clip ${k + 1} of ${DATA.clips.length}: ${told}` }, canvas);
    button.addEventListener("click", () => choose(k));
    $("clips").append(button);
  }
}

// In the order of the strip; then the map of all clips is whole.
async function loadAll() {
  for (const [k, clip] of DATA.clips.entries()) {
    await load(clip);
    draw($("clips").children[k].firstElementChild, clip.images.film, FRAMES >> 1, false);
  }
  document.body.dataset.ready = "yes";
  if (state.scope === "all") showHeat();
}

// Calls `at` with the place of the pointer, as shares of the holder's sides, while it is down.
function follow(holder, begin, at) {
  const place = (event) => {
    const box = holder.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  let held = null;
  holder.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    held = event.pointerId;
    holder.setPointerCapture(held);
    begin(...place(event));
    at(...place(event));
  });
  holder.addEventListener("pointermove",
    (event) => event.pointerId === held && at(...place(event)));
  for (const end of ["pointerup", "pointercancel"])
    holder.addEventListener(end, () => (held = null));
}

function listen() {
  let grip = [0, 0];
  follow($("frame"), (x, y) => {
    const across = x * WIDTH - state.left, down = y * HEIGHT - state.top;
    const inside = Math.min(across, down) >= 0 && Math.max(across, down) < CROP;
    grip = inside ? [across, down] : [CROP / 2, CROP / 2];
  }, (x, y) => moveTo(y * HEIGHT - grip[1], x * WIDTH - grip[0]));
  follow($("map"), () => {}, (x, y) => moveTo(y * TOPS - .5, x * LEFTS - .5));
  $("before").addEventListener("click", () => choose(state.clip - 1));
  $("next").addEventListener("click", () => choose(state.clip + 1));
  $("play").addEventListener("click", play);
  $("flip").addEventListener("click", flip);
  $("every").addEventListener("click", () => set("label", null));
  // After a click the keys are the page's again; who came to a button by keys keeps it.
  document.addEventListener("click", (event) => event.detail && document.activeElement.blur());
  document.addEventListener("keydown", press);
}

const KEYS = { f: flip, n: () => choose(state.clip + 1), p: () => choose(state.clip - 1) };
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function press(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const arrow = ARROWS[event.key], step = event.shiftKey ? 8 : 1;
  if (arrow) moveTo(state.top + step * arrow[0], state.left + step * arrow[1]);
  else if (event.key === " " && event.target.localName !== "button") play();
  else if (event.key.toLowerCase() in KEYS) KEYS[event.key.toLowerCase()]();
  else return;
  event.preventDefault();
}

async function build() {
  $("told").textContent = DATA.told;
  Object.assign($("film"), { width: WIDTH, height: HEIGHT });
  Object.assign($("heat"), { width: LEFTS * CELL, height: TOPS * CELL });
  $("over").setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  const over = $("crop").firstElementChild;
  over.setAttribute("viewBox", `0 0 ${CROP} ${CROP}`);
  over.id = "over-crop";
  const stops = STOPS.map((_, k) => shade(k / (STOPS.length - 1)));
  $("ramp").style.background = `linear-gradient(to right, ${stops.join(",")})`;
  for (let k = 0; k < FRAMES; k++) {
    const button = element("button", { type: "button", "aria-label": `Frame ${k + 1}` }, k + 1);
    button.addEventListener("click", () => { state.frame = k; set("layer", "film"); });
    $("times").append(button);
  }
  addChoice($("layers"), "layer", "film", "film");
  addChoice($("layers"), "layer", "u", "M_u: motion along x");
  addChoice($("layers"), "layer", "v", "M_v: along y");
  for (const { name } of DATA.partitions) addChoice($("drawn"), "drawn", name, name);
  addChoice($("drawn"), "drawn", "none", "none");
  addChoice($("scope"), "scope", "clip", "this clip");
  addChoice($("scope"), "scope", "all", "all clips");
  addBranch("motion", MOTION, key("u"), " block where motion along x changes most, ",
    key("v"), " along y; the arrow: which way it grows");
  addBranch("appearance", COLOURS, key("diverse"), " block whose colours change most over the frames, ",
    key("stable"), " least; the square: its dominant colour");
  addWhole();
  addClips();
  listen();
  await choose(0);
  await loadAll();
}

build().catch((error) => {
  $("told").textContent = `This browser cannot show the page: ${error.message}`;
  throw error;
});
