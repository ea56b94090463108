// What Node's ws does with each server, as play.py does it; usage: play.js CERTIFICATE URL...
//
// NODE_PATH says where ws is.

"use strict";

const assert = require("node:assert");
const fs = require("node:fs");
const { once } = require("node:events");
const WebSocket = require("ws");

const [certificate, ...urls] = process.argv.slice(2);
let url;
const SIZES = [0, 1, 125, 126, 127, 65535, 65536, 2 ** 18];

async function open(path, protocols = []) {
  const socket = new WebSocket(url + path, protocols, { ca: fs.readFileSync(certificate) });
  const queue = [];
  const waiting = [];
  socket.on("message", (data, binary) => {
    const message = binary ? data : data.toString();
    if (waiting.length) waiting.shift()(message);
    else queue.push(message);
  });
  socket.receive = () =>
    queue.length ? queue.shift() : new Promise((resolve) => waiting.push(resolve));
  await once(socket, "open");
  return socket;
}

async function close(socket, code = 1000, reason = "") {
  const closed = once(socket, "close");
  socket.close(code, reason);
  return (await closed)[0];
}

async function play() {
  const about = await open("/about?x=1", ["v2", "v1"]);
  assert.strictEqual(about.protocol, "v1");
  assert.deepStrictEqual(JSON.parse(await about.receive()), {
    subprotocol: "v1",
    url: `${url}/about?x=1`,
  });
  await once(about, "close");

  const echo = await open("/echo");
  for (const size of SIZES) {
    for (const message of ["x".repeat(size), Buffer.alloc(size, "\0\x01\xff", "latin1")]) {
      echo.send(message);
      assert.deepStrictEqual(await echo.receive(), message);
    }
  }
  for (let number = 0; number < 30; number++) {
    const text = `\0 \u00e9 \u20ac \u{1f40d} ${number} ${"the same again ".repeat(60)}`;
    echo.send(text);
    assert.strictEqual(await echo.receive(), text);
  }
  echo.ping("there?");
  assert.strictEqual((await once(echo, "pong"))[0].toString(), "there?");
  echo.send("in ", { fin: false });
  echo.ping("between");
  echo.send("", { fin: false });
  echo.send("three pieces", { fin: true });
  assert.strictEqual(await echo.receive(), "in three pieces");
  assert.strictEqual(await close(echo), 1000);

  const closing = await open("/close");
  closing.send("please");
  const [code, reason] = await once(closing, "close");
  assert.deepStrictEqual([code, reason.toString()], [4001, "as you wish"]);

  assert.strictEqual(await close(await open("/note"), 4002, "bye"), 4002);
  const noted = await open("/noted");
  assert.strictEqual(await noted.receive(), "4002 bye");
  await once(noted, "close");

  const began = Date.now();
  for (let number = 0; number < 10; number++) {
    const socket = await open("/echo");
    socket.send("hello");
    assert.strictEqual(await socket.receive(), "hello");
    await close(socket);
  }
  assert.ok(Date.now() - began < 8000);
}

async function playAll() {
  for (url of urls) await play();
  console.log("played");
}

playAll().catch((error) => {
  console.error(error);
  process.exit(1);
});
