// A server on Node's ws; the path says what it does.
//
// Prints its plain and its TLS port, ends when its stdin is closed. Usage: server.js CERTIFICATE

"use strict";

const fs = require("node:fs");
const http = require("node:http");
const https = require("node:https");
const { WebSocketServer } = require("ws");

const SUBPROTOCOLS = new Set(["chat.v1", "chat.v2"]);
const MAX_SIZE = 2 ** 21;

// For each id: what its socket saw when it was closed, as a promise with its resolve function.
const closes = new Map();

function closeOf(id) {
  if (!closes.has(id)) {
    const close = {};
    close.seen = new Promise((resolve) => {
      close.resolve = resolve;
    });
    closes.set(id, close);
  }
  return closes.get(id);
}

const PATHS = {
  "/echo"(socket) {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
  },

  "/close"(socket, query) {
    // Without a code the Close frame is empty.
    const code = query.has("code") ? Number(query.get("code")) : undefined;
    socket.once("message", () => socket.close(code, query.get("reason")));
  },

  // The rest of the message is sent only once the ping after its beginning is answered.
  "/fragments"(socket, query) {
    const whole = Buffer.from(query.get("message"));
    const cut = Number(query.get("cut"));
    const binary = query.get("kind") === "binary";
    socket.send(whole.subarray(0, cut), { binary, fin: false });
    socket.ping("between");
    socket.once("pong", () => {
      socket.send(whole.subarray(cut), { binary, fin: false });
      socket.send("", { binary, fin: true });
    });
  },

  "/ping"(socket, query) {
    socket.ping(query.get("payload"));
    socket.once("pong", (payload) => {
      if (payload.toString() === query.get("payload")) {
        socket.send("ponged");
      }
    });
  },

  "/subprotocol"(socket, query, request) {
    const seen = {
      path: request.url,
      subprotocol: socket.protocol || null,
      origin: request.headers.origin ?? null,
      question: request.headers["x-question"] ?? null,
    };
    socket.send(JSON.stringify(seen));
  },

  "/pushclose"(socket) {
    socket.send("pushed");
    socket.close(1000);
  },

  "/closewait"(socket, query) {
    socket.once("close", (code, reason) => closeOf(query.get("id")).resolve(`${code} ${reason}`));
  },

  "/lastclose"(socket, query) {
    closeOf(query.get("id")).seen.then((seen) => socket.send(seen));
  },
};

function websockets(deflate) {
  return new WebSocketServer({
    noServer: true,
    maxPayload: MAX_SIZE,
    perMessageDeflate: { threshold: 0, ...deflate },
    handleProtocols: (offered) => [...offered].find((name) => SUBPROTOCOLS.has(name)) ?? false,
  });
}

const usual = websockets({});
const forgetful = websockets({ serverNoContextTakeover: true, clientNoContextTakeover: true });

function upgrade(request, stream, head) {
  const url = new URL(request.url, "http://127.0.0.1");
  const serve = PATHS[url.pathname];
  if (serve === undefined) {
    stream.end("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    return;
  }
  // What is sent at once leaves in one write with the handshake: the hardest case for a client.
  stream.cork();
  const upgrader = url.searchParams.has("forgetful") ? forgetful : usual;
  upgrader.handleUpgrade(request, stream, head, (socket) =>
    serve(socket, url.searchParams, request),
  );
  stream.uncork();
}

const certificate = fs.readFileSync(process.argv[2]);
const plain = http.createServer().on("upgrade", upgrade);
const tls = https.createServer({ key: certificate, cert: certificate }).on("upgrade", upgrade);
plain.listen(0, "127.0.0.1", () => {
  tls.listen(0, "127.0.0.1", () => {
    console.log(plain.address().port, tls.address().port);
  });
});

process.stdin.resume().once("end", () => process.exit(0));
