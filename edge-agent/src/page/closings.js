// What is closed: tiers and belts to loads, places and roads to mobile robots. The map shows it hatched; a click there, or a name
// typed beside the map, opens a panel that tells what closing means and does it.
import { fill, h, request, toast } from "/page/api.js";
import { may } from "/page/people.js";

const ZONE = "nothing is brought here or taken from here; loads on their way go elsewhere, and orders for what is inside wait";
const MEANS = { tier: ZONE, belt: ZONE, zone: ZONE, place: "no mobile robot is sent here, and one that stands here drives out", road: "no mobile robot is sent along here, in either direction" };
const WORD = { tier: "tier of a rack", belt: "belt", zone: "zone", place: "place of the roads", road: "road between two places" };

const LIST = { place: "places", road: "roads" };
const list = (t) => LIST[t.kind] ?? "zones";

let all = [], roads = new Map(), closed = { places: new Set(), roads: new Set(), zones: new Set() }, busy = false;

// Everything that can be closed, with the rectangle it covers: metres, before tiers are put beside each other.
export function learn(scene) {
  roads = new Map();
  const zones = scene.areas.flatMap((a) => a.zones.map((name, n) => ({ kind: a.kind === "belt" ? "belt" : "tier", name, tier: a.tier + n, x: a.x_m, y: a.y_m, w: a.width_m, d: a.depth_m })));
  const places = scene.places.filter((p) => ["road", "park", "charge"].includes(p.kind));
  all = [...zones, ...places.map((p) => ({ kind: "place", name: p.name, tier: p.tier, x: p.x_m - 0.4, y: p.y_m - 0.4, w: 0.8, d: 0.8 }))];
}
export function told(now) { closed = { places: new Set(now.places), roads: new Set(now.roads), zones: new Set(now.zones) }; }

// A road, by the names of its ends, whichever comes first; the API says the one with the lower number first.
function road(text) {
  const of = (name) => all.findIndex((t) => t.kind === "place" && t.name.toLowerCase() === name.trim().toLowerCase());
  const ends = text.split("..").map(of).sort((a, b) => a - b);
  if (ends.length !== 2 || ends.includes(-1)) return null;
  const [a, b] = ends.map((n) => all[n]), name = `${a.name}..${b.name}`;
  const x = Math.min(a.x, b.x) + 0.3, y = Math.min(a.y, b.y) + 0.3;
  if (!roads.has(name)) roads.set(name, { kind: "road", name, tier: a.tier, x, y, w: Math.max(a.x, b.x) + 0.5 - x, d: Math.max(a.y, b.y) + 0.5 - y });
  return roads.get(name);
}

const same = (a, b) => a.name === b.name && list(a) === list(b);
export const isClosed = (t) => closed[list(t)].has(t.name);
// Those that are closed; the API may have closed what the map does not draw by itself.
export const now = () => [...[...closed.zones].map((name) => ({ kind: "zone", name })), ...[...closed.places].map((name) => ({ kind: "place", name })), ...[...closed.roads].map((name) => road(name) ?? { kind: "road", name })].map((t) => all.find((k) => same(k, t)) || t);
// The smallest thing around a point of the map.
export const at = (x, y, offsets) => all.filter((t) => { const [dx, dy] = offsets[t.tier] || [0, 0]; return x >= t.x + dx && x <= t.x + dx + t.w && y >= t.y + dy && y <= t.y + dy + t.d; }).sort((a, b) => a.w * a.d - b.w * b.d)[0] ?? null;
export const named = (text) => { const name = text.trim().toLowerCase(); return all.find((t) => t.name.toLowerCase() === name) ?? road(name); };

// Hatched: stripes nine pixels apart, whatever the zoom.
export function hatch(c, t, [dx, dy], k, ink) {
  if (t.x === undefined) return;
  const x = t.x + dx, y = t.y + dy;
  c.save();
  c.beginPath(); c.rect(x, y, t.w, t.d); c.clip();
  c.globalAlpha = 0.6; c.fillStyle = ink.panel; c.fill(); c.globalAlpha = 1;
  c.strokeStyle = ink.soft; c.lineCap = "butt"; c.lineWidth = 2 / k;
  c.beginPath();
  for (let s = -t.d; s < t.w; s += 9 / k) { c.moveTo(x + s, y + t.d); c.lineTo(x + s + t.d, y); }
  c.stroke();
  c.restore();
  c.strokeStyle = ink.ink; c.lineWidth = 2 / k; c.strokeRect(x, y, t.w, t.d);
}
export function outline(c, t, [dx, dy], k, ink) {
  if (t.x === undefined) return;
  c.strokeStyle = ink.select; c.lineWidth = 3 / k; c.strokeRect(t.x + dx - 3 / k, t.y + dy - 3 / k, t.w + 6 / k, t.d + 6 / k);
}

