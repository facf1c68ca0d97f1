// The field: lines and their devices, tags with value, quality and age, and whom the OPC UA lines trust.
import { age, ask, fill, get, h, kilo, request, s, toast, us } from "/page/api.js";
import { may } from "/page/people.js";

const STATE = { up: ["up", "good"], connecting: ["connecting", "warn"], down: ["down", "bad"], untrusted: ["not trusted", "bad"], denied: ["refused by the server", "bad"], silent: ["does not answer", "bad"], unknown: ["not read yet", "warn"] };
const QUALITY = { good: "good", uncertain: "warn", bad: "bad" };
let lines, tags, total, query, bad, certs, timer, visible = false, states = "", before = new Map();
const history = new Map();

export function start(stream) {
  lines = h("div", { class: "two" });
  query = h("input", { type: "search", placeholder: "device/tag", "aria-label": "Search for tags", oninput: again });
  bad = h("input", { type: "checkbox", id: "only-bad", onchange: again });
  tags = h("tbody", {});
  total = h("span", { class: "soft", role: "status" });
  certs = h("div", {});
  fill(document.getElementById("field"), h("div", { class: "stack" }, lines, certs,
    h("div", { class: "panel" }, h("div", { class: "head mid" }, h("h2", {}, "Tags"), query, h("label", { class: "check", for: "only-bad" }, bad, "only what is not good, and why"), total),
      h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["Tag", "Value", "", "Quality", "Age", ""].map((t, n) => h("th", { scope: "col", class: n === 1 ? "num" : "" }, t)))), tags)))));
  stream.on("field", (list) => { if (visible) paintLines(list); });
}
export function shown(on) { visible = on; clearTimeout(timer); if (on) { refresh(); trust(); } }
export function role() { if (visible) { refresh(); trust(); } }
function again() { clearTimeout(timer); timer = setTimeout(refresh, 150); }

function paintLines(list) {
  const now = performance.now(), told = list.map((l) => `${l.name} ${l.state}`).join();
  if (told !== states) { states = told; trust(); } // a server may have come whom nobody trusts yet
  fill(lines, list.map((l) => {
    const [text, mark] = STATE[l.state] || [l.state, "warn"];
    const then = before.get(l.name);
    const rate = then ? Math.max(0, ((l.readings - then.readings) * 1000) / (now - then.at)) : null;
    before.set(l.name, { readings: l.readings, at: now });
    const off = l.devices.filter((d) => d.state !== "up");
    const shown = [...off, ...l.devices.filter((d) => d.state === "up")].slice(0, 8);
    const all = l.good + l.uncertain + l.bad;
    return h("div", { class: "panel" }, h("div", { class: "head" }, h("h2", {}, l.name), h("span", { class: `mark ${mark}` }, text), l.insecure ? h("span", { class: "mark warn" }, "no security") : null),
      h("div", { class: "row soft" }, all === 1 ? "1 tag" : `${kilo(all)} tags`, l.bad ? h("span", { class: "mark bad" }, `${l.bad} bad`) : null, l.uncertain ? h("span", { class: "mark warn" }, `${l.uncertain} uncertain`) : null, l.quarantined ? h("span", { class: "mark warn" }, `${l.quarantined} refused by their device`) : null),
      h("div", { class: "row soft" }, rate === null ? "" : `${kilo(rate)} readings a second`, l.poll_p50_us ? ` · a poll takes ${us(l.poll_p50_us)}, 99 in 100 ${us(l.poll_p99_us)}` : "", l.timeouts ? ` · ${kilo(l.timeouts)} not answered` : "", l.failures ? ` · ${kilo(l.failures)} links lost` : ""),
      h("table", {}, h("tbody", {}, shown.map((d) => { const [t, m] = STATE[d.state] || [d.state, ""]; return h("tr", {}, h("td", {}, d.name), h("td", {}, h("span", { class: `mark ${m}` }, t)), h("td", { class: "num soft" }, d.age_s === undefined ? "" : `read ${age(d.age_s)} ago`)); }))),
      l.devices.length > shown.length ? h("p", { class: "faint" }, `and ${l.devices.length - shown.length} more`) : null);
  }));
}

