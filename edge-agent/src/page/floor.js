// The floor, to scale. Tiers stand one above the other at the same scale, the lowest at the bottom, so that a lift is one column.
// What stands still is painted once per zoom; what moves is painted every frame, gliding from where it is seen to where it was told to be.
import { age, fill, get, h, kpi, time, toast } from "/page/api.js";
import { may } from "/page/people.js";

let scene = null, offsets = [], bounds = null, loads = new Map(), vehicles = [], order = [];
let view = { scale: 1, x: 0, y: 0, fitted: true }, selected = null, detailTimer = 0, visible = true, still = null, live = null;
let ink = {}, base, top, box, side, list, kpis, counts = null, throughput = [];
export const stats = { draws: 0, frames: 0, drawMs: 0, worstMs: 0, told: -1 };
window.lightsoutFloor = { stats, positions: () => vehicles.map((v) => [v.x, v.y]), count: () => vehicles.length };

const GAP = 0.9, TELL = 250, SPEED = 5; // metres between tiers, milliseconds to glide over, metres a second at most when a place is jumped to
const NAMES = { idle: "Idle", busy: "Busy", charging: "Charging", starting: "Starting", blocked: "Blocked", lost: "Not seen", manual: "Manual", waiting: "Needs acknowledge", fault: "Fault", stopped: "Emergency stop" };
const LEVEL = { blocked: "warn", lost: "warn", manual: "warn", waiting: "warn", fault: "bad", stopped: "bad" };

export function start(stream) {
  box = document.getElementById("floor");
  kpis = h("div", { class: "kpis" });
  base = h("canvas", { "aria-hidden": "true" });
  top = h("canvas", { class: "live", tabindex: "0", role: "img", "aria-label": "Map of the floor. Arrow keys move it, plus and minus zoom, 0 shows all. The list beside it has every vehicle." });
  const tool = (label, text, f) => h("button", { class: "quiet", "aria-label": label, title: label, onclick: f }, text);
  list = h("tbody", {});
  side = h("aside", { class: "side panel", "aria-label": "Vehicles" });
  const map = h("div", { class: "map" }, base, top,
    h("div", { class: "tools" }, tool("Zoom in", "+", () => zoom(1.35)), tool("Zoom out", "−", () => zoom(1 / 1.35)), tool("Show all", "⤢", fit)),
    h("div", { class: "legend", "aria-hidden": "true" }, ["busy:Busy", "idle:Idle", "load:Load", "warn:Held", "bad:Fault, stop"].map((t) => { const [c, l] = t.split(":"); return h("span", {}, h("i", { class: `l-${c}` }), l); })));
  fill(box, kpis, h("div", { class: "floor-body" }, map, side));
  new ResizeObserver(resize).observe(map);
  pointers();
  stream.on("floor", moment);
  stream.on("loads", (l) => { loads = new Map(l); still = null; });
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
  let y = 0;
  bounds = [Infinity, 0, -Infinity, 0];
  offsets = scene.tiers.map(() => 0);
  for (let t = scene.tiers.length - 1; t >= 0; t--) {
    const b = boxes[t][0] === Infinity ? [0, 0, 1, 1] : boxes[t];
    offsets[t] = y - b[1];
    y += b[3] - b[1] + GAP;
    bounds[0] = Math.min(bounds[0], b[0]);
    bounds[2] = Math.max(bounds[2], b[2]);
  }
  bounds[3] = y - GAP;
  scene.boxes = boxes;
  vehicles = scene.vehicles.map((v) => ({ ...v, known: false, x: 0, y: 0, x0: 0, y0: 0, x1: 0, y1: 0, t0: 0, t1: 1, tier: 0, state: 0, load: 0, battery: -1, order: 0, path: [] }));
  order = vehicles.map((_, n) => n).sort((a, b) => (scene.vehicles[a].kind === "lift" ? -1 : 0) - (scene.vehicles[b].kind === "lift" ? -1 : 0));
  paintSide();
  fit();
}

