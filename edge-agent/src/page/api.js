// The API as the page uses it: requests, the live stream, and small helpers to build elements without ever parsing text as HTML.

export async function request(method, path, body) {
  const options = { method, headers: {}, credentials: "same-origin" };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  const text = await response.text();
  let json = null;
  try { json = text ? JSON.parse(text) : null; } catch { /* not JSON: the status says enough */ }
  if (!response.ok) {
    const error = new Error(json?.detail || json?.title || `${response.status} ${response.statusText}`);
    error.status = response.status;
    error.problem = json;
    throw error;
  }
  return json;
}
export const get = (path) => request("GET", path);

// One stream for the whole page. A browser comes back by itself; what was refused is tried again by us.
export class Live {
  constructor(topics) {
    this.topics = topics;
    this.handlers = new Map();
    this.last = 0;
    this.lost = false;
    this.onLost = () => {};
    setInterval(() => this.watch(), 500);
    this.open();
  }
  on(topic, handler) {
    this.handlers.set(topic, [...(this.handlers.get(topic) || []), handler]);
  }
  open() {
    this.source?.close();
    this.source = new EventSource(`/api/v1/live?topics=${this.topics.join(",")}`);
    this.opened = performance.now();
    for (const topic of this.topics) {
      this.source.addEventListener(topic, (event) => {
        this.last = performance.now();
        const data = JSON.parse(event.data);
        for (const handler of this.handlers.get(topic) || []) handler(data);
        this.tell(false);
      });
    }
  }
  watch() {
    const now = performance.now();
    // The beat comes every second: three without it, and what is shown is old.
    const silent = now - Math.max(this.last, this.opened);
    if (silent > 3000) this.tell(true);
    if (this.source.readyState === EventSource.CLOSED || silent > 6000) this.open();
  }
  tell(lost) {
    if (lost !== this.lost) {
      this.lost = lost;
      this.onLost(lost);
    }
  }
}

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className = value;
    else if (value === true) element.setAttribute(key, "");
    else element.setAttribute(key, value);
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}
export function s(tag, props = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(props)) element.setAttribute(key, value);
  element.append(...children.flat(Infinity));
  return element;
}
export const fill = (element, ...children) => element.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));

export function toast(text) {
  const box = document.getElementById("toast");
  box.textContent = text;
  box.classList.add("on");
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => box.classList.remove("on"), 4000);
}

// A dialog with a form: text, inputs, choices (`options`), boxes to tick (`ticks`). `send` throws what is then shown in it. `only: [name, value]` shows a field for that value of another one.
export function ask(title, fields, button, send) {
  const dialog = document.getElementById("dialog");
  const error = h("div", { class: "error", role: "alert" });
  const inputs = {}, conditions = [];
  const rows = fields.map((f) => {
    if (f.text) return h("p", { class: "soft" }, f.text);
    if (f.ticks) { const [row, input] = ticks(f); inputs[f.name] = input; return row; }
    const input = f.options
      ? h("select", { name: f.name }, f.options.map(([value, label]) => h("option", { value, selected: value === f.value }, label)))
      : h("input", { name: f.name, type: f.type || "text", value: f.value ?? "", min: f.min, max: f.max, step: f.step, required: f.required !== false, autocomplete: f.autocomplete || "off" });
    inputs[f.name] = input;
    const row = h("label", { class: "field" }, f.label, input);
    if (f.only) conditions.push(() => { row.hidden = inputs[f.only[0]].value !== f.only[1]; });
    return row;
  });
  const fits = () => conditions.forEach((c) => c());
  const form = h("form", {
    onchange: fits,
    onsubmit: async (event) => {
      event.preventDefault();
      error.textContent = "";
      try {
        await send(Object.fromEntries(Object.entries(inputs).map(([k, i]) => [k, i.value])));
        dialog.close();
      } catch (e) { error.textContent = e.message; }
    },
  }, h("h2", { id: "dialog-title" }, title), rows, error,
    h("div", { class: "row" }, h("button", { class: "do primary", type: "submit" }, button), h("button", { class: "do", type: "button", onclick: () => dialog.close() }, "Cancel")));
  fits();
  fill(dialog, form);
  dialog.showModal();
  form.querySelector("input, select")?.focus();
}

// Boxes to tick, with one for all of them; its value is what is ticked.
function ticks(f) {
  const boxes = f.ticks.map((value) => h("input", { type: "checkbox", value, checked: f.value.includes(value) }));
  const all = h("input", { type: "checkbox", name: "all", onchange: () => boxes.forEach((b) => { b.checked = all.checked; }) });
  const agree = () => { all.checked = boxes.every((b) => b.checked); };
  agree();
  const row = h("fieldset", { class: "ticks", onchange: agree }, h("legend", {}, f.label), h("label", {}, all, `all ${boxes.length}`), boxes.map((b) => h("label", {}, b, b.value)));
  return [row, { get value() { return boxes.filter((b) => b.checked).map((b) => b.value); } }];
}

export const time = (text) => (text ? new Date(text).toLocaleTimeString([], { hour12: false }) : "");
export function age(seconds) {
  if (seconds === undefined || seconds === null) return "";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}
export const us = (n) => (n < 1000 ? `${n} µs` : n < 1e6 ? `${(n / 1000).toFixed(n < 1e4 ? 1 : 0)} ms` : `${(n / 1e6).toFixed(1)} s`);
export const kilo = (n) => (n < 10000 ? String(Math.round(n)) : n < 1e7 ? `${(n / 1000).toFixed(n < 1e5 ? 1 : 0)} k` : `${(n / 1e6).toFixed(1)} M`);

export const kpi = (label, value, unit, level) => h("div", { class: `kpi ${level || ""}` }, h("div", { class: "v" }, value, unit ? h("small", {}, ` ${unit}`) : null), h("div", { class: "k" }, label));
