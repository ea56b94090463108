
"use strict";

const KEPT = 1000;         // events in memory
const ROWS = 300;          // latest events on the page
const SHORT = 150;         // maximum number of characters of a message that is always shown in full
const TIMEOUT = 10000;     // milliseconds without a frame until the connection is closed
const MIN_DELAY = 300, MAX_DELAY = 15000;   // milliseconds before reconnecting

const find = id => document.getElementById(id);
const log = find("log");
const state = {
  events: [], waiting: [], number: 0, last: "", dropped: 0, droppedBefore: 0,
  paused: false, unseen: 0, rates: [], socket: null, delay: MIN_DELAY, lastFrame: 0, opened: false, hello: {},
};

// The connection.

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const url = `${scheme}://${location.host}${location.pathname}?after=${encodeURIComponent(state.last)}`;
  const socket = new WebSocket(url, ["trioglock.live"]);
  state.socket = socket;
  state.lastFrame = Date.now();
  socket.onopen = () => {
    state.delay = MIN_DELAY;
    state.droppedBefore += state.dropped;
    state.dropped = 0;
    showStatus("live", "Connected");
  };
  socket.onmessage = event => { state.lastFrame = Date.now(); handle(JSON.parse(event.data)); };
  socket.onclose = () => { if (state.socket === socket) reconnect(); };
}

function reconnect() {
  state.socket = null;
  showResult("", "");
  const delay = state.delay * (0.5 + Math.random() / 2);
  state.delay = Math.min(2 * state.delay, MAX_DELAY);
  showStatus("lost", "Reconnecting");
  state.timer = setTimeout(connect, delay);
}

function connectNow() {
  if (state.socket !== null) return;
  clearTimeout(state.timer);
  connect();
}

// Detects a connection that was lost without a close: the server sends a frame every second.
setInterval(() => {
  const socket = state.socket;
  if (socket === null || Date.now() - state.lastFrame < TIMEOUT) return;
  socket.onclose = null;
  socket.close();
  reconnect();
}, 1000);

// Frames from the server.

function handle(frame) {
  if (frame.hello) showHello(frame.hello);
  if (frame.events) {
    state.dropped = frame.dropped;
    for (const event of frame.events) addEvent(event);
    scheduleDraw();
  }
  if (frame.numbers) showNumbers(frame.numbers);
  if (frame.response) showResponse(frame.response);
}

function showHello(hello) {
  if (state.opened && !hello.resumed) addNote("Reconnected. Messages published in the meantime are not shown.");
  state.opened = true;
  state.hello = hello;
  if (hello.id) state.last = hello.id;
  find("hub").textContent = visible(hello.hub);
  showTitle();
  showHelp(hello.publish);
  find("publish").hidden = hello.publish === "off";
  find("secret").hidden = hello.publish !== "token";
  const where = hello.process ? `process ${hello.process}, one of several workers` : "this server";
  find("browsers").title = `Connections to ${where}, excluding pages like this one`;
}

function showTitle() {
  const unseen = state.unseen ? `(${state.unseen.toLocaleString()}) ` : "";
  document.title = `${unseen}${visible(state.hello.hub ?? "trioglock")} on ${location.host} | Live messages`;
}

