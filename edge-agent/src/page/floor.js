// The floor, to scale. Tiers stand one above the other at the same scale, the lowest at the bottom, so that a lift is one column. Where
// they would be too small that way (a rack beside a wide hall), the upper ones stand side by side above the lowest.
// What stands still is painted once per zoom; what moves is painted every frame, gliding from where it is seen to where it was told to be.
import { age, fill, get, h, kpi, time, toast } from "/page/api.js";
import { may } from "/page/people.js";
import { prio } from "/page/alarms.js";
import { acknowledge } from "/page/acknowledge.js";
import * as closings from "/page/closings.js";

let scene = null, offsets = [], columns = 1, bounds = null, loads = new Map(), vehicles = [], order = [];
let view = { scale: 1, x: 0, y: 0, fitted: true }, selected = null, detailTimer = 0, visible = true, still = null, live = null;
let ink = {}, base, top, box, side, list, kpis, shut = null, counts = null, throughput = [], alarms = [];
export const stats = { draws: 0, frames: 0, drawMs: 0, worstMs: 0, told: -1 };
window.lightsoutFloor = { stats, positions: () => vehicles.map((v) => [v.x, v.y]), count: () => vehicles.length, where };

const GAP = 0.9, SIDE = 1.6, TELL = 250, SPEED = 5; // metres between tiers, and between those side by side, milliseconds to glide over, metres a second at most when a place is jumped to
const NAMES = { idle: "Idle", busy: "Busy", charging: "Charging", starting: "Starting", blocked: "Blocked", lost: "Not seen", manual: "Manual", waiting: "Needs acknowledge", fault: "Fault", stopped: "Emergency stop" };
const LEVEL = { blocked: "warn", lost: "warn", manual: "warn", waiting: "warn", fault: "bad", stopped: "bad" };

export function start(stream) {
  box = document.getElementById("floor");
  kpis = h("div", { class: "kpis" });
  base = h("canvas", { "aria-hidden": "true" });
  top = h("canvas", { class: "live", tabindex: "0", role: "img", "aria-label": "Map of the floor. Arrow keys move it, plus and minus zoom, 0 shows all. The lists beside it have every vehicle, and what is closed." });
  const tool = (label, text, f) => h("button", { class: "quiet", "aria-label": label, title: label, onclick: f }, text);
  list = h("tbody", {});
  side = h("aside", { class: "side panel", "aria-label": "Vehicles" });
  const map = h("div", { class: "map" }, base, top,
    h("div", { class: "tools" }, tool("Zoom in", "+", () => zoom(1.35)), tool("Zoom out", "−", () => zoom(1 / 1.35)), tool("Show all", "⤢", fit)),
    h("div", { class: "legend", "aria-hidden": "true" }, ["busy:Busy", "idle:Idle", "load:Load", "warn:Held", "bad:Fault, stop", "closed:Closed"].map((t) => { const [c, l] = t.split(":"); return h("span", {}, h("i", { class: `l-${c}` }), l); })));
  fill(box, kpis, h("div", { class: "floor-body" }, map, side));
  new ResizeObserver(resize).observe(map);
  pointers();
  stream.on("floor", moment);
  stream.on("loads", (l) => { loads = new Map(l); still = null; });
  stream.on("closed", (c) => { closings.told(c); closedAnew(); });
  stream.on("alarms", (l) => { alarms = l; });
  stream.on("beat", (b) => { counts = b; paintKpis(); });
  setInterval(paintList, 1000);
  reload();
  requestAnimationFrame(draw);
}
export function shown(on) { visible = on; if (on) resize(); }
export function role() { if (selected !== null) detail(); }
export function repaint() { still = null; ink = {}; }

