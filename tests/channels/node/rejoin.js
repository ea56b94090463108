// The official client joins again: twice on one connection, after a restart of the server, and when
// the server has become silent. The arguments are the URL of the server and that of a proxy before it.
"use strict";

globalThis.run = async (report, url) => {
  const socket = new Phoenix.Socket(url, {
    heartbeatIntervalMs: 150,
    rejoinAfterMs: () => 20,
    reconnectAfterMs: () => 50,
  });
  const answer = (push) => new Promise((resolve) => {
    for (const status of ["ok", "error", "timeout"]) {
      push.receive(status, (response) => resolve([status, response]));
    }
  });
  const hello = (channel) => new Promise((resolve) => {
    const ref = channel.on("hello", (payload) => { channel.off("hello", ref); resolve(payload); });
  });

  socket.connect();
  const first = socket.channel("room:1");
  report("joined", await answer(first.join()));

  // A second channel for the topic: the client leaves the first one.
  const closed = new Promise((resolve) => first.onClose(resolve));
  const room = socket.channel("room:1");
  report("second channel", await answer(room.join()));
  await closed;
  report("states", [first.state, room.state]);

  // A second join of the channel: the server closes the first join, which the client ignores.
  let joined = hello(room);
  room.joinPush.resend(1000);
  await joined;
  report("joined twice", [room.state, ...await answer(room.push("echo", {n: 1}))]);

  // A restart of the server. What is pushed in the meantime is sent afterwards.
  joined = hello(room);
  const lost = new Promise((resolve) => socket.onClose(resolve));
  room.push("restart", {});
  report("closed with", (await lost).code);
  const pushed = answer(room.push("echo", {n: 2}));
  await joined;
  report("after the restart", [room.state, ...await pushed]);

  // The server no longer answers, not even heartbeats.
  joined = hello(room);
  room.push("silence", {});
  await joined;
  report("after the silence", [room.state, ...await answer(room.push("echo", {n: 3}))]);

  await new Promise((resolve) => socket.disconnect(resolve));
};