const mark = (t) => (isClosed(t) ? h("span", { class: "mark closed" }, "Closed") : h("span", { class: "mark" }, "Open"));
async function set(t, close, repaint) {
  busy = true; repaint();
  const ask = () => request(close ? "PUT" : "DELETE", `/api/v1/floor/${list(t)}/${encodeURIComponent(t.name)}/closed`);
  // The change before may still be on its way to the control thread.
  const patient = (left) => ask().catch((e) => { if (e.problem?.type !== "urn:lightsout:problem:busy" || !left) throw e; return new Promise((done) => setTimeout(done, 1000)).then(() => patient(left - 1)); });
  try {
    await patient(10);
    toast(`${t.name} is ${close ? "closed" : "open again"}`);
    closed[list(t)][close ? "add" : "delete"](t.name); // the stream says the same in a moment
  } catch (e) { toast(e.message); }
  busy = false; repaint();
}

// One of them, with the button; `inside` is how many loads are seen there.
export function panel(box, t, inside, repaint) {
  const close = !isClosed(t), key = [t.name, close, inside, busy, may("operator")].join();
  if (box.dataset.key === key) return;
  const focused = box.contains(document.activeElement);
  box.dataset.key = key;
  const button = h("button", { class: `do ${close ? "" : "primary"}`, disabled: busy || !may("operator"), "aria-label": `${close ? "Close" : "Open"} ${t.name}`, onclick: () => set(t, close, repaint) }, close ? "Close" : "Open");
  fill(box, h("h2", {}, t.name), h("dl", {}, h("dt", {}, "What"), h("dd", {}, WORD[t.kind]), h("dt", {}, "State"), h("dd", {}, mark(t)), list(t) !== "zones" ? null : [h("dt", {}, "Loads"), h("dd", {}, inside)]),
    h("p", {}, close ? `When it is closed, ${MEANS[t.kind]}.` : `It is closed: ${MEANS[t.kind]}.`),
    button, may("operator") ? null : h("p", { class: "soft" }, "This needs the role operator: sign in first."),
    h("p", { class: "faint" }, "This keeps work away from people. What keeps machines away from them is the key switch. A restart of the gateway opens everything."));
  if (focused) button.focus();
}

// The list of what is closed, and the way to everything else for whoever does not point.
export function section(choose) {
  const shown = h("div", { id: "closed-list" }), names = h("datalist", { id: "closable" });
  const offer = () => {
    const text = input.value.trim().toLowerCase();
    fill(names, all.filter((t) => t.name.toLowerCase().includes(text)).slice(0, 50).map((t) => h("option", { value: t.name }, WORD[t.kind])));
  };
  const input = h("input", { name: "closable", list: "closable", autocomplete: "off", onfocus: offer, oninput: offer });
  const form = h("form", { class: "row find", onsubmit: (event) => {
    event.preventDefault();
    const found = named(input.value);
    if (!found) return toast(input.value ? `There is no tier, belt, place or road ${input.value}` : "Type the name of a tier, a belt or a place, or of a road: A..B");
    input.value = "";
    choose(found);
  } }, h("label", { class: "field" }, "Tier, belt, place or road", input), h("button", { class: "do", type: "submit" }, "Show"), names);
  const paint = (selected) => {
    const them = now(), key = them.map((t) => `${t.kind}/${t.name}/${selected === t}`).join();
    if (shown.dataset.key === key) return;
    const focused = document.activeElement?.dataset?.closed;
    shown.dataset.key = key;
    fill(shown, them.length ? h("table", { class: "vehicles" }, h("tbody", {}, them.map((t) => h("tr", { class: selected === t ? "on" : "" }, h("td", {}, h("button", { class: "link", "data-closed": t.name, onclick: () => choose(t) }, t.name)), h("td", {}, mark(t)))))) : h("p", { class: "soft" }, "Nothing is closed."));
    if (focused !== undefined) shown.querySelector(`[data-closed="${CSS.escape(focused)}"]`)?.focus();
  };
  return { element: h("section", { "aria-label": "Closed", hidden: all.length === 0 }, h("h2", {}, "Closed"), shown, form), paint };
}
