// A person's word that machines may go on: which of them, ticked one by one, or all.
import { ask, request, toast } from "/page/api.js";
import { may } from "/page/people.js";

const AT_ONCE = 100; // names in one request

// Names of those that wait, of those that are not back in AUTO yet, and the one somebody has looked at.
export function acknowledge(waiting, others, first) {
  if (!may("operator")) return toast("This needs the role operator: sign in first.");
  const fields = [{ text: "Make sure that nobody is in there and nothing lies in the way." }, { name: "machines", label: "These wait", ticks: waiting, value: [first] }];
  if (others.length) fields.push({ text: `Not back in AUTO yet: ${others.join(", ")}.` });
  ask("Which machines may go on?", fields, "They may go on", release);
}

async function release({ machines }) {
  if (!machines.length) throw new Error("Tick those that may go on.");
  const released = [], held = [];
  for (let n = 0; n < machines.length; n += AT_ONCE) {
    const answer = await request("POST", "/api/v1/acknowledge", { machines: machines.slice(n, n + AT_ONCE) });
    released.push(...answer.released);
    held.push(...answer.not_released.map((m) => `${m.machine}: ${m.why}`));
  }
  if (held.length) throw new Error(`${released.length} may go on. Not ${held.join("; ")}.`);
  toast(`${released.length === 1 ? `${released[0]} may` : `${released.length} machines may`} go on.`);
}