// Shows how to publish and subscribe, with the address of this server.
function showHelp(publish) {
  const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}`;
  const to = location.host === "127.0.0.1:8020" && url.startsWith("ws:") ? "" : ` --to ${url}`;
  const token = publish === "token" ? "TRIOGLOCK_PUBLISH_TOKEN=... " : "";
  const help = find("help");
  help.replaceChildren();
  if (publish === "off") addHelp("Publish in your program", "await hub.publish(\"Hello\", \"news\")");
  else addHelp("Publish in a shell, or with the form above", `${token}trioglock publish news 'Hello'${to}`);
  addHelp("Subscribe in a shell", `trioglock connect ${url}/news`);
  addHelp("Subscribe in a web page", `const socket = new WebSocket("${url}/news");\nsocket.onmessage = event => console.log(event.data);`);
}

function addHelp(title, code) {
  const term = document.createElement("dt"), details = document.createElement("dd"), text = document.createElement("pre");
  term.textContent = title;
  text.textContent = code;
  details.append(text);
  if (navigator.clipboard) {      // not over plain HTTP from another machine
    const copy = document.createElement("button");
    copy.type = "button";
    copy.textContent = "Copy";
    copy.onclick = async () => {
      copy.textContent = await navigator.clipboard.writeText(code).then(() => "Copied", () => "Could not copy");
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    };
    details.append(copy);
  }
  find("help").append(term, details);
}

function addEvent(event) {
  if ("gap" in event) {
    if (event.id) state.last = event.id;
    addNote(event.gap ? `Messages from ${event.gap.toFixed(1)} seconds may be missing.` : "Some messages may be missing.");
    return;
  }
  event.time = event.id ? new Date(Number(event.id.split("-")[0])) : new Date();
  if (event.id) state.last = event.id;
  store(event);
}

function addNote(text) { store({note: text, time: new Date()}); scheduleDraw(); }

function store(event) {
  event.number = ++state.number;
  state.events.push(event);
  if (state.events.length >= 2 * KEPT) state.events.splice(0, state.events.length - KEPT);
  if (state.paused) state.unseen++;
  else state.waiting.push(event);
  if (state.waiting.length >= 2 * ROWS) state.waiting.splice(0, state.waiting.length - ROWS);
}

// Rows.

let scheduled = false;
function scheduleDraw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; draw(); });
}

function draw() {
  const events = state.waiting.filter(matches).slice(-ROWS);
  state.waiting = [];
  if (events.length) {
    const rows = document.createDocumentFragment();
    for (const event of events) rows.prepend(row(event));
    log.prepend(rows);
    while (log.childElementCount > ROWS) log.lastElementChild.remove();
  }
  showCount();
}

function redraw() {
  log.replaceChildren();
  const end = Math.max(state.events.length - state.unseen, 0);   // a paused page stands still
  state.waiting = state.events.slice(Math.max(end - KEPT, 0), end);
  draw();
}

function showCount() {
  const rows = log.childElementCount, shown = log.querySelectorAll(":scope > :not(.note)").length;
  find("count").textContent = rows >= ROWS ? `latest ${messages(shown)}` : messages(shown);
  find("unseen").hidden = !state.unseen;
  find("unseen").textContent = messages(state.unseen, "new ");
  find("empty").hidden = state.events.length > 0;
  find("unmatched").hidden = rows > 0 || state.events.length === 0 || state.unseen === state.events.length;
  find("dropped").textContent = (state.droppedBefore + state.dropped).toLocaleString();
  showTitle();
}

const messages = (number, kind = "") => `${number.toLocaleString()} ${kind}message${number === 1 ? "" : "s"}`;

function row(event) {
  const item = document.createElement("li");
  item.className = "added";
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
  if (payload.textContent.length > SHORT || payload.textContent.includes("\n")) {
    item.classList.add("folded");
    item.append(expander(item));
  }
  if (event.size !== undefined) {
    const size = document.createElement("small");
    const unit = event.hex === undefined ? "characters" : "bytes, binary";
    size.textContent = `${event.size.toLocaleString()} ${unit}${whole(event) ? "" : ", truncated"}`;
    item.append(size);
  }
  return item;
}

function label(channel) {
  const shown = document.createElement(channel === "" ? "span" : "button");
  shown.className = channel === "" ? "channel all" : "channel";
  shown.textContent = channel === "" ? "all channels" : visible(channel);
  if (channel !== "") {
    shown.type = "button";
    shown.title = `Show only ${visible(channel)}`;
    shown.onclick = () => { find("filter").value = channel; redraw(); };
  }
  return shown;
}

// A long message is limited to two lines until it is expanded.
function expander(item) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "expand";
  const show = expanded => {
    item.classList.toggle("folded", !expanded);
    button.setAttribute("aria-expanded", String(expanded));
    button.setAttribute("aria-label", expanded ? "Collapse" : "Expand");
  };
  show(false);
  button.onclick = () => show(item.classList.contains("folded"));
  return button;
}

const whole = event => event.hex !== undefined && 3 * event.size - 1 <= Math.max(event.hex.length, 2);

function clock(time) {
  const two = number => String(number).padStart(2, "0");
  const parts = [time.getHours(), time.getMinutes(), time.getSeconds()].map(two).join(":");
  return `${parts}.${String(time.getMilliseconds()).padStart(3, "0")}`;
}

// Payloads are text: they are only ever put into text nodes.

const COLORED = 400;       // maximum number of tokens in JSON that is colored
const TOKENS = /("(?:[^"\\]|\\.)*")(\s*:)?|([{}[\],:])|([^\s{}[\],:"]+)/g;

function fill(element, event) {
  if (event.hex !== undefined) {
    element.textContent = event.hex;
    return;
  }
  const trimmed = event.data.trim();
  if (event.size === undefined && /^[[{]/.test(trimmed) && isJSON(trimmed)) fillJSON(element, trimmed);
  else element.textContent = visible(event.data);
}

function isJSON(text) {
  try { JSON.parse(text); return true; } catch { return false; }
}

// Formats JSON without parsing its values: numbers and escapes remain as they are.
function fillJSON(element, text) {
  const tokens = [...text.matchAll(TOKENS)];
  let depth = 0, plain = "";
  const flush = () => { if (plain) element.append(plain); plain = ""; };
  const append = (kind, token) => {
    if (tokens.length > COLORED) {
      plain += visible(token);
      return;
    }
    flush();
    const span = document.createElement("span");
    span.className = kind;
    span.textContent = visible(token);
    element.append(span);
  };
  const line = () => "\n" + "  ".repeat(Math.min(depth, 40));
  let previous = "";
  for (const [, string, colon, sign, other] of tokens) {
    const closing = sign === "}" || sign === "]";
    if (closing) depth--;
    if (closing ? previous !== "{" && previous !== "[" : "{[,".includes(previous) && previous) plain += line();
    if (string !== undefined) { append(colon ? "key" : "string", string); plain += colon ? ": " : ""; }
    else if (other !== undefined) append(/^[-\d]/.test(other) ? "number" : "word", other);
    else plain += sign;
    if (sign === "{" || sign === "[") depth++;
    previous = sign ?? "x";
  }
  flush();
}

// Shows invisible characters, and those that change the direction of text, by their names.
function visible(text) {
  return text.replace(/[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, character => {
    const code = character.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    return `\u27e8U+${code.toString(16).toUpperCase().padStart(4, "0")}\u27e9`;
  });
}

// Filtering.

function matches(event) {
  if (event.note) return true;
  const pattern = find("filter").value;
  if (!pattern) return true;
  if (event.channel === "") return true;      // published on all channels
  if (!/[*?]/.test(pattern)) return event.channel.toLowerCase().includes(pattern.toLowerCase());
  const source = pattern.replace(/[.+^${}()|[\]\\/-]/g, "\\$&").replace(/\*+/g, ".*").replace(/\?/g, ".");
  return new RegExp(`^${source}$`, "is").test(event.channel);
}

let typing;
find("filter").oninput = () => { clearTimeout(typing); typing = setTimeout(redraw, 100); };

find("pause").onclick = () => {
  state.paused = !state.paused;
  find("pause").setAttribute("aria-pressed", String(state.paused));
  find("pause").textContent = state.paused ? "Resume" : "Pause";
  if (state.paused) return showCount();
  state.unseen = 0;
  redraw();
};

find("unseen").onclick = () => find("pause").click();

find("clear").onclick = () => {
  state.events = [];
  state.waiting = [];
  state.unseen = 0;
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
  const maximum = Math.max(1, ...state.rates);
  const points = state.rates.map((value, at) => `${60 - state.rates.length + 1 + at},${(19 - 17 * value / maximum).toFixed(2)}`);
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
  showResult("", "Publishing");
};

find("message").onkeydown = event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) find("form").requestSubmit();
};

function showResponse(response) {
  if (!response.published) showResult("bad", `Not published: ${visible(response.error)}.`);
  else if (response.delivered === null) showResult("good", "Published.");
  else showResult("good", `Published to ${response.delivered.toLocaleString()} subscriber${response.delivered === 1 ? "" : "s"}, including this page.`);
}

function showResult(kind, text) {
  find("result").dataset.state = kind;
  find("result").textContent = text;
}

window.addEventListener("online", connectNow);
document.addEventListener("visibilitychange", () => { if (!document.hidden) connectNow(); });
find("address").textContent = location.host;
showCount();
connect();