export async function reload() {
  try {
    scene = await get("/api/v1/floor");
  } catch (e) {
    if (e.status === 404) fill(box, kpis, h("div", { class: "empty panel" }, "This gateway has no floor: it gathers and forwards. Its lines are under Field."));
    scene = null;
    return;
  }
  const boxes = scene.tiers.map(() => [Infinity, Infinity, -Infinity, -Infinity]);
  const grow = (t, x, y) => { const b = boxes[t]; if (b) { b[0] = Math.min(b[0], x); b[1] = Math.min(b[1], y); b[2] = Math.max(b[2], x); b[3] = Math.max(b[3], y); } };
  for (const p of scene.places) { grow(p.tier, p.x_m - 0.5, p.y_m - 0.5); grow(p.tier, p.x_m + 0.5, p.y_m + 0.5); }
  for (const a of scene.areas) for (let t = a.tier; t <= a.to_tier; t++) { grow(t, a.x_m, a.y_m); grow(t, a.x_m + a.width_m, a.y_m + a.depth_m); }
  scene.boxes = boxes.map((b) => (b[0] === Infinity ? [0, 0, 1, 1] : b));
  vehicles = scene.vehicles.map((v) => ({ ...v, known: false, x: 0, y: 0, x0: 0, y0: 0, x1: 0, y1: 0, t0: 0, t1: 1, tier: 0, state: 0, load: 0, battery: -1, order: 0, path: [] }));
  order = vehicles.map((_, n) => n).sort((a, b) => (scene.vehicles[a].kind === "lift" ? -1 : 0) - (scene.vehicles[b].kind === "lift" ? -1 : 0));
  closings.learn(scene);
  offsets = []; bounds = null;
  if (isThing(selected)) selected = closings.named(selected.name);
  paintSide();
  fit();
  detail();
}

// Where each tier stands, for a map of this size: in as many columns as show it largest. One column is worth a little: lifts are one then.
function arrange(w, hgt) {
  const boxes = scene.boxes, upper = boxes.slice(1), wide = (b) => b[2] - b[0], high = (b) => b[3] - b[1];
  const most = (f) => Math.max(0, ...upper.map(f));
  let gap = SIDE, cell = [];
  const size = (n) => {
    if (n === 1) return [Math.max(...boxes.map((b) => b[2])) - Math.min(...boxes.map((b) => b[0])), boxes.reduce((sum, b) => sum + high(b) + GAP, -GAP)];
    cell = [most(wide) + SIDE, most(high) + gap];
    return [Math.max(wide(boxes[0]), n * cell[0] - SIDE), high(boxes[0]) + Math.ceil(upper.length / n) * cell[1]];
  };
  const scale = (n) => { const [x, y] = size(n); return Math.min(w / x, hgt / y) * (n === 1 ? 1.2 : 1); };
  const all = boxes.map((_, n) => n + 1).slice(0, Math.max(1, upper.length));
  const before = `${columns} ${offsets.length}`;
  columns = all.reduce((best, n) => (scale(n) > scale(best) ? n : best), 1);
  gap = Math.max(SIDE, 28 / scale(columns)); // there is a name in it
  const [x, y] = size(columns), left = boxes[0][0];
  bounds = columns === 1 ? [Math.min(...boxes.map((b) => b[0])), 0, 0, y] : [left, 0, left + x, y];
  if (columns === 1) bounds[2] = bounds[0] + x;
  let down = y;
  offsets = boxes.map((b, t) => {
    if (columns === 1) { down -= high(b); const o = [0, down - b[1]]; down -= GAP; return o; }
    if (t === 0) return [0, y - b[3]];
    const row = Math.floor((t - 1) / columns), column = (t - 1) % columns;
    return [left + column * cell[0] - b[0], y - high(boxes[0]) - row * cell[1] - gap - b[3]];
  });
  if (before !== `${columns} ${offsets.length}`) for (const v of vehicles) if (v.known) put(v);
}
// Where a vehicle was told to be, at once.
function put(v) {
  const [x, y] = v.told;
  const o = offsets[v.tier] || [0, 0];
  Object.assign(v, { known: true, x: x + o[0], y: y + o[1], x0: x + o[0], y0: y + o[1], x1: x + o[0], y1: y + o[1], t1: 1, t0: 0 });
}