function moment(m) {
  if (!scene || m.v.length !== vehicles.length) { if (scene) reload(); return; }
  const now = performance.now();
  stats.frames++; stats.told = m.t;
  m.v.forEach(([x, y, tier, heading, state, load, battery, orderId, path], n) => {
    const v = vehicles[n];
    const nx = x / 1000, ny = y / 1000 + offsets[tier];
    if (!v.known) Object.assign(v, { known: true, x: nx, y: ny, x0: nx, y0: ny, x1: nx, y1: ny });
    if (nx !== v.x1 || ny !== v.y1) {
      const far = Math.hypot(nx - v.x, ny - v.y);
      Object.assign(v, { x0: v.x, y0: v.y, x1: nx, y1: ny, t0: now, t1: now + Math.max(TELL, (far / SPEED) * 1000) });
    }
    Object.assign(v, { tier, heading, state, load, battery, order: orderId, path });
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
  if (!bounds) return;
  const d = devicePixelRatio || 1, w = top.width / d, hgt = top.height / d, left = 24, right = scene.tiers.length > 1 ? 84 : 24, bottom = 40;
  const wide = bounds[2] - bounds[0], high = bounds[3];
  view.scale = Math.max(0.5, Math.min((w - left - right) / wide, (hgt - bottom - 24) / high));
  view.x = left + (w - left - right - wide * view.scale) / 2 - bounds[0] * view.scale;
  view.y = 16 + (hgt - bottom - 24 - high * view.scale) / 2;
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
    if (a.kind === "lift") {
      const y0 = a.y_m + offsets[a.to_tier], y1 = a.y_m + a.depth_m + offsets[a.tier];
      c.fillStyle = ink.lane; c.strokeStyle = ink.line; c.lineWidth = 1.5 * fine;
      c.fillRect(a.x_m, y0, a.width_m, y1 - y0); c.strokeRect(a.x_m, y0, a.width_m, y1 - y0);
      continue;
    }
    for (let t = a.tier; t <= a.to_tier; t++) {
      c.fillStyle = a.kind === "station" ? ink.raised : ink.lane;
      c.strokeStyle = ink.line; c.lineWidth = (a.kind === "station" ? 2 : 1) * fine;
      c.beginPath(); c.roundRect(a.x_m, a.y_m + offsets[t], a.width_m, a.depth_m, a.kind === "station" ? 0.12 : 0.05); c.fill(); c.stroke();
      if (a.kind === "belt") {
        c.beginPath(); c.setLineDash([0.12, 0.2]); c.moveTo(a.x_m + 0.1, a.y_m + a.depth_m / 2 + offsets[t]); c.lineTo(a.x_m + a.width_m - 0.1, a.y_m + a.depth_m / 2 + offsets[t]); c.stroke(); c.setLineDash([]);
      }
    }
  }
  if (scene.roads.length) {
    c.strokeStyle = ink.rack; c.lineCap = "round"; c.lineWidth = Math.max(0.5, 1.5 * fine);
    c.beginPath();
    for (const r of scene.roads) { const a = scene.places[r.from], b = scene.places[r.to]; if (a && b) { c.moveTo(a.x_m, a.y_m + offsets[a.tier]); c.lineTo(b.x_m, b.y_m + offsets[b.tier]); } }
    c.stroke();
  }
  scene.places.forEach((p, n) => {
    const y = p.y_m + offsets[p.tier], held = loads.has(n);
    if (p.kind === "road") return;
    if (p.kind === "bay") { c.fillStyle = ink.rack; c.fillRect(p.x_m - 0.26, y - 0.3, 0.52, 0.6); }
    else if (p.kind === "park" || p.kind === "charge") { c.strokeStyle = ink.line; c.lineWidth = 1.5 * fine; c.strokeRect(p.x_m - 0.4, y - 0.4, 0.8, 0.8); if (p.kind === "charge" && k > 12) { c.fillStyle = ink.soft; c.font = "0.5px system-ui"; c.textAlign = "center"; c.fillText("⚡", p.x_m, y + 0.18); } }
    else { c.strokeStyle = ink.line; c.lineWidth = 1.5 * fine; c.strokeRect(p.x_m - 0.26, y - 0.24, 0.52, 0.48); }
    if (held) { c.fillStyle = ink.load; c.fillRect(p.x_m - 0.19, y - 0.19, 0.38, 0.38); }
  });
  // Names, in pixels: readable at any zoom.
  c.setTransform(d, 0, 0, d, 0, 0);
  c.textBaseline = "middle";
  scene.tiers.forEach((t, n) => {
    const b = scene.boxes[n]; if (b[0] === Infinity || scene.tiers.length < 2) return;
    c.fillStyle = ink.soft; c.font = "600 15px system-ui"; c.textAlign = "left";
    c.fillText(t.name, view.x + bounds[2] * k + 10, view.y + ((b[1] + b[3]) / 2 + offsets[n]) * k);
  });
  c.textAlign = "center"; c.font = "14px system-ui"; c.fillStyle = ink.soft;
  for (const a of scene.areas) {
    const x = view.x + (a.x_m + a.width_m / 2) * k, w = a.width_m * k;
    if (a.kind === "lift") c.fillText(a.name, x, view.y + (a.y_m + offsets[a.to_tier]) * k - 10);
    else if (a.kind === "station" || a.kind === "zone") c.fillText(a.name, x, view.y + (a.y_m + a.depth_m + offsets[a.tier]) * k + 11);
    else if (a.kind === "belt" && w > 70) { c.textAlign = "right"; c.fillText(a.name, view.x + a.x_m * k - 6, view.y + (a.y_m + a.depth_m / 2 + offsets[a.tier]) * k); c.textAlign = "center"; }
  }
  if (k > 44) {
    c.font = `${Math.min(14, k * 0.19)}px system-ui`;
    scene.places.forEach((p, n) => { const load = loads.get(n); if (load !== undefined) { c.fillStyle = ink.ground; c.fillText(load, view.x + p.x_m * k, view.y + (p.y_m + offsets[p.tier]) * k); } });
  }
  still = true;
}

const stateName = (v) => scene.states[v.state] || "idle";
function draw() {
  requestAnimationFrame(draw);
  if (!visible || !scene || document.hidden) return;
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
  if (selected !== null && vehicles[selected]?.known && vehicles[selected].kind !== "cell") { c.lineWidth = Math.max(0.14, 4 / k); c.strokeStyle = ink.select; c.beginPath(); trace(c, vehicles[selected]); c.stroke(); }
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
  for (const id of v.path.length > 1 && v.kind !== "robot" ? v.path.slice(-1) : v.path) { const p = scene.places[id]; if (p) c.lineTo(v.kind === "lift" ? v.x : p.x_m, p.y_m + offsets[p.tier]); }
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
    kpi("Vehicles busy", String(busy), `of ${machines.length}`), kpi("Held or stopped", String(held.length), "", held.length ? (bad ? "bad" : "warn") : ""), kpi("Loads on the floor", kilo(loads.size + machines.filter((v) => v.load).length)));
}
const kilo = (n) => (n < 100000 ? String(n) : `${Math.round(n / 1000)} k`);

