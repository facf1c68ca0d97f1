// Orders: give one, find one, raise it, withdraw it, read its story.
import { ask, fill, get, h, request, time, toast } from "/page/api.js";
import { may } from "/page/people.js";

const FILTERS = [["open", "Under way"], ["queue", "Queue"], ["running", "Running"], ["held", "To be decided"], ["late", "Late"], ["done", "Done"], ["failed", "Refused or given up"]];
const OPEN = new Set(["submitted", "accepted", "running", "held"]);
const FITS = {
  open: (o) => OPEN.has(o.state), queue: (o) => o.state === "submitted" || o.state === "accepted", running: (o) => o.state === "running", held: (o) => o.state === "held",
  late: (o) => o.late, done: (o) => o.state === "completed", failed: (o) => o.state === "rejected" || o.state === "failed",
};
const CLASSES = ["0 rush", "1", "2", "3 bulk"];
const STATES = { submitted: ["handed in", ""], accepted: ["waits", ""], running: ["under way", "good"], held: ["held", "warn"], completed: ["done", "good"], rejected: ["refused", "warn"], failed: ["given up", "warn"] };
let all = [], filter = "open", chosen = null, rows, chips, story, button, timer, visible = false;

export function start(stream) {
  const box = document.getElementById("orders");
  chips = h("div", { class: "chips", role: "group", "aria-label": "Which orders" });
  rows = h("tbody", {});
  story = h("aside", { class: "panel", "aria-live": "polite", "aria-label": "The order's story" });
  button = h("button", { class: "do primary", onclick: give }, "New order");
  fill(box, h("div", { class: "split" },
    h("div", {}, h("div", { class: "bar-row" }, chips, button),
      h("div", { class: "panel scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Order", "What", "Load", "Class", "State", "Taken", "Took", ""].map((t) => h("th", { scope: "col" }, t)))), rows))), story));
  stream.on("orders", (list) => { all = list; paint(); });
  role();
  paintStory();
}
export function shown(on) { visible = on; if (on) { paint(); paintStory(); } }
export function role() { if (button) { button.disabled = !may("operator"); button.title = may("operator") ? "" : "This needs the role operator: sign in first"; paint(true); } }

function paint(force) {
  if (!visible && !force) return;
  fill(chips, FILTERS.map(([key, label]) => h("button", { "aria-pressed": String(filter === key), onclick: () => { filter = key; paint(); } }, `${label}  ${all.filter(FITS[key]).length}`)));
  const list = all.filter(FITS[filter]).slice(0, 200);
  const key = JSON.stringify([list, chosen, may("operator")]);
  if (rows.dataset.key === key || rows.contains(document.activeElement) && document.activeElement.tagName === "SELECT") return;
  rows.dataset.key = key;
  const focused = document.activeElement?.dataset?.order;
  fill(rows, list.length ? list.map(row) : h("tr", {}, h("td", { colspan: "8", class: "empty" }, filter === "late" ? "No order is late." : "None.")));
  if (focused) rows.querySelector(`[data-order="${focused}"]`)?.focus();
}
function row(o) {
  const [text, mark] = STATES[o.state] || [o.state, ""];
  const open = OPEN.has(o.state);
  const took = o.ended && o.taken ? `${Math.max(0, Math.round((Date.parse(o.ended) - Date.parse(o.taken)) / 1000))} s` : "";
  const klass = open && may("operator") && !o.found
    ? h("select", { class: "small", "aria-label": `Class of order ${o.id}`, onchange: (e) => send("PATCH", o.id, { class: Number(e.target.value) }, `Order ${name(o)} is class ${e.target.value}`) }, CLASSES.map((c, n) => h("option", { value: n, selected: o.class === n }, c)))
    : CLASSES[o.class];
  return h("tr", { class: `pick ${chosen === o.id ? "on" : ""}`, onclick: (e) => { if (!e.target.closest("select, .act")) choose(o.id); } },
    h("td", {}, h("button", { class: "link", "data-order": o.id }, name(o))), h("td", {}, o.kind, o.found ? h("span", { class: "faint" }, " by itself") : null), h("td", {}, o.load), h("td", {}, klass),
    h("td", {}, h("span", { class: `mark ${o.late ? "warn" : mark}` }, o.late ? "late" : o.reason === "withdrawn" ? "withdrawn" : text), o.reason && o.reason !== "withdrawn" ? h("div", { class: "faint" }, o.reason) : null),
    h("td", {}, time(o.taken)), h("td", { class: "num" }, took),
    h("td", {}, o.state === "held" && may("operator") ? h("button", { class: "do small act", "aria-label": `Decide on order ${o.id}`, onclick: () => decide(o) }, "Decide")
      : open && may("operator") ? h("button", { class: "do small act", "aria-label": `Withdraw order ${o.id}`, onclick: () => withdraw(o) }, "Withdraw") : null));
}
function terms(o) {
  const told = [o.stops && `goes to ${o.stops.map((s) => (s.program === undefined ? s.at : `${s.at} (program ${s.program})`)).join(", then ")}`, o.due && `due ${time(o.due)}`, o.tenant && `for ${o.tenant}`,
    o.group && `number ${o.number ?? 0} of group ${o.group}`, o.after && `after order ${o.after}`].filter(Boolean);
  return told.length ? h("p", { class: "soft" }, told.join("; ")) : null;
}
const name = (o) => (o.found ? `A${o.id & 0x7fffffff}` : String(o.id));