function moment(m) {
  if (!scene || m.v.length !== vehicles.length) { if (scene) reload(); return; }
  const now = performance.now();
  stats.frames++; stats.told = m.t;
  m.v.forEach(([x, y, tier, heading, state, load, battery, orderId, path], n) => {
    const v = vehicles[n];
    const o = offsets[tier] || [0, 0], nx = x / 1000 + o[0], ny = y / 1000 + o[1];
    // From column to column nobody drives: a lift that has come to another tier is there.
    const there = !v.known || (columns > 1 && tier !== v.tier);
    v.told = [x / 1000, y / 1000]; v.tier = tier;
    if (there) put(v);
    if (nx !== v.x1 || ny !== v.y1) {
      const far = Math.hypot(nx - v.x, ny - v.y);
      Object.assign(v, { x0: v.x, y0: v.y, x1: nx, y1: ny, t0: now, t1: now + Math.max(TELL, (far / SPEED) * 1000) });
    }
    Object.assign(v, { heading, state, load, battery, order: orderId, path });
  });
  if (!vehicles.listed) { vehicles.listed = true; paintList(); }
}

// Painting
function colours() {
  const css = getComputedStyle(document.documentElement);
  for (const name of ["panel", "rack", "lane", "load", "vehicle", "idle", "path", "select", "ink", "soft", "faint", "line", "raised", "ground", "medium-fill", "critical-fill", "on-fill"]) ink[name] = css.getPropertyValue(`--${name}`).trim();
}
function resize() {
  const r = base.parentElement.getBoundingClientRect(), d = devicePixelRatio || 1;
  if (r.width < 10) return;
  for (const c of [base, top]) { c.width = Math.round(r.width * d); c.height = Math.round(r.height * d); }
  still = null;
  if (view.fitted) fit();
}
function fit() {
  if (!scene) return;
  const d = devicePixelRatio || 1, w = top.width / d, hgt = top.height / d;
  if (w < 100) return;
  const left = 24, up = 34, bottom = 52, right = scene.tiers.length > 1 ? 84 : 24;
  arrange(w - left - right, hgt - bottom - up);
  const wide = bounds[2] - bounds[0], high = bounds[3];
  view.scale = Math.max(0.5, Math.min((w - left - right) / wide, (hgt - bottom - up) / high));
  view.x = left + (w - left - right - wide * view.scale) / 2 - bounds[0] * view.scale;
  view.y = up + (hgt - bottom - up - high * view.scale) / 2;
  view.fitted = true;
  still = null;
}
function zoom(factor, cx, cy) {
  const d = devicePixelRatio || 1;
  cx ??= top.width / d / 2; cy ??= top.height / d / 2;
  const scale = Math.min(400, Math.max(2, view.scale * factor)), f = scale / view.scale;
  view = { scale, x: cx - (cx - view.x) * f, y: cy - (cy - view.y) * f, fitted: false };
  still = null;
}
function pan(dx, dy) { view = { ...view, x: view.x + dx, y: view.y + dy, fitted: false }; still = null; }

