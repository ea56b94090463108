// Prints the delays between attempts, with a clock and sockets of its own.
const { subscribe } = await import(process.argv[2]);

let now = 1e12, delay, connect, random = 1;
const sockets = [];
Date.now = () => now;
Math.random = () => random;
globalThis.setInterval = () => 0;
globalThis.setTimeout = (call, milliseconds) => { connect = call; delay = milliseconds; };
globalThis.clearTimeout = () => {};
globalThis.WebSocket = class {
  constructor() { sockets.push(this); }
  close() {}
};

let state;
function subscribeAgain() {
  subscribe("ws://localhost/news", { onMessage() {}, onState: next => { state = next; } });
  connect();
}
const confirm = () => sockets.at(-1).onmessage({ data: '{"subscribed": "news", "id": "1-0"}' });
function lose(code = 1006) {
  sockets.at(-1).onclose({ code, reason: "" });
  const drawn = delay;
  if (state === "connecting") connect();
  return drawn;
}

subscribeAgain();
const delays = Array.from({ length: 7 }, () => lose());
subscribeAgain();
lose();
const unstable = [1000, 9000].map(lasts => { confirm(); now += lasts; return lose(); });
confirm();
now += 10_000;
const stable = lose();
const jitter = [0, 0.25, 0.5].map(draw => {
  subscribeAgain();
  random = draw;
  return lose();
});
const retried = [], ended = [];
for (const code of [1000, 1001, 1006, 1008, 1011, 1012, 1013, 4000]) {
  subscribeAgain();
  confirm();
  lose(code);
  (state === "connecting" ? retried : ended).push(code);
}
// Node.js 20 reports a refused handshake with an error only.
subscribeAgain();
random = 1;
const refused = [1, 2].map(() => {
  sockets.at(-1).onerror();
  const drawn = delay;
  connect();
  return drawn;
});
console.log(JSON.stringify({ delays, unstable, stable, jitter, retried, ended, refused }));
