// Follows a run. Events say that there is a new frame; its picture is fetched when the
// last one has been drawn, so a slow connection shows fewer frames and no old ones.

const MAX_ROWS = 100;
const SILENCE_MS = 6000; // the server speaks every 2 s
const RETRY_MS = 1000;
const FIGURES_MS = 250; // digits that change faster cannot be read
const REASONS = { 401: "token needed", 429: "too many requests", 503: "too many viewers" };

const at = (id) => document.getElementById(id);
const canvas = at("picture");

let events = null;
let lastNews = 0;
let news = null; // newest result
let lastFigures = 0;
let shown = { number: 0, result: null, blob: null };
let isFetching = false;
let isPaused = false;
let hasEnded = false;

// The token has become a cookie; the address may now be read over a shoulder.
if (location.search) history.replaceState(null, "", location.pathname);

function follow() {
  leave();
  if (isPaused || document.hidden) return;
  lastNews = performance.now();
  events = new EventSource("events");
  events.onmessage = (message) => hear(JSON.parse(message.data));
  events.onerror = () => lose();
}

function leave() {
  events?.close();
  events = null;
}

async function lose() {
  leave();
  setTimeout(() => events ?? follow(), RETRY_MS);
  if (hasEnded) return;
  const answer = await fetch("events", { method: "HEAD" }).catch(() => null);
  if (!events && !isPaused) say("lost", REASONS[answer?.status] ?? "connection lost");
}

function hear(status) {
  lastNews = performance.now();
  hasEnded = status.state === "ended";
  say(status.state, status.state);
  if (status.number) {
    news = status;
    fetchPicture();
  }
}

async function fetchPicture() {
  if (isFetching || news.number === shown.number) return;
  isFetching = true;
  const result = news;
  try {
    const response = await fetch("frame.jpg");
    if (!response.ok) throw new Error(response.statusText);
    const blob = await response.blob();
    const bitmap = await createImageBitmap(blob);
    if (!isPaused) {
      show(bitmap, blob, news.number > result.number ? news : result);
    }
    bitmap.close();
  } catch {
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  } finally {
    isFetching = false;
  }
  if (events && news.number !== shown.number) fetchPicture();
}

function show(bitmap, blob, result) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  shown = { number: result.number, result, blob };
  canvas.dataset.number = result.number;
  canvas.setAttribute("aria-label", describe(result.segments));
  at("empty").hidden = true;
  at("save-picture").disabled = at("save-result").disabled = false;
  at("model").textContent = result.model;
  at("place").textContent = `${result.source} · frame ${result.index}`;
  if (performance.now() - lastFigures > FIGURES_MS) showFigures();
  showSegments(result.segments);
}

function describe(segments) {
  const counts = new Map();
  for (const { class_name } of segments) {
    counts.set(class_name, (counts.get(class_name) ?? 0) + 1);
  }
  const parts = [...counts].map(([name, n]) => (n > 1 ? `${n} × ${name}` : name));
  return parts.length ? `Picture with ${parts.join(", ")}` : "Picture without segments";
}

function showFigures() {
  lastFigures = performance.now();
  const { frames_per_second, timings_ms } = shown.result;
  // Waiting for a camera is no work.
  const stages = Object.entries(timings_ms).filter(([name]) => name !== "wait");
  const total = stages.reduce((sum, [, ms]) => sum + ms, 0);
  at("fps").textContent = number(frames_per_second, 1);
  at("total").textContent = number(total, total < 100 ? 1 : 0);
  keep(at("stages"), stages, newStage, (row, [name, ms]) => {
    const [label, bar, value] = row.children;
    label.textContent = name;
    bar.firstChild.style.width = `${total ? (100 * ms) / total : 0}%`;
    value.textContent = number(ms, 1);
  });
}

function showSegments(segments) {
  at("count").textContent = segments.length;
  // Things first, each in the order of ids: rows stay where they are.
  const rows = [...segments].sort((a, b) => b.is_thing - a.is_thing || a.id - b.id);
  keep(at("segments"), rows.slice(0, MAX_ROWS), newSegment, (row, segment) => {
    const [name, id, score, area] = row.children;
    row.dataset.id = segment.id;
    name.firstChild.style.backgroundColor = segment.color;
    name.lastChild.data = segment.class_name;
    id.textContent = segment.id;
    score.textContent = number(segment.score, 2);
    area.textContent = `${number(100 * segment.area_share, 1)} %`;
  });
  const rest = rows.length - MAX_ROWS;
  at("more").hidden = rest <= 0;
  at("more").textContent = `and ${rest} more, see the JSON`;
}

/** Gives a list as many children as there are entries, and fills them. */
function keep(list, entries, create, fill) {
  while (list.children.length > entries.length) list.lastElementChild.remove();
  while (list.children.length < entries.length) list.append(create());
  entries.forEach((entry, place) => fill(list.children[place], entry));
}

function newStage() {
  const row = make("li", make("span"), make("span", make("span")), make("span"));
  row.children[1].className = "bar";
  row.children[1].setAttribute("aria-hidden", "true");
  row.children[1].firstChild.className = "fill";
  row.children[2].className = "number";
  return row;
}

function newSegment() {
  const swatch = make("span");
  swatch.className = "swatch";
  const row = make("tr", make("td", swatch, ""), make("td"), make("td"), make("td"));
  row.children[0].append(document.createTextNode(""));
  for (const cell of [...row.children].slice(1)) cell.className = "number";
  return row;
}

function make(tag, ...children) {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
}

function number(value, digits) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

function say(state, text) {
  const pill = at("state");
  if (pill.textContent === text) return; // a screen reader would say it again
  pill.dataset.state = state;
  pill.textContent = text;
}

function save(blob, suffix) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  const stem = shown.result.source.split(/[\\/]/).pop().replace(/[^\w.-]+/g, "_");
  link.download = `${stem}_${String(shown.result.index).padStart(6, "0")}${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

at("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  at("pause").textContent = isPaused ? "Continue" : "Pause";
  at("pause").setAttribute("aria-pressed", String(isPaused));
  if (isPaused) {
    leave();
    say("paused", "paused");
    if (shown.result) showFigures(); // those of the picture that stays
  } else {
    say("connecting", "connecting");
    follow();
  }
});
at("save-picture").addEventListener("click", () => save(shown.blob, ".jpg"));
at("save-result").addEventListener("click", () => {
  const text = JSON.stringify(shown.result, null, 1);
  save(new Blob([text], { type: "application/json" }), ".json");
});
// A page that nobody looks at takes nothing.
document.addEventListener("visibilitychange", follow);
setInterval(() => {
  if (events && performance.now() - lastNews > SILENCE_MS) lose();
}, 1000);
follow();
