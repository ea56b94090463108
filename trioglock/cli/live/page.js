
"use strict";

const KEPT = 1000;         // events that are remembered
const ROWS = 300;          // of these, the latest that are on the page
const SILENCE = 10000;     // milliseconds without a word after which the connection is given up
const SHORTEST = 300, LONGEST = 15000;   // milliseconds between two attempts to connect

const find = id => document.getElementById(id);
const log = find("log");
const state = {
  events: [], waiting: [], number: 0, last: "", dropped: 0, droppedBefore: 0,
  paused: false, unseen: 0, rates: [], socket: null, delay: SHORTEST, heard: 0, opened: false, hello: {}, asked: 0,
};

// The connection.

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const url = `${scheme}://${location.host}${location.pathname}?after=${encodeURIComponent(state.last)}`;
  const socket = new WebSocket(url, ["trioglock.live"]);
  state.socket = socket;
  state.heard = Date.now();
  socket.onopen = () => {
    state.delay = SHORTEST;
    state.droppedBefore += state.dropped;
    state.dropped = 0;
    showStatus("live", "live");
  };
  socket.onmessage = event => { state.heard = Date.now(); take(JSON.parse(event.data)); };
  socket.onclose = () => { if (state.socket === socket) tryLater(); };
}

function tryLater() {
  state.socket = null;
  answer("", "");
  const pause = state.delay * (0.5 + Math.random() / 2);
  state.delay = Math.min(2 * state.delay, LONGEST);
  showStatus("lost", "reconnecting");
  state.timer = setTimeout(connect, pause);
}

function tryNow() {
  if (state.socket !== null) return;
  clearTimeout(state.timer);
  connect();
}

// A connection may be gone without a sign: the server says something every second.
setInterval(() => {
  const socket = state.socket;
  if (socket === null || Date.now() - state.heard < SILENCE) return;
  socket.onclose = null;
  socket.close();
  tryLater();
}, 1000);

// What the server says.

function take(frame) {
  if (frame.hello) greet(frame.hello);
  if (frame.events) {
    state.dropped = frame.dropped;
    for (const event of frame.events) receive(event);
    soon();
  }
  if (frame.numbers) showNumbers(frame.numbers);
  if (frame.answer) showAnswer(frame.answer);
}

function greet(hello) {
  if (state.opened && !hello.resumed) note("Connected again. What was published in between is not shown.");
  state.opened = true;
  state.hello = hello;
  find("hub").textContent = visible(hello.hub);
  document.title = `${visible(hello.hub)} - trioglock live`;
  find("publish").hidden = hello.publish === "off";
  find("secret").hidden = hello.publish !== "token";
  const where = hello.process ? `of process ${hello.process}, one of several` : "of this server";
  find("browsers").title = `Connections ${where}, pages like this one aside`;
}

function receive(event) {
  if ("gap" in event) {
    note(event.gap ? `Messages of ${event.gap.toFixed(1)} seconds may be missing.` : "Some messages may be missing.");
    return;
  }
  event.time = event.id ? new Date(Number(event.id.split("-")[0])) : new Date();
  if (event.id) state.last = event.id;
  keep(event);
}

function note(text) { keep({note: text, time: new Date()}); soon(); }

function keep(event) {
  event.number = ++state.number;
  state.events.push(event);
  if (state.events.length >= 2 * KEPT) state.events.splice(0, state.events.length - KEPT);
  if (state.paused) state.unseen++;
  else state.waiting.push(event);
  if (state.waiting.length >= 2 * ROWS) state.waiting.splice(0, state.waiting.length - ROWS);
}

// Rows.

let scheduled = false;
function soon() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; draw(); });
}

function draw() {
  const events = state.waiting.filter(wanted).slice(-ROWS);
  state.waiting = [];
  if (events.length) {
    const fresh = document.createDocumentFragment();
    for (const event of events) fresh.prepend(row(event));
    log.prepend(fresh);
    while (log.childElementCount > ROWS) log.lastElementChild.remove();
  }
  showCount();
}

function redraw() {
  log.replaceChildren();
  state.waiting = state.events.slice(-KEPT);
  state.unseen = 0;
  draw();
}

function showCount() {
  const rows = log.childElementCount;
  find("count").textContent = state.paused && state.unseen
    ? `${state.unseen.toLocaleString()} more came`
    : rows >= ROWS ? `the latest ${rows}` : `${rows} shown`;
  find("empty").hidden = rows > 0;
  find("empty").textContent = state.events.length ? "Nothing that is kept matches." : "Nothing since you opened this page.";
  find("dropped").textContent = (state.droppedBefore + state.dropped).toLocaleString();
}

function row(event) {
  const item = document.createElement("li");
  item.className = "new";
  if (event.note) {
    item.className = "note";
    item.textContent = event.note;
    return item;
  }
  const time = document.createElement("time");
  time.dateTime = event.time.toISOString();
  time.textContent = clock(event.time);
  const payload = document.createElement("pre");
  fill(payload, event);
  item.append(time, label(event.channel), payload);
  if (event.size !== undefined) {
    const size = document.createElement("small");
    const unit = event.hex === undefined ? "characters" : "bytes of binary";
    size.textContent = `${event.size.toLocaleString()} ${unit}${whole(event) ? "" : ", the first of them are shown"}`;
    item.append(size);
  }
  return item;
}

