// Applies the server's events to the page, and keeps the ages counting. The HTML in the events is
// rendered and escaped by the server.
"use strict";

const root = document.documentElement;
const connection = document.getElementById("connection");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
// Without an event for this long, the connection may be dead without an error. A new one is cheap.
const SILENCE = 60_000;
const LONGEST_PAUSE = 5_000;

let version = root.dataset.version;
let clock = Number(root.dataset.now) - Date.now();
let source;
let failures = 0;
let watchdog;

// ## Ages

function rough(seconds) {
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

function writeAges(parent = document) {
  const now = Date.now() + clock;
  for (const time of parent.querySelectorAll("time")) {
    const at = Date.parse(time.dateTime);
    const text = `${rough(Math.max(0, Math.floor((now - at) / 1000)))} ago`;
    if (time.textContent !== text) time.textContent = text;
    if (!time.title) time.title = new Date(at).toLocaleString();
  }
  const at = Date.parse(document.getElementById("at").dateTime);
  document.getElementById("age").classList.toggle("old", now - at > SILENCE);
}

// ## Changes

// Makes an element equal to another one, and keeps what is equal: bars grow, open parts stay open.
function change(old, wanted) {
  if (old.nodeType !== wanted.nodeType || old.nodeName !== wanted.nodeName) {
    old.replaceWith(wanted);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== wanted.data) old.data = wanted.data;
    return;
  }
  for (const { name } of [...old.attributes]) {
    const isKept = name === "open" || name === "title";
    if (!isKept && !wanted.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of wanted.attributes) {
    if (name === "datetime" && old.getAttribute(name) !== value) old.removeAttribute("title");
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  changeContents(old, wanted);
}

function changeContents(old, wanted) {
  const children = [...wanted.childNodes];
  while (old.childNodes.length > children.length) old.lastChild.remove();
  children.forEach((child, index) => {
    if (index < old.childNodes.length) change(old.childNodes[index], child);
    else old.append(child);
  });
}

function parsed(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content;
}

function changeTable(body, { rows, order }) {
  const byKey = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  for (const [key, html] of Object.entries(rows)) {
    const wanted = parsed(html).firstElementChild;
    if (byKey.has(key)) change(byKey.get(key), wanted);
    else byKey.set(key, wanted);
  }
  if (order) sort(body, byKey, order);
}

// Puts the rows into an order. Rows that are visible glide to their new places.
function sort(body, byKey, order) {
  const isSeen = (place) => place.bottom > 0 && place.top < innerHeight;
  const before = new Map([...body.rows].map((row) => [row, row.getBoundingClientRect()]));
  const kept = new Set(order);
  for (const [key, row] of byKey) if (!kept.has(key)) row.remove();
  let next = body.firstElementChild;
  for (const key of order) {
    const row = byKey.get(key);
    if (row === next) next = next.nextElementSibling;
    else if (row) body.insertBefore(row, next);
  }
  if (calm.matches) return;
  for (const [row, old] of before) {
    if (!row.isConnected) continue;
    const place = row.getBoundingClientRect();
    const moved = old.top - place.top;
    if (moved && (isSeen(old) || isSeen(place))) {
      const transform = [`translateY(${moved}px)`, "none"];
      row.animate({ transform }, { duration: 400, easing: "ease-in-out" });
    }
  }
}

function apply({ at, page }) {
  if (page.build !== root.dataset.build) {
    location.reload();
    return;
  }
  clock = page.now - Date.now();
  version = page.version;
  document.getElementById("at").dateTime = at;
  for (const [id, html] of Object.entries(page.parts)) {
    changeContents(document.getElementById(id), parsed(html));
  }
  for (const [id, table] of Object.entries(page.tables)) {
    changeTable(document.getElementById(id), table);
  }
  writeAges();
}

// ## Connection

function show(state, text) {
  if (connection.textContent !== text) connection.textContent = text;
  connection.className = state;
}

function connect() {
  source = new EventSource(`/events?from=${version}`);
  source.onopen = watch;
  source.onmessage = (event) => {
    failures = 0;
    show("live", "Live");
    watch();
    apply(JSON.parse(event.data));
  };
  // Browsers do not try again after every kind of failure, so this does.
  source.onerror = retry;
}

function watch() {
  clearTimeout(watchdog);
  watchdog = setTimeout(() => {
    source.close();
    connect();
  }, SILENCE);
}

async function retry() {
  clearTimeout(watchdog);
  source.close();
  show("lost", "Connection lost, retrying");
  const pause = Math.min(LONGEST_PAUSE, 500 * 2 ** failures);
  failures += 1;
  await new Promise((done) => setTimeout(done, pause * (0.75 + Math.random() / 2)));
  try {
    const answer = await fetch("/api/labels", { method: "HEAD", cache: "no-store" });
    if (answer.status === 401 || answer.status === 403) {
      show("lost", "Logged out. ");
      const link = document.createElement("a");
      link.href = "/";
      link.textContent = "Log in again";
      connection.append(link);
      return;
    }
  } catch {
    // There is no server. The next attempt fails too, and tries again.
  }
  connect();
}

// Without this script the page says when it was loaded.
document.getElementById("loaded").remove();
writeAges();
setInterval(writeAges, 1000);
connect();
// A page that comes back from the browser's cache has lost its connection.
addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