function paintStill() {
  if (!ink.panel) colours();
  const c = base.getContext("2d"), d = devicePixelRatio || 1, k = view.scale;
  c.setTransform(d, 0, 0, d, 0, 0);
  c.clearRect(0, 0, base.width, base.height);
  c.setTransform(d * k, 0, 0, d * k, d * view.x, d * view.y);
  const fine = 1 / k;
  for (const a of scene.areas) {
    if (a.kind === "lift" && columns === 1) {
      const y0 = a.y_m + offsets[a.to_tier][1], y1 = a.y_m + a.depth_m + offsets[a.tier][1];
      c.fillStyle = ink.lane; c.strokeStyle = ink.line; c.lineWidth = 1.5 * fine;
      c.fillRect(a.x_m, y0, a.width_m, y1 - y0); c.strokeRect(a.x_m, y0, a.width_m, y1 - y0);
      continue;
    }
    for (let t = a.tier; t <= a.to_tier; t++) {
      const x = a.x_m + offsets[t][0], y = a.y_m + offsets[t][1];
      c.fillStyle = a.kind === "station" ? ink.raised : ink.lane;
      c.strokeStyle = ink.line; c.lineWidth = (a.kind === "station" ? 2 : 1) * fine;
      c.beginPath(); c.roundRect(x, y, a.width_m, a.depth_m, a.kind === "station" ? 0.12 : 0.05); c.fill(); c.stroke();
      if (a.kind === "belt") {
        const along = a.width_m >= a.depth_m, [mx, my] = [x + a.width_m / 2, y + a.depth_m / 2];
        c.beginPath(); c.setLineDash([0.12, 0.2]);
        if (along) { c.moveTo(x + 0.1, my); c.lineTo(x + a.width_m - 0.1, my); } else { c.moveTo(mx, y + 0.1); c.lineTo(mx, y + a.depth_m - 0.1); }
        c.stroke(); c.setLineDash([]);
      }
    }
  }
  if (scene.roads.length) {
    c.strokeStyle = ink.rack; c.lineCap = "round"; c.lineWidth = Math.max(0.5, 1.5 * fine);
    c.beginPath();
    for (const r of scene.roads) { const a = scene.places[r.from], b = scene.places[r.to]; if (a && b) { c.moveTo(...spot(a)); c.lineTo(...spot(b)); } }
    c.stroke();
  }
  const bay = scene.bay_m || 0.52, load = Math.min(0.38, bay * 0.74);
  scene.places.forEach((p, n) => {
    const [x, y] = spot(p), held = loads.get(n);
    if (p.kind === "road") return;
    if (p.kind === "bay") { c.fillStyle = ink.rack; c.fillRect(x - bay / 2, y - bay / 2, bay, bay); }
    else if (p.kind === "park" || p.kind === "charge") { c.strokeStyle = ink.line; c.lineWidth = 1.5 * fine; c.strokeRect(x - 0.4, y - 0.4, 0.8, 0.8); if (p.kind === "charge" && k > 12) { c.fillStyle = ink.soft; c.font = "0.5px system-ui"; c.textAlign = "center"; c.fillText("⚡", x, y + 0.18); } }
    else { c.strokeStyle = ink.line; c.lineWidth = 1.5 * fine; c.strokeRect(x - 0.26, y - 0.24, 0.52, 0.48); }
    if (held) { c.fillStyle = ink.load; c.fillRect(x - load / 2, y - load / 2, load, load); }
    // Not seen: whatever is there.
    else if (held === 0) { c.strokeStyle = ink.faint; c.lineWidth = 1.5 * fine; c.beginPath(); c.moveTo(x - load / 2, y + load / 2); c.lineTo(x + load / 2, y - load / 2); c.stroke(); }
  });
  for (const t of closings.now()) closings.hatch(c, t, offset(t), k, ink);
  names(c, d, k);
  still = true;
}

const offset = (t) => offsets[t.tier] || [0, 0];
const spot = (p) => [p.x_m + offsets[p.tier][0], p.y_m + offsets[p.tier][1]];

