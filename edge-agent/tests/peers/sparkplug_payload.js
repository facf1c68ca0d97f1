// What npm's sparkplug-payload, the most used decoder for JavaScript, makes of messages: a line of topic and hexadecimal in, a line of JSON out.
"use strict";
const { decodePayload } = require("sparkplug-payload").get("spBv1.0");
const readline = require("readline");

// 64 bits come as objects of their own: as texts, with the sign of the type that the metric has.
function plain(value, type) {
  if (value === null || value === undefined) return null;
  if (typeof value === "object" && "low" in value && "high" in value) {
    return (type === "UInt64" ? value.toUnsigned() : value).toString();
  }
  if (value instanceof Uint8Array) return Buffer.from(value).toString("hex");
  if (Array.isArray(value)) return value.map((v) => plain(v));
  if (typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v, value.type)]));
  return typeof value === "number" ? String(value) : value;
}

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const [topic, hex] = line.split(" ");
  try {
    const { metrics } = decodePayload(Buffer.from(hex, "hex"));
    const shown = (metrics || []).map((m) => ({ name: m.name, type: m.type, value: plain(m.value, m.type), properties: plain(m.properties) }));
    console.log(JSON.stringify({ topic, metrics: shown }));
  } catch (e) {
    console.log(JSON.stringify({ topic, error: String(e) }));
  }
});