async function refresh() {
  clearTimeout(timer);
  const asked = new URLSearchParams({ limit: "100" });
  if (query.value.trim()) asked.set("q", query.value.trim());
  if (bad.checked) asked.set("bad", "true");
  try {
    const found = await get(`/api/v1/tags?${asked}`);
    total.textContent = found.total > found.tags.length ? `${found.tags.length} of ${found.total} shown` : `${found.total} found`;
    for (const t of found.tags) if (typeof t.value === "number" || typeof t.value === "boolean") {
      const seen = history.get(t.tag) || [];
      seen.push(Number(t.value));
      if (seen.length > 60) seen.shift();
      history.set(t.tag, seen);
    }
    if (history.size > 2000) history.clear();
    const focused = document.activeElement?.dataset?.tag;
    fill(tags, found.tags.length ? found.tags.map(row) : h("tr", {}, h("td", { colspan: "6", class: "empty" }, bad.checked ? "Everything is good." : "No such tag.")));
    if (focused) tags.querySelector(`[data-tag="${CSS.escape(focused)}"]`)?.focus();
  } catch (e) { total.textContent = e.message; }
  if (visible) timer = setTimeout(refresh, 1000);
}
function shownValue(v) {
  if (v === null) return "—";
  if (typeof v === "number") return Number.isInteger(v) ? String(v) : String(Number(v.toPrecision(7)));
  if (Array.isArray(v)) return `[${v.length} words]`;
  return String(v);
}
function row(t) {
  const write = t.write && may("operator") ? h("button", { class: "do small", "data-tag": t.tag, "aria-label": `Write ${t.tag}`, onclick: () => writeTag(t) }, "Write") : null;
  return h("tr", {}, h("td", {}, t.tag, t.description ? h("div", { class: "faint" }, t.description) : null), h("td", { class: "num", title: range(t) }, h("strong", {}, shownValue(t.value)), t.unit && t.value !== null ? h("span", { class: "soft" }, ` ${t.unit}`) : null), h("td", {}, spark(history.get(t.tag), t.low, t.high)),
    h("td", {}, h("span", { class: `mark ${QUALITY[t.quality]}` }, t.quality), t.cause ? h("div", { class: "faint" }, t.cause) : null), h("td", { title: t.value === null ? undefined : `since ${t.source_time}` }, t.value === null ? "" : age(t.age_s), t.value !== null && t.unchanged_s - t.age_s >= 60 ? h("div", { class: "faint" }, `the same for ${age(t.unchanged_s)}`) : null, t.clock ? h("div", { class: "faint" }, "by a clock nobody has set") : null), h("td", {}, write));
}
// What a tag is shown over, where its profile says so: "0 to 16 bar".
function range(t) {
  if (t.low === undefined && t.high === undefined) return undefined;
  return `${t.low ?? "any"} to ${t.high ?? "any"}${t.unit ? ` ${t.unit}` : ""}`;
}
// Over the tag's own range where it has one, so that a valve that trembles does not look like one that opens.
function spark(values, from, to) {
  if (!values || values.length < 3) return "";
  const low = Math.min(from ?? Infinity, ...values), span = Math.max(to ?? -Infinity, ...values) - low || 1;
  const points = values.map((v, n) => `${((n * 118) / (values.length - 1) + 1).toFixed(1)},${(25 - ((v - low) / span) * 22).toFixed(1)}`).join(" ");
  return s("svg", { class: "spark", viewBox: "0 0 120 28", "aria-hidden": "true" }, s("polyline", { class: "trace", points }));
}
function writeTag(t) {
  const w = t.write, allowed = w.min !== undefined || w.max !== undefined ? `${w.min ?? "any"} to ${w.max ?? "any"}` : "any value";
  ask(`Write ${t.tag}`, [...(t.description ? [{ text: t.description }] : []), { text: `Now ${shownValue(t.value)}${t.unit ? ` ${t.unit}` : ""}. May be ${allowed}.` }, { name: "value", label: "New value" }], "Write", async (f) => {
    const text = f.value.trim();
    const value = text === "true" ? true : text === "false" ? false : text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text;
    await request("POST", "/api/v1/writes", { tag: t.tag, value });
    toast(`${t.tag} is written and read back`);
  });
}

// Certificates: who waits for trust comes first.
async function trust() {
  try {
    const all = await get("/api/v1/certificates");
    const waiting = all.filter((c) => c.place !== "own");
    fill(certs, waiting.length ? h("div", { class: "panel scroll" }, h("h2", {}, "Certificates of OPC UA servers"),
      h("table", {}, h("tbody", {}, waiting.map((c) => h("tr", {}, h("td", {}, h("span", { class: `mark ${c.place === "trusted" ? "good" : "bad"}` }, c.place === "trusted" ? "trusted" : "waits for trust")), h("td", { class: "wrap" }, c.subject, h("div", { class: "faint" }, c.thumbprint)), h("td", { class: "soft" }, `until ${c.valid_until}`),
        h("td", {}, h("button", { class: "do small", disabled: !may("engineer"), onclick: () => decide(c) }, c.place === "trusted" ? "Reject" : "Trust"))))))) : null);
  } catch { fill(certs); }
}
function decide(c) {
  const verb = c.place === "trusted" ? "reject" : "trust";
  ask(`${verb === "trust" ? "Trust" : "Reject"} this server?`, [{ text: c.subject }, { text: `Thumbprint ${c.thumbprint}` }, ...(verb === "trust" ? [{ text: "Compare the thumbprint with the one the server itself shows." }] : [])], verb === "trust" ? "Trust" : "Reject", async () => {
    await request("POST", `/api/v1/certificates/${verb}`, { thumbprint: c.thumbprint });
    await trust();
  });
}
