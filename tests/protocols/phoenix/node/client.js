// The official client with the server whose URL is the first argument; the second is a token.
"use strict";

const {Socket, Presence} = Phoenix;

const answer = (push) => new Promise((resolve) => {
  push.receive("ok", (r) => resolve(["ok", r]))
    .receive("error", (r) => resolve(["error", r]))
    .receive("timeout", () => resolve(["timeout", null]));
});

const event = (channel, name) => new Promise((resolve) => {
  const ref = channel.on(name, (payload) => { channel.off(name, ref); resolve(payload); });
});

const bytes = (...values) => new Uint8Array(values).buffer;
const list = (buffer) => Array.from(new Uint8Array(buffer));

globalThis.run = async (report, url, token) => {
  const socket = new Socket(url, {
    params: {user: "al"},
    authToken: token,
    timeout: 2000,
    heartbeatIntervalMs: 100,
    rejoinAfterMs: () => 20,
    reconnectAfterMs: () => 20,
  });
  const opened = new Promise((resolve) => socket.onOpen(resolve));
  socket.connect();
  await opened;

  const room = socket.channel("room:1", {name: "al"});
  const hello = event(room, "hello");
  report("join", await answer(room.join()));
  report("hello", await hello);
  report("echo", await answer(room.push("echo", {a: 1})));
  report("bare", await answer(room.push("bare", {})));
  report("fail", await answer(room.push("fail", {why: "so"})));
  const [status, response] = await answer(room.push("echo", bytes(1, 2, 254, 0)));
  report("binary echo", [status, list(response.response ?? response)]);
  const back = event(room, "back");
  room.push("back", bytes(170, 187));
  report("binary back", list(await back));
  const shout = event(room, "shout");
  await answer(room.push("shout", bytes(204)));
  report("binary shout", list(await shout));
  const text = event(room, "shout");
  await answer(room.push("shout", {m: "hi"}));
  report("shout", await text);

  report("forbidden", await answer(socket.channel("room:forbidden").join()));
  report("unmatched", await answer(socket.channel("nope:1").join()));

  const crashed = new Promise((resolve) => room.onError(resolve));
  const again = event(room, "hello");
  room.push("no such event", {});
  report("crash", await crashed);
  report("rejoined", await again);

  const lobby = socket.channel("presence:x", {key: "al"});
  const presence = new Presence(lobby);
  const synced = new Promise((resolve) => presence.onSync(() => {
    if (presence.list().length) { resolve(); }
  }));
  await answer(lobby.join());
  await synced;
  report("presence", presence.list((key, {metas}) => [key, metas.length]));

  await new Promise((resolve) => setTimeout(resolve, 350));
  report("alive after heartbeats", socket.isConnected());

  const twice = event(room, "hello");
  socket.conn.close();
  report("rejoined after a loss", await twice);

  const closed = new Promise((resolve) => room.onClose(resolve));
  room.push("stop", {});
  await closed;
  report("stopped", room.state);

  report("leave", await answer(lobby.leave()));
  await new Promise((resolve) => socket.disconnect(resolve, 1000, "done"));
};