async function send(method, id, body, done) {
  try { await request(method, `/api/v1/orders/${id}`, body); toast(done); } catch (e) { toast(e.message); }
}
function withdraw(o) {
  ask(`Withdraw order ${name(o)}?`, [{ text: `What a machine is doing with load ${o.load} is brought to its end; then nothing more is done for this order.` }], "Withdraw", () => request("DELETE", `/api/v1/orders/${o.id}`));
}
function decide(o) {
  ask(`What becomes of order ${name(o)}?`, [
    { text: `${o.kind} load ${o.load}: ${o.reason}.` },
    { name: "decision", label: "It", options: [["go_on", "goes on, from where its load is seen"], ["done", "is done"], ["give_up", "is given up"]] },
  ], "Decide", (f) => request("POST", `/api/v1/orders/${o.id}/decision`, { decision: f.decision }));
}
function give() {
  ask("A new order", [
    { name: "kind", label: "What", options: [["retrieve", "retrieve: out of the rack and the plant"], ["store", "store: into the rack"], ["process", "process: through a robot cell and back"], ["route", "route: from stop to stop"]] },
    { name: "load", label: "Load, the number on its label", type: "number", min: 1, max: 4294967295 },
    { name: "class", label: "Class", options: CLASSES.map((c, n) => [String(n), c]), value: "1" },
    { name: "station", label: "Cell or group of cells; empty: any", required: false, only: ["kind", "process"] },
    { name: "program", label: "Program of the cell", type: "number", min: 1, max: 65535, required: false, only: ["kind", "process"] },
    { name: "stops", label: "Stops, as in: weld 2, outside", required: false, only: ["kind", "route"] },
    { name: "due", label: "Due: a time, or how long from now as 10m", required: false },
    { name: "key", label: "Key: the same key again is the same order", required: false },
  ], "Give the order", async (f) => {
    const order = { kind: f.kind, load: Number(f.load), class: Number(f.class) };
    if (f.kind === "process" && f.program) order.program = Number(f.program);
    if (f.kind === "process" && f.station) order.station = f.station.trim();
    if (f.kind === "route") order.stops = f.stops.split(",").map(stop).filter((s) => s.at);
    if (f.due) order.due = f.due;
    if (f.key) order.key = f.key;
    const made = await request("POST", "/api/v1/orders", order);
    toast(`Order ${made.id} is taken`);
    filter = "open";
    choose(made.id, true);
  });
}

function stop(text) {
  const [at, program] = text.trim().split(/\s+/);
  return program ? { at, program: Number(program) } : { at };
}

function choose(id, keep) { chosen = chosen === id && !keep ? null : id; paint(); paintStory(); }
async function paintStory() {
  clearTimeout(timer);
  if (chosen === null) { fill(story, h("h2", {}, "The story of an order"), h("p", { class: "soft" }, "Choose an order to see what happened to it, step by step.")); return; }
  try {
    const o = await get(`/api/v1/orders/${chosen}`);
    const focus = story.contains(document.activeElement);
    fill(story, h("h2", {}, `Order ${name(o)}`), h("p", {}, `${o.kind} load ${o.load}, class ${CLASSES[o.class]}`, o.key ? h("span", { class: "soft" }, `, key ${o.key}`) : null),
      terms(o),
      h("ol", { class: "story" }, o.story.map((s) => h("li", {}, h("time", { datetime: s.time }, time(s.time)), s.what)), OPEN.has(o.state) ? h("li", { class: "soft" }, "…") : null));
    if (focus) story.focus();
  } catch (e) { fill(story, h("p", { class: "soft" }, e.message)); }
  if (visible) timer = setTimeout(paintStory, 1000);
}
