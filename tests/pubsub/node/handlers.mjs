// Prints what happens when handlers throw or close the feed, with sockets of its own.
const { subscribe } = await import(process.argv[2]);

let now = 1e12;
const timers = [], sockets = [];
Date.now = () => now;
globalThis.setInterval = () => 0;
globalThis.setTimeout = call => timers.push(call);
globalThis.clearTimeout = number => { timers[number - 1] = undefined; };
globalThis.WebSocket = class {
  isClosed = false;
  constructor() { sockets.push(this); }
  close() { this.isClosed = true; }
};

/** Runs the last timer. */
const runTimer = () => timers.at(-1)?.();
const confirm = () => sockets.at(-1).onmessage({ data: '{"subscribed": "news", "id": null}' });
function attempt(call) {
  try { call(); } catch (error) { return error.message; }
  return "";
}

const states = [];
const feed = subscribe("ws://localhost/news", {
  onMessage() {},
  onState(state) {
    states.push(state);
    if (state === "connecting") feed.close();
  },
});
const early = attempt(() => feed.send(""));
const closing = attempt(runTimer);
const closed = sockets.map(socket => socket.isClosed);

const gaps = [];
let opened = 0;
subscribe("ws://localhost/news", {
  onMessage() {},
  onGap: gap => gaps.push(gap.seconds),
  onState(state) {
    if (state === "open" && ++opened > 1) throw new Error("a bug of the page");
  },
});
runTimer();
confirm();
for (const passed of [5000, -60_000]) {
  sockets.at(-1).onclose({ code: 1006, reason: "" });
  now += passed;
  runTimer();
  attempt(confirm);
}
console.log(JSON.stringify({ early, closing, states, closed, gaps }));