// Names, in pixels: readable at any zoom, none over another; what finds no room is left out until somebody zooms in.
function names(c, d, k) {
  c.setTransform(d, 0, 0, d, 0, 0);
  c.textBaseline = "middle";
  const taken = [], at = (x, y) => [view.x + x * k, view.y + y * k];
  const box = (a, t = a.tier) => { const [x, y] = at(a.x_m + offsets[t][0], a.y_m + offsets[t][1]); return [x, y, x + a.width_m * k, y + a.depth_m * k]; };
  const free = (r) => r[0] >= 4 && r[2] <= base.width / d - 4 && taken.every((o) => r[2] <= o[0] || r[0] >= o[2] || r[3] <= o[1] || r[1] >= o[3]);
  // The first of these spots (x, y, and which side of it the text lies: -1, 0, 1) where there is room.
  const name = (text, font, colour, spots) => {
    c.font = font;
    const w = c.measureText(text).width;
    for (const [x, y, side] of spots) {
      const from = side > 0 ? x : side < 0 ? x - w : x - w / 2, r = [from - 2, y - 8, from + w + 2, y + 8];
      if (!free(r)) continue;
      taken.push(r);
      c.fillStyle = colour; c.textAlign = "left"; c.fillText(text, from, y);
      return;
    }
  };
  if (scene.tiers.length > 1) scene.tiers.forEach((t, n) => {
    const b = scene.boxes[n], o = offsets[n];
    const [x, y] = columns === 1 ? at(bounds[2], (b[1] + b[3]) / 2 + o[1]) : at(b[0] + o[0], b[1] + o[1]);
    name(t.name, "600 15px system-ui", ink.soft, [columns === 1 ? [x + 10, y, 1] : [x, y - 11, 1]]);
  });
  for (const t of closings.now()) {
    if (t.kind === "place" || t.x === undefined) continue;
    const [x, y] = at(t.x + offset(t)[0] + t.w / 2, t.y + offset(t)[1] + t.d / 2);
    c.font = "600 14px system-ui";
    const w = c.measureText("Closed").width + 14;
    if (w + 8 > t.w * k || 26 > t.d * k) continue;
    c.fillStyle = ink.panel; c.fillRect(x - w / 2, y - 11, w, 22);
    c.strokeStyle = ink.ink; c.lineWidth = 1.5; c.strokeRect(x - w / 2, y - 11, w, 22);
    c.fillStyle = ink.ink; c.textAlign = "center"; c.fillText("Closed", x, y + 0.5);
  }
  for (const a of scene.areas) if (a.kind !== "zone") for (let t = a.tier; t <= a.to_tier; t++) taken.push(box(a, t));
  for (const p of scene.places) if (p.kind !== "bay") { const [x, y] = at(...spot(p)); taken.push([x - 0.4 * k, y - 0.4 * k, x + 0.4 * k, y + 0.4 * k]); }
  for (const a of scene.areas) {
    const [x0, y0, x1, y1] = box(a, a.kind === "lift" && columns === 1 ? a.to_tier : a.tier), x = (x0 + x1) / 2, y = (y0 + y1) / 2;
    const around = [[x, y1 + 11, 0], [x, y0 - 11, 0], [x0 - 6, y, -1], [x1 + 6, y, 1]];
    const spots = a.kind === "lift" ? [around[1], around[0]] : a.kind === "belt" ? [around[2], around[3], around[0], around[1]] : a.kind === "aisle" ? [around[1], around[0], around[2]] : around;
    if (a.kind === "aisle" && scene.areas.filter((b) => b.kind === "aisle").length < 2) continue;
    if (a.kind !== "belt" || Math.max(x1 - x0, y1 - y0) > 24) name(a.name, "14px system-ui", ink.soft, spots);
  }
  if (k > 44) {
    c.font = `${Math.min(14, k * 0.19)}px system-ui`; c.textAlign = "center";
    scene.places.forEach((p, n) => { const load = loads.get(n); if (load) { c.fillStyle = ink.ground; c.fillText(load, ...at(...spot(p))); } });
  }
}

