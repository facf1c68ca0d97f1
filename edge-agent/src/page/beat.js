// The beat: how long a cycle takes, how late it starts, what was missed; and how telemetry is doing.
import { age, fill, h, kilo, kpi, s, us } from "/page/api.js";

let kpis, exec, wake, traces, visible = false, last = null, prev = null;
const KEEP = 300; // seconds of traces
const series = { exec: [], wake: [], missed: [], waiting: [], delivered: [], age: [] };

export function start(stream) {
  kpis = h("div", { class: "kpis many" });
  exec = h("div", { class: "panel" });
  wake = h("div", { class: "panel" });
  traces = h("div", { class: "two" });
  fill(document.getElementById("beat"), kpis, h("div", { class: "stack" }, h("div", { class: "two" }, exec, wake), traces));
  stream.on("beat", (b) => {
    const seconds = prev ? Math.max(0.2, (b.up_ms - prev.up_ms) / 1000) : 1;
    const fresh = prev && b.up_ms > prev.up_ms;
    if (prev && b.up_ms < prev.up_ms) { Object.values(series).forEach((l) => { l.length = 0; }); prev = null; }
    const add = (name, value) => { series[name].push(value); if (series[name].length > KEEP) series[name].shift(); };
    if (fresh) {
      add("exec", b.exec.p99_us); add("wake", b.wake.p99_us); add("missed", b.missed - prev.missed); add("waiting", b.spool.waiting);
      add("delivered", Math.max(0, b.spool.delivered - prev.spool.delivered) / seconds); add("age", b.image_age_ms);
      b.rate = Math.max(0, b.cycles - prev.cycles) / seconds;
    }
    prev = last = b;
    paint();
  });
}
export function shown(on) { visible = on; paint(); }

function paint() {
  if (!visible || !last) return;
  const b = last, ratio = b.cycles ? (100 * b.missed) / (b.cycles + b.missed) : 0;
  fill(kpis, kpi("Cycles a second", b.rate ? b.rate.toFixed(0) : "…"), kpi("Missed", kilo(b.missed), ratio >= 0.01 ? `${ratio.toFixed(2)} %` : "", ratio > 1 ? "warn" : ""), kpi("99 % of cycles take less than", us(b.exec.p99_us)),
    kpi("99 % start late by less than", us(b.wake.p99_us)), kpi("Age of the input image", String(b.image_age_ms), "ms", b.image_age_ms > 500 ? "warn" : ""),
    kpi(b.spool.connected ? "Messages that wait" : "Messages wait, no broker", kilo(b.spool.waiting), "", b.spool.connected ? "" : "warn"), kpi(b.spool.full_in_s === undefined ? "The spool would last" : "The spool is full in", age(b.spool.full_in_s ?? b.spool.lasts_s) || "…", "", b.spool.failing ? "bad" : b.spool.full_in_s !== undefined && b.spool.full_in_s < 3600 ? "warn" : ""), kpi("Values lost", kilo(b.spool.lost), "", b.spool.lost ? "warn" : ""));
  fill(exec, h("h2", {}, "Time a cycle takes"), facts(b.exec), bars(b.exec, "Cycles by the time they took"));
  fill(wake, h("h2", {}, "How late a cycle starts"), facts(b.wake, false), bars(b.wake, "Cycles by how late they started"));
  fill(traces, trace("Cycles missed, each second", series.missed, (v) => String(v)), trace("Lateness, 99 in 100", series.wake, us), trace("Values delivered a second", series.delivered, (v) => kilo(v)), trace("Messages that wait for the broker", series.waiting, kilo));
}
const facts = (x, own = true) => h("div", { class: "row soft" }, `half below ${us(x.p50_us)} · 99 % below ${us(x.p99_us)} · 99.9 % below ${us(x.p999_us)} · longest ${us(x.max_us)} · ${kilo(x.count)} cycles since the start ${age(last.up_ms / 1000)} ago${!own || last.run_state === "none" ? "" : last.realtime ? " · real time granted" : " · without real time"}`);

// A logarithmic height: one late cycle in a million has to be seen.
function bars(x, label) {
  const W = 600, H = 210, base = 178, list = x.buckets;
  if (!list.length) return h("p", { class: "soft" }, "No cycle yet.");
  const top = Math.log10(Math.max(...list.map(([, n]) => n)) + 1), w = Math.min(64, (W - 10) / list.length);
  const words = list.filter(([, n]) => n).map(([edge, n]) => `${n} up to ${us(edge)}`).join(", ");
  return s("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${label}: ${words}` },
    list.map(([edge, n], k) => {
      const high = n ? Math.max(3, (Math.log10(n + 1) / top) * (base - 30)) : 0, x0 = 5 + k * w;
      return [s("rect", { class: edge > 10000 ? "bar late" : "bar", x: x0 + 2, y: base - high, width: w - 4, height: high }), n ? s("text", { x: x0 + w / 2, y: base - high - 6, "text-anchor": "middle" }, kilo(n)) : [], w > 34 || k % 2 === 0 ? s("text", { x: x0 + w / 2, y: base + 18, "text-anchor": "middle" }, us(edge)) : []];
    }), s("line", { class: "axis", x1: 0, x2: W, y1: base, y2: base }));
}
function trace(title, values, unit) {
  const W = 600, H = 130, base = 104;
  if (values.length < 2) return h("div", { class: "panel" }, h("h2", {}, title), h("p", { class: "soft" }, "…"));
  const most = Math.max(...values, 1), at = (v, n) => `${(W - ((values.length - 1 - n) * W) / (KEEP - 1)).toFixed(1)},${(base - (v / most) * (base - 22)).toFixed(1)}`;
  const first = W - ((values.length - 1) * W) / (KEEP - 1), points = values.map(at).join(" ");
  return h("div", { class: "panel" }, h("div", { class: "head" }, h("h2", {}, title), h("span", { class: "soft" }, `now ${unit(values.at(-1))}, most ${unit(Math.max(...values))}`)),
    s("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title}: now ${unit(values.at(-1))}, most ${unit(Math.max(...values))} in the last ${values.length} seconds` },
      s("polygon", { class: "area", points: `${first},${base} ${points} ${W},${base}` }), s("polyline", { class: "trace", points }), s("line", { class: "axis", x1: 0, x2: W, y1: base, y2: base }),
      s("text", { x: W, y: base + 20, "text-anchor": "end" }, "now"), s("text", { x: 0, y: base + 20 }, "5 min ago")));
}
