// Alarms after ISA-18.2: what wants a person, how soon, and what to do.
import { ask, fill, get, h, request, time, toast } from "/page/api.js";
import { may } from "/page/people.js";

const RANK = { critical: "1", high: "2", medium: "3", low: "4" };
const STATES = { unacknowledged: "not acknowledged", acknowledged: "acknowledged", returned: "over, not acknowledged", shelved: "shelved" };
let rows, past, tableBox, list = [], visible = false;

export const prio = (p) => h("span", { class: `prio ${p}`, role: "img", "aria-label": `priority ${RANK[p]}, ${p}` }, RANK[p]);
export function paintBanner(banner, a) {
  fill(banner, prio(a.priority), h("strong", {}, `${a.subject}: `), h("span", {}, a.means));
}

export function start(stream) {
  rows = h("tbody", {});
  past = h("ol", { class: "story" });
  tableBox = h("details", { class: "panel" }, h("summary", {}, "Every alarm there is, and what to do about it"));
  tableBox.addEventListener("toggle", everyAlarm, { once: true });
  const all = h("button", { class: "do", onclick: acknowledgeAll }, "Acknowledge all");
  fill(document.getElementById("alarms"), h("div", { class: "split" },
    h("div", { class: "stack" }, h("div", { class: "panel scroll" }, h("div", { class: "head mid" }, h("h2", {}, "Alarms"), all), h("table", {}, h("thead", {}, h("tr", {}, ["", "What", "Since", "State", "What to do", ""].map((t) => h("th", { scope: "col" }, t)))), rows)), tableBox),
    h("aside", { class: "panel", "aria-label": "What happened" }, h("h2", {}, "What happened"), past)));
  stream.on("alarms", (l) => { list = l; paint(); });
}
export function shown(on) { visible = on; paint(); }
export function role() { paint(); }

function paint() {
  if (!visible || !rows) return;
  const focused = document.activeElement?.dataset?.key;
  fill(rows, list.length ? list.map(row) : h("tr", {}, h("td", { colspan: "6", class: "empty" }, "No alarms. Everything is as it should be.")));
  if (focused) rows.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  history();
}
function row(a) {
  const unseen = a.state === "unacknowledged" || a.state === "returned", key = `${a.alarm} ${a.subject}`;
  const state = a.state === "shelved" ? `shelved until ${time(a.until)} by ${a.by}: ${a.reason}` : STATES[a.state] + (a.by ? ` by ${a.by}` : "");
  const act = may("operator");
  return h("tr", { class: unseen ? `unseen ${a.priority}` : "" }, h("td", {}, prio(a.priority)),
    h("td", { class: "wrap" }, h("div", {}, a.subject, h("span", { class: "faint" }, ` ${a.alarm}`)), h("div", { class: "faint" }, a.means, " ", a.detail)), h("td", {}, time(a.since)), h("td", {}, state), h("td", { class: "wrap faint" }, a.action),
    h("td", {}, h("div", { class: "row" }, unseen ? h("button", { class: "do small", disabled: !act, "data-key": `a ${key}`, "aria-label": `Acknowledge ${key}`, onclick: () => send("acknowledge", a) }, "Acknowledge") : null,
      a.state === "shelved" ? h("button", { class: "do small", disabled: !act, "data-key": `u ${key}`, onclick: () => send("unshelve", a) }, "Unshelve") : h("button", { class: "do small", disabled: !act, "data-key": `s ${key}`, "aria-label": `Shelve ${key}`, onclick: () => shelve(a) }, "Shelve"))));
}
const send = async (verb, a, more) => {
  try { await request("POST", `/api/v1/alarms/${verb}`, { alarm: a.alarm, subject: a.subject, ...more }); } catch (e) { if (more) throw e; toast(e.message); }
};
function shelve(a) {
  ask(`Shelve ${a.alarm}, ${a.subject}`, [{ name: "minutes", label: "For how long", options: [["15", "15 minutes"], ["60", "an hour"], ["240", "four hours"], ["480", "a shift, eight hours"]], value: "60" }, { name: "reason", label: "Why" }], "Shelve", (f) => send("shelve", a, { minutes: Number(f.minutes), reason: f.reason }));
}
async function acknowledgeAll() {
  if (!may("operator")) return toast("This needs the role operator: sign in first.");
  for (const a of list.filter((x) => x.state === "unacknowledged" || x.state === "returned")) await send("acknowledge", a);
}
async function history() {
  try {
    const h24 = await get("/api/v1/alarms/history");
    fill(past, h24.slice(0, 30).map((c) => h("li", {}, h("time", { datetime: c.time }, time(c.time)), `${c.subject} ${c.alarm}: ${c.change}${c.by ? ` by ${c.by}` : ""}`)), h24.length ? null : h("li", { class: "soft" }, "nothing yet"));
  } catch { /* the next change tries again */ }
}
async function everyAlarm() {
  try {
    const all = await get("/api/v1/alarms/table");
    tableBox.append(h("div", { class: "scroll" }, h("table", {}, h("tbody", {}, all.map((r) => h("tr", {}, h("td", {}, prio(r.priority)), h("td", {}, r.alarm), h("td", { class: "wrap" }, r.means), h("td", { class: "wrap faint" }, r.action)))))));
  } catch (e) { toast(e.message); }
}
