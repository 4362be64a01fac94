// What the pages gain from a script: they follow what happens, and obey the keyboard. Without it they only need a reload.
"use strict";

// -- following ---------------------------------------------------------------------------

const stream = document.body.dataset.live;
let source = null;
let asking = false;
let again = false;

function listen() {
  if (!stream || source || document.hidden) return;
  source = new EventSource(stream);
  source.addEventListener("changed", renew);
}

function rest() {
  if (source) source.close();
  source = null;
}

// A tab that nobody sees holds no connection; when it is seen again it looks at once.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return rest();
  if (stream && !source) renew();
  listen();
});
window.addEventListener("pagehide", rest);

async function renew() {
  if (asking) { again = true; return; }
  asking = true;
  try {
    const address = new URL(location.href);
    address.searchParams.delete("done");
    const answer = await fetch(address, { headers: { Accept: "text/html" }, redirect: "error" });
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelectorAll("[data-part]").forEach((part) => replace(part, fresh));
    localTimes();
    if (!fresh.body.dataset.live) rest();
  } catch {
    // The next event asks again.
  } finally {
    asking = false;
    if (again) { again = false; renew(); }
  }
}

// What a part said when it came, before titles were added and details opened.
const raw = new WeakMap();

function replace(part, fresh) {
  const next = fresh.querySelector(`[data-part="${part.dataset.part}"]`);
  if (!next || next.outerHTML === raw.get(part)) return;
  if (part.contains(document.activeElement) && document.activeElement.value) return; // somebody is writing
  const opened = new Map([...part.querySelectorAll("details[id]")].map((each) => [each.id, each.open]));
  const shown = document.importNode(next, true);
  raw.set(shown, next.outerHTML);
  shown.querySelectorAll("details[id]").forEach((each) => {
    if (opened.has(each.id)) each.open = opened.get(each.id);
  });
  part.replaceWith(shown);
  if (shown.dataset.part === "now") shown.classList.add("fresh");
}

// -- the keyboard ------------------------------------------------------------------------

const places = { s: "/console", l: "/console/lanes", r: "/console/routes", p: "/console/reports", e: "/console/explain", a: "/console/audit" };
let going = 0;

document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName)) { if (event.key === "Escape") at.blur(); return; }
  if (event.key === "/") {
    const box = document.getElementById("q");
    event.preventDefault();
    if (box) { box.focus(); box.select(); } else location.href = "/console";
  } else if (Date.now() - going < 1500 && places[event.key]) {
    location.href = places[event.key];
  } else if (event.key === "g") {
    going = Date.now();
  } else if (event.key === "j" || event.key === "k") {
    const links = [...document.querySelectorAll(".rows tbody a, .attempt > summary")].filter((each) => each.matches(".subject a, summary"));
    const here = links.indexOf(document.activeElement);
    const next = links[here < 0 ? 0 : Math.min(Math.max(here + (event.key === "j" ? 1 : -1), 0), links.length - 1)];
    if (next) { next.focus(); event.preventDefault(); }
  }
});

// -- small things ------------------------------------------------------------------------

document.querySelectorAll("form[data-busy]").forEach((form) => form.addEventListener("submit", () => {
  const button = form.querySelector("button");
  button.disabled = true;
  button.textContent = form.dataset.busy;
}));

function localTimes() {
  document.querySelectorAll("time[datetime]:not([title])").forEach((each) => {
    const at = new Date(each.dateTime);
    if (!Number.isNaN(at.valueOf())) each.title = `${at.toLocaleString()} here`;
  });
}

document.querySelectorAll("[data-part]").forEach((part) => raw.set(part, part.outerHTML));
localTimes();
listen();