const stateName = (v) => scene.states[v.state] || "idle";
function draw() {
  requestAnimationFrame(draw);
  if (!visible || !scene || !bounds || document.hidden) return;
  const began = performance.now();
  if (!still) paintStill();
  const c = top.getContext("2d"), d = devicePixelRatio || 1, k = view.scale;
  c.setTransform(d, 0, 0, d, 0, 0);
  c.clearRect(0, 0, top.width, top.height);
  c.setTransform(d * k, 0, 0, d * k, d * view.x, d * view.y);
  for (const v of vehicles) {
    const f = Math.min(1, (began - v.t0) / (v.t1 - v.t0));
    const g = v.t1 - v.t0 > TELL + 1 ? f * f * (3 - 2 * f) : f; // a long way is begun and ended gently
    v.x = v.x0 + (v.x1 - v.x0) * g; v.y = v.y0 + (v.y1 - v.y0) * g;
  }
  // Reserved paths under the vehicles.
  c.strokeStyle = ink.path; c.lineJoin = "round"; c.lineCap = "round";
  c.globalAlpha = 0.55; c.lineWidth = Math.max(0.08, 2 / k); c.beginPath();
  vehicles.forEach((v, n) => { if (v.known && v.path.length && v.kind !== "cell" && n !== selected) trace(c, v); });
  c.stroke(); c.globalAlpha = 1;
  if (isVehicle(selected) && vehicles[selected].known && vehicles[selected].kind !== "cell") { c.lineWidth = Math.max(0.14, 4 / k); c.strokeStyle = ink.select; c.beginPath(); trace(c, vehicles[selected]); c.stroke(); }
  if (isThing(selected)) closings.outline(c, selected, offset(selected), k, ink);
  for (const n of order) if (vehicles[n].known) vehicle(c, vehicles[n], n, k);
  if (k > 16) {
    c.setTransform(d, 0, 0, d, 0, 0);
    c.textAlign = "center"; c.textBaseline = "middle"; c.font = `600 ${Math.max(11, Math.min(15, k * 0.24))}px system-ui`;
    for (const v of vehicles) if (v.load && v.known && v.kind !== "cell") { c.fillStyle = ink.ground; c.fillText(v.load, view.x + v.x * k, view.y + v.y * k + 0.5); }
  }
  const took = performance.now() - began;
  stats.draws++; stats.drawMs += took; stats.worstMs = Math.max(stats.worstMs, took);
}
function trace(c, v) {
  c.moveTo(v.x, v.y);
  for (const id of v.path.length > 1 && v.kind !== "robot" ? v.path.slice(-1) : v.path) {
    const p = scene.places[id];
    if (!p || (columns > 1 && p.tier !== v.tier)) continue; // it stands in another column
    const [x, y] = spot(p);
    c.lineTo(v.kind === "lift" ? v.x : x, y);
  }
}
function vehicle(c, v, n, k) {
  const name = stateName(v), level = LEVEL[name], l = v.length_m / 2, w = v.width_m / 2;
  const turn = v.heading ? (v.heading * Math.PI) / 180 : 0;
  c.translate(v.x, v.y); if (turn) c.rotate(turn);
  c.beginPath(); c.roundRect(-l, -w, 2 * l, 2 * w, Math.min(0.12, w / 2));
  if (level) { c.fillStyle = level === "bad" ? ink["critical-fill"] : ink["medium-fill"]; c.fill(); }
  else if (name === "idle" || v.kind === "cell") { c.fillStyle = ink.panel; c.fill(); }
  else { c.fillStyle = ink.vehicle; c.fill(); }
  c.lineWidth = Math.max(0.05, 2 / k); c.strokeStyle = level ? ink["on-fill"] : name === "idle" ? ink.idle : ink.vehicle; c.stroke();
  if (v.kind === "robot") { c.beginPath(); c.moveTo(l, 0); c.lineTo(l * 0.45, w * 0.6); c.lineTo(l * 0.45, -w * 0.6); c.closePath(); c.fillStyle = level ? ink["on-fill"] : ink.panel; c.fill(); }
  if (v.load && !level) { const s = Math.min(l, w) * 0.86; c.fillStyle = level ? ink["on-fill"] : name === "idle" || v.kind === "cell" ? ink.load : ink.idle; c.fillStyle = ink.load; c.fillRect(-Math.max(s, Math.min(l, 0.34)), -s * 0.72, 2 * Math.max(s, Math.min(l, 0.34)), s * 1.44); }
  if (n === selected) { c.strokeStyle = ink.select; c.lineWidth = Math.max(0.09, 3 / k); c.beginPath(); c.roundRect(-l - 0.14, -w - 0.14, 2 * l + 0.28, 2 * w + 0.28, 0.16); c.stroke(); }
  if (level && k < 22) { c.lineWidth = 3 / k; c.strokeStyle = level === "bad" ? ink["critical-fill"] : ink["medium-fill"]; c.beginPath(); c.arc(0, 0, Math.max(l * 1.6, 11 / k), 0, 7); c.stroke(); }
  if (level && k > 6) { c.fillStyle = ink["on-fill"]; c.font = `700 ${2 * Math.min(l, w)}px system-ui`; c.textAlign = "center"; c.textBaseline = "middle"; if (!v.load) c.fillText("!", 0, 0.04); }
  if (turn) c.rotate(-turn); c.translate(-v.x, -v.y);
}

// Beside the map
function paintKpis() {
  if (!counts) return;
  const o = counts.orders;
  throughput.push([counts.up_ms, o.completed]);
  while (throughput.length > 2 && counts.up_ms - throughput[0][0] > 600000) throughput.shift();
  const [t0, c0] = throughput[0], span = counts.up_ms - t0;
  const rate = span > 20000 ? Math.round(((o.completed - c0) * 3600000) / span) : null;
  const machines = vehicles.filter((v) => v.known), held = machines.filter((v) => LEVEL[stateName(v)]), bad = held.some((v) => LEVEL[stateName(v)] === "bad");
  const busy = machines.filter((v) => stateName(v) === "busy").length;
  fill(kpis, kpi("Orders under way", o.active), kpi("Done", kilo(o.completed)), kpi("Done an hour", rate === null ? "…" : kilo(rate)),
    kpi("Vehicles busy", String(busy), `of ${machines.length}`), kpi("Held or stopped", String(held.length), "", held.length ? (bad ? "bad" : "warn") : ""), loadsSeen(machines));
}
// What is not seen is not nothing.
function loadsSeen(machines) {
  const held = [...loads.values()], seen = held.filter((l) => l).length + machines.filter((v) => v.load).length, unseen = held.filter((l) => !l).length;
  const label = unseen ? `Loads seen; ${unseen === 1 ? "one place is" : `${unseen} places are`} not` : "Loads on the floor";
  return kpi(label, unseen && !seen ? "—" : kilo(seen), "", unseen ? "warn" : "");
}
const kilo = (n) => (n < 100000 ? String(n) : `${Math.round(n / 1000)} k`);