function paintSide() {
  list = h("tbody", {});
  fill(side, h("div", { id: "vehicle-detail", "aria-live": "polite" }), h("h2", {}, "Vehicles"),
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
function select(n) { selected = selected === n ? null : n; list.dataset.key = ""; paintList(); detail(); }
async function detail() {
  clearTimeout(detailTimer);
  const at = document.getElementById("vehicle-detail");
  if (selected === null || !at) { if (at) fill(at); return; }
  try {
    const v = vehicles[selected], d = await get(`/api/v1/floor/vehicles/${selected}`);
    const acknowledge = async () => (await import("/page/app.js")).acknowledgeMachines();
    fill(at, h("h2", {}, d.name), h("dl", {}, h("dt", {}, "State"), h("dd", {}, h("span", { class: `mark ${LEVEL[d.state] || "good"}` }, NAMES[d.state])), d.why ? [h("dt", {}, "Why"), h("dd", {}, d.why)] : null,
      h("dt", {}, "Load"), h("dd", {}, d.load ?? "none"), h("dt", {}, "Order"), h("dd", {}, d.order ?? "none"), v.battery >= 0 ? [h("dt", {}, "Battery"), h("dd", {}, `${v.battery} %`)] : null),
      d.state === "waiting" ? h("button", { class: "do primary", disabled: !may("operator"), onclick: acknowledge }, "Acknowledge machines") : null,
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
  top.addEventListener("keydown", (e) => {
    const move = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[e.key];
    if (move) pan(...move); else if (e.key === "+" || e.key === "=") zoom(1.35); else if (e.key === "-") zoom(1 / 1.35); else if (e.key === "0") fit(); else return;
    e.preventDefault();
  });
}
function hit(px, py) {
  const x = (px - view.x) / view.scale, y = (py - view.y) / view.scale, slack = 8 / view.scale;
  let best = null, near = Infinity;
  vehicles.forEach((v, n) => { const d = Math.hypot(v.x - x, v.y - y); if (v.known && d < near && d < Math.max(v.length_m, v.width_m) * 0.7 + slack) { near = d; best = n; } });
  if (best === null) { selected = null; list.dataset.key = ""; paintList(); detail(); } else if (best !== selected) select(best);
}
