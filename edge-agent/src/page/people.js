// Who is at the page: signing in and out, the first admin, users and tokens.
import { ask, fill, get, h, request, toast } from "/page/api.js";

const RANK = { viewer: 0, operator: 1, engineer: 2, admin: 3 };
export const me = { role: null, name: "anonymous", signed_in: false };
const listeners = [];
export const onMe = (f) => listeners.push(f);
export const may = (role) => me.role !== null && RANK[me.role] >= RANK[role];

export async function refresh() {
  const now = await get("/api/v1/me");
  Object.assign(me, { role: null }, now);
  const button = document.getElementById("who");
  button.textContent = me.signed_in ? `${me.name} · ${me.role}` : me.role ? `Sign in · ${me.role}` : "Sign in";
  button.setAttribute("aria-label", me.signed_in ? `Signed in as ${me.name}, ${me.role}` : "Sign in");
  document.getElementById("gateway").textContent = me.gateway;
  document.getElementById("unencrypted").hidden = !me.is_unencrypted;
  document.title = `${me.gateway} · Lightsout`;
  listeners.forEach((f) => f());
}

function signIn() {
  ask("Sign in", [{ name: "name", label: "Name", autocomplete: "username" }, { name: "password", label: "Password", type: "password", autocomplete: "current-password" }], "Sign in", async (form) => {
    await request("POST", "/api/v1/login", form);
    await refresh();
    toast(`Signed in as ${me.name}`);
  });
}

export function setup(token) {
  ask("The first admin", [
    { text: "Nobody can sign in yet. The one-time token stands in the log of the first start." },
    { name: "token", label: "One-time token", value: token },
    { name: "name", label: "Name", autocomplete: "username" },
    { name: "password", label: "Password, 8 characters or more", type: "password", autocomplete: "new-password" },
  ], "Make", async (form) => {
    await request("POST", "/api/v1/setup", form);
    history.replaceState(null, "", location.pathname);
    await refresh();
    toast(`Signed in as ${me.name}, admin`);
  });
}

async function users() {
  const dialog = document.getElementById("dialog");
  const all = await get("/api/v1/users");
  const remove = (u) => async () => { try { await request("DELETE", `/api/v1/users/${encodeURIComponent(u.name)}`); await users(); } catch (e) { toast(e.message); } };
  const roles = Object.keys(RANK).map((r) => [r, r]);
  const add = () => { dialog.close(); ask("A new user", [{ name: "name", label: "Name" }, { name: "role", label: "Role", options: roles, value: "operator" }, { name: "password", label: "Password, 8 characters or more", type: "password", autocomplete: "new-password" }], "Add", (f) => request("POST", "/api/v1/users", f)); };
  const token = () => { dialog.close(); ask("A new API token", [{ name: "name", label: "Name of the program" }, { name: "role", label: "Role", options: roles, value: "viewer" }], "Make", async (f) => { const t = await request("POST", "/api/v1/tokens", f); setTimeout(() => show(t.token), 0); }); };
  const show = (text) => { fill(dialog, h("h2", { id: "dialog-title" }, "The token, shown this once"), h("p", {}, h("code", {}, text)), h("button", { class: "do", onclick: () => dialog.close() }, "I have it")); dialog.showModal(); };
  fill(dialog, h("h2", { id: "dialog-title" }, "Users and tokens"),
    h("table", {}, h("thead", {}, h("tr", {}, ["Name", "Role", "Kind", "Since", ""].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, all.map((u) => h("tr", {}, h("td", {}, u.name), h("td", {}, u.role), h("td", {}, u.token ? "token" : "user"), h("td", {}, u.since.slice(0, 10)), h("td", {}, h("button", { class: "do small", onclick: remove(u), "aria-label": `Remove ${u.name}` }, "Remove")))))),
    h("p", { class: "row" }, h("button", { class: "do primary", onclick: add }, "Add a user"), h("button", { class: "do", onclick: token }, "Make a token"), h("button", { class: "do", onclick: () => dialog.close() }, "Close")));
  if (!dialog.open) dialog.showModal();
}

function account() {
  const dialog = document.getElementById("dialog");
  const out = async () => { await request("POST", "/api/v1/logout"); dialog.close(); await refresh(); };
  fill(dialog, h("h2", { id: "dialog-title" }, `${me.name}, ${me.role}`),
    h("p", { class: "row" }, may("admin") ? h("button", { class: "do", onclick: users }, "Users and tokens") : null, h("button", { class: "do primary", onclick: out }, "Sign out"), h("button", { class: "do", onclick: () => dialog.close() }, "Close")));
  dialog.showModal();
}

document.getElementById("who").addEventListener("click", () => (me.signed_in ? account() : signIn()));