function paintSide() {
  list = h("tbody", {});
  shut = closings.section(select);
  shut.paint(selected);
  fill(side, h("div", { id: "detail", "aria-live": "polite" }), shut.element, h("h2", {}, "Vehicles"),
    h("table", { class: "vehicles" }, h("thead", {}, h("tr", {}, ["Name", "State", "Load"].map((t) => h("th", { scope: "col" }, t)))), list));
  paintList();
}
function paintList() {
  if (!scene || !visible) return;
  // Those that want a person first; a thousand rows are nobody's list.
  const rows = vehicles.map((v, n) => [v, n]).filter(([v]) => v.known);
  rows.sort(([a, i], [b, j]) => (LEVEL[stateName(b)] ? b.state : -1) - (LEVEL[stateName(a)] ? a.state : -1) || i - j);
  const shownRows = rows.slice(0, 60);
  const key = shownRows.map(([v, n]) => `${n}/${v.state}/${v.load}/${selected === n}`).join();
  if (list.dataset.key === key) return;
  const focused = document.activeElement?.dataset?.n;
  list.dataset.key = key;
  fill(list, shownRows.map(([v, n]) => h("tr", { class: selected === n ? "on" : "" }, h("td", {}, h("button", { class: "link", "data-n": n, onclick: () => select(n) }, v.name)), h("td", {}, h("span", { class: `mark ${LEVEL[stateName(v)] || (stateName(v) === "busy" ? "good" : "")}` }, NAMES[stateName(v)])), h("td", { class: "num" }, v.load || ""))),
    rows.length > shownRows.length ? h("tr", {}, h("td", { colspan: "3", class: "soft" }, `and ${rows.length - shownRows.length} more: click one on the map`)) : null);
  if (focused !== undefined) list.querySelector(`[data-n="${focused}"]`)?.focus();
}
// A vehicle by its number, or something that can be closed; the same again is none.
const isVehicle = (s) => typeof s === "number" && s < vehicles.length, isThing = (s) => s !== null && typeof s === "object";
function select(what) { choose(selected === what ? null : what); }
function choose(what) { selected = what; list.dataset.key = ""; paintList(); shut?.paint(selected); detail(); }
function closedAnew() { still = null; shut?.paint(selected); if (isThing(selected)) detail(); }
function inside(t) { return [...loads].filter(([n, load]) => { const p = scene.places[n]; return load && p && p.tier === t.tier && p.x_m >= t.x && p.x_m <= t.x + t.w && p.y_m >= t.y && p.y_m <= t.y + t.d; }).length; }
async function detail() {
  clearTimeout(detailTimer);
  const at = document.getElementById("detail");
  if (!at) return;
  if (isThing(selected)) { closings.panel(at, selected, inside(selected), closedAnew); detailTimer = setTimeout(detail, 1000); return; }
  delete at.dataset.key;
  if (!isVehicle(selected)) { fill(at); return; }
  try {
    const n = selected, v = vehicles[n], d = await get(`/api/v1/floor/vehicles/${n}`);
    if (n !== selected) return;
    const mine = alarms.filter((a) => a.active && a.subject === d.name);
    const inState = (...states) => vehicles.filter((o) => o.known && states.includes(stateName(o))).map((o) => o.name);
    const release = () => acknowledge(inState("waiting"), inState("manual", "stopped"), d.name);
    fill(at, h("h2", {}, d.name), h("dl", {}, h("dt", {}, "State"), h("dd", {}, h("span", { class: `mark ${LEVEL[d.state] || "good"}` }, NAMES[d.state])), d.why ? [h("dt", {}, "Why"), h("dd", {}, d.why)] : null,
      h("dt", {}, "Load"), h("dd", {}, d.load ?? "none"), h("dt", {}, "Order"), h("dd", {}, d.order ?? "none"), d.doing ? [h("dt", {}, "Doing"), h("dd", {}, d.doing)] : null, v.battery >= 0 ? [h("dt", {}, "Battery"), h("dd", {}, `${v.battery} %`)] : null),
      d.state === "waiting" ? h("button", { class: "do primary", disabled: !may("operator"), onclick: release }, "Acknowledge …") : null,
      mine.map((a) => h("div", { class: "row alarm" }, prio(a.priority), h("div", {}, h("strong", {}, a.means), h("div", { class: "soft" }, a.action)))),
      h("h3", {}, "Last commands"), d.commands.length ? h("ol", { class: "story" }, d.commands.slice(0, 6).map((s) => h("li", {}, h("time", {}, time(s.time)), s.what))) : h("p", { class: "soft" }, "none yet"));
  } catch (e) { toast(e.message); }
  detailTimer = setTimeout(detail, 1000);
}