function label(channel) {
  const shown = document.createElement(channel === "" ? "span" : "button");
  shown.className = channel === "" ? "all" : "";
  shown.textContent = channel === "" ? "everyone" : visible(channel);
  if (channel !== "") {
    shown.type = "button";
    shown.title = `Show ${visible(channel)} alone`;
    shown.onclick = () => { find("filter").value = channel; redraw(); };
  }
  return shown;
}

const whole = event => event.hex !== undefined && 3 * event.size - 1 <= Math.max(event.hex.length, 2);

function clock(time) {
  const two = number => String(number).padStart(2, "0");
  const parts = [time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(":");
  return `${parts}.${String(time.getMilliseconds()).padStart(3, "0")}`;
}

// Payloads are text: they go into text nodes, and nowhere else.

const COLOURED = 400;      // pieces of JSON up to which each has its colour
const TOKENS = /("(?:[^"\\]|\\.)*")(\s*:)?|([{}[\],:])|([^\s{}[\],:"]+)/g;

function fill(place, event) {
  if (event.hex !== undefined) {
    place.textContent = event.hex;
    return;
  }
  const trimmed = event.data.trim();
  if (event.size === undefined && /^[[{]/.test(trimmed) && isJSON(trimmed)) fillJSON(place, trimmed);
  else place.textContent = visible(event.data);
}

function isJSON(text) {
  try { JSON.parse(text); return true; } catch { return false; }
}

// Laid out anew from its own characters: numbers and escapes stay as they were written.
function fillJSON(place, text) {
  const tokens = [...text.matchAll(TOKENS)];
  let depth = 0, plain = "";
  const flush = () => { if (plain) place.append(plain); plain = ""; };
  const colour = (kind, piece) => {
    if (tokens.length > COLOURED) {
      plain += visible(piece);
      return;
    }
    flush();
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = visible(piece);
    place.append(span);
  };
  const line = () => "\n" + "  ".repeat(Math.min(depth, 40));
  let previous = "";
  for (const [, string, colon, sign, other] of tokens) {
    const closing = sign === "}" || sign === "]";
    if (closing) depth--;
    if (closing ? previous !== "{" && previous !== "[" : "{[,".includes(previous) && previous) plain += line();
    if (string !== undefined) { colour(colon ? "key" : "string", string); plain += colon ? ": " : ""; }
    else if (other !== undefined) colour(/^[-\d]/.test(other) ? "number" : "word", other);
    else plain += sign;
    if (sign === "{" || sign === "[") depth++;
    previous = sign ?? "x";
  }
  flush();
}

// What would not be seen, or would turn the text around, is shown by its name.
function visible(text) {
  return text.replace(/[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, character => {
    const code = character.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return `\u27e8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
  });
}

// What is shown.

function wanted(event) {
  if (event.note) return true;
  const pattern = find("filter").value;
  if (!pattern) return true;
  if (event.channel === "") return true;      // for everyone
  if (!/[*?]/.test(pattern)) return event.channel.toLowerCase().includes(pattern.toLowerCase());
  const source = pattern.replace(/[.+^${}()|[\]\\/-]/g, "\\$&").replace(/\*+/g, ".*").replace(/\?/g, ".");
  return new RegExp(`^${source}$`, "is").test(event.channel);
}

let typing;
find("filter").oninput = () => { clearTimeout(typing); typing = setTimeout(redraw, 100); };

find("pause").onclick = () => {
  state.paused = !state.paused;
  find("pause").setAttribute("aria-pressed", String(state.paused));
  find("pause").textContent = state.paused ? "Go on" : "Pause";
  if (state.paused) showCount();
  else redraw();
};

find("clear").onclick = () => {
  state.events = [];
  state.waiting = [];
  redraw();
};

function showStatus(name, text) {
  find("status").dataset.state = name;
  find("status").textContent = text;
  document.querySelector("form button").disabled = name !== "live";
}

function showNumbers(numbers) {
  const rate = numbers.rate < 10 ? Math.round(10 * numbers.rate) / 10 : Math.round(numbers.rate);
  find("rate").textContent = rate.toLocaleString();
  find("browsers").textContent = numbers.browsers.toLocaleString();
  find("received").textContent = numbers.received.toLocaleString();
  state.rates.push(numbers.rate);
  if (state.rates.length > 61) state.rates.shift();
  const most = Math.max(1, ...state.rates);
  const points = state.rates.map((value, at) => `${60 - state.rates.length + 1 + at},${(19 - 17 * value / most).toFixed(2)}`);
  find("line").setAttribute("d", `M${points.join("L")}`);
  find("area").setAttribute("d", `M${60 - state.rates.length + 1},20L${points.join("L")}L60,20Z`);
}

// Publishing.

find("form").onsubmit = event => {
  event.preventDefault();
  if (state.socket === null) return;
  const publication = {channel: find("channel").value, data: find("message").value};
  if (state.hello.publish === "token") publication.token = find("token").value;
  state.socket.send(JSON.stringify(publication));
  answer("", "publishing");
};

find("message").onkeydown = event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("form").requestSubmit();
};

function showAnswer(reply) {
  if (!reply.published) answer("bad", `Not published: ${visible(reply.error)}.`);
  else if (reply.delivered === null) answer("good", "Published.");
  else answer("good", `Published: ${reply.delivered.toLocaleString()} got it, this page among them.`);
}

function answer(kind, text) {
  find("answer").dataset.state = kind;
  find("answer").textContent = text;
}

window.addEventListener("online", tryNow);
document.addEventListener("visibilitychange", () => { if (!document.hidden) tryNow(); });
showCount();
connect();
