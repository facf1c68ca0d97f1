// The frame: tabs, theme, who is here, the alarm banner, and the one live stream that feeds the views.
import { Live } from "/page/api.js";
import { onMe, refresh, setup } from "/page/people.js";
import * as floor from "/page/floor.js";
import * as orders from "/page/orders.js";
import * as field from "/page/field.js";
import * as beat from "/page/beat.js";
import * as alarms from "/page/alarms.js";

const views = { floor, orders, field, beat, alarms };
const root = document.documentElement;

// Theme: as the system says, until somebody says otherwise.
const dark = matchMedia("(prefers-color-scheme: dark)");
function theme() {
  root.dataset.theme = localStorage.getItem("theme") || (dark.matches ? "dark" : "light");
  floor.repaint();
}
dark.addEventListener("change", theme);
document.getElementById("theme").addEventListener("click", () => {
  localStorage.setItem("theme", root.dataset.theme === "dark" ? "light" : "dark");
  theme();
});

// Tabs: a click, the arrow keys, or the address.
const tabs = [...document.querySelectorAll("[role=tab]")];
export function open(name, focus = false) {
  if (!views[name]) name = "floor";
  for (const tab of tabs) {
    const on = tab.id === `tab-${name}`;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    document.getElementById(tab.getAttribute("aria-controls")).hidden = !on;
    if (on && focus) tab.focus();
  }
  for (const [key, view] of Object.entries(views)) view.shown?.(key === name);
  if (location.hash.slice(1) !== name) history.replaceState(null, "", `#${name}`);
}
tabs.forEach((tab, n) => {
  tab.addEventListener("click", () => open(tab.id.slice(4)));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) open(tabs[(n + step + tabs.length) % tabs.length].id.slice(4), true);
  });
});
addEventListener("hashchange", () => open(location.hash.slice(1)));

// The clock and the state of the runtime.
const clock = document.getElementById("clock");
setInterval(() => { clock.textContent = new Date().toLocaleTimeString([], { hour12: false }); }, 500);
const state = document.getElementById("run-state");
const STATES = { running: ["Running", ""], none: ["Gathering", ""], starting: ["Starting", "warn"], recover: ["Reading the plant", "warn"], degraded: ["Degraded: late cycles", "warn"], fenced: ["Fenced: another gateway owns the plant", "bad"], safe: ["Stopped", "warn"] };

// The most urgent alarm nobody has acknowledged, on every view.
const banner = document.getElementById("banner");
const count = document.getElementById("alarm-count");
banner.addEventListener("click", () => open("alarms"));
function tellAlarms(list) {
  const unseen = list.filter((a) => a.state === "unacknowledged" || a.state === "returned");
  const active = list.filter((a) => a.state !== "shelved");
  const top = unseen.find((a) => a.priority === "critical" || a.priority === "high");
  count.hidden = active.length === 0;
  count.textContent = active.length;
  count.className = `count ${unseen[0]?.priority || ""}`;
  count.setAttribute("aria-label", `${active.length} alarms, ${unseen.length} not acknowledged`);
  banner.hidden = !top;
  if (top) alarms.paintBanner(banner, top);
}

async function start() {
  theme();
  const first = /^#setup=([0-9a-f]+)$/.exec(location.hash);
  await refresh();
  if (first) setup(first[1]);
  const live = new Live(["floor", "loads", "beat", "orders", "alarms", "field", "closed"]);
  live.onLost = (lost) => {
    document.getElementById("lost").hidden = !lost;
    document.body.classList.toggle("is-lost", lost);
    if (!lost) refresh().catch(() => {});
    if (!lost) floor.reload();
  };
  live.on("beat", (b) => {
    const [text, level] = b.alive ? STATES[b.run_state] || [b.run_state, "warn"] : ["No beat", "bad"];
    state.textContent = text;
    state.className = `state ${level}`;
  });
  live.on("alarms", tellAlarms);
  for (const view of Object.values(views)) view.start(live);
  open(first ? "floor" : location.hash.slice(1) || "floor");
  onMe(() => Object.values(views).forEach((v) => v.role?.()));
}
start().catch((e) => { document.getElementById("lost").hidden = false; document.getElementById("lost").textContent = e.message; setTimeout(() => location.reload(), 5000); });