// Hands: drag, wheel, pinch, keys, click.
function pointers() {
  const at = new Map(); let moved = 0, pinch = 0;
  top.addEventListener("pointerdown", (e) => { top.setPointerCapture(e.pointerId); at.set(e.pointerId, [e.offsetX, e.offsetY]); moved = 0; });
  top.addEventListener("pointermove", (e) => {
    const old = at.get(e.pointerId); if (!old) return;
    at.set(e.pointerId, [e.offsetX, e.offsetY]);
    if (at.size === 1) { const dx = e.offsetX - old[0], dy = e.offsetY - old[1]; moved += Math.abs(dx) + Math.abs(dy); if (moved > 4) pan(dx, dy); return; }
    const [a, b] = [...at.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
    if (pinch) zoom(now / pinch, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
    pinch = now; moved = 99;
  });
  const up = (e) => { if (at.delete(e.pointerId) && moved <= 4 && e.type === "pointerup") hit(e.offsetX, e.offsetY); pinch = 0; };
  top.addEventListener("pointerup", up); top.addEventListener("pointercancel", up);
  top.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(-e.deltaY * 0.0015), e.offsetX, e.offsetY); }, { passive: false });
  box.addEventListener("keydown", (e) => { if (e.key === "Escape" && selected !== null) choose(null); });
  top.addEventListener("keydown", (e) => {
    const move = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[e.key];
    if (move) pan(...move); else if (e.key === "+" || e.key === "=") zoom(1.35); else if (e.key === "-") zoom(1 / 1.35); else if (e.key === "0") fit(); else return;
    e.preventDefault();
  });
}
// What is under a finger: a vehicle; a vehicle near by, unless it is a belt that was met; what the floor is there.
function hit(px, py) {
  const x = (px - view.x) / view.scale, y = (py - view.y) / view.scale, slack = 8 / view.scale;
  const ground = closings.at(x, y, offsets);
  let best = null, near = Infinity;
  vehicles.forEach((v, n) => {
    const a = ((v.heading || 0) * Math.PI) / 180, dx = x - v.x, dy = y - v.y, d = Math.hypot(dx, dy);
    const on = Math.abs(dx * Math.cos(a) + dy * Math.sin(a)) <= v.length_m / 2 && Math.abs(dy * Math.cos(a) - dx * Math.sin(a)) <= v.width_m / 2;
    if (v.known && d < near && (on || (ground?.kind !== "belt" && d < Math.max(v.length_m, v.width_m) * 0.7 + slack))) { near = d; best = n; }
  });
  best ??= ground;
  if (best !== selected) choose(best);
}
// Where something that can be closed is seen, pixels of the window: x, y, width, height.
function where(name) {
  const t = closings.named(name), r = top.getBoundingClientRect(), k = view.scale;
  return t && [r.x + view.x + (t.x + offset(t)[0]) * k, r.y + view.y + (t.y + offset(t)[1]) * k, t.w * k, t.d * k];
}
