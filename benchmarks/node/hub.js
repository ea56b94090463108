// A server that sends each client the messages of one Redis channel, with one SUBSCRIBE per channel.
//
// Prints its port, then answers each line with the CPU time that it has used. It ends when its
// stdin is closed.

"use strict";

const readline = require("node:readline");
const { createClient } = require("redis");
const { WebSocketServer } = require("ws");

async function main(url, prefix) {
  const redis = createClient({ url });
  await redis.connect();
  const server = new WebSocketServer({ port: 0, host: "127.0.0.1", perMessageDeflate: false });

  server.on("connection", (socket, request) => {
    const channel = prefix + request.url;
    const send = (message) => socket.send(message);
    redis.subscribe(channel, send);
    socket.on("close", () => redis.unsubscribe(channel, send));
  });

  server.on("listening", () => {
    const write = (value) => process.stdout.write(JSON.stringify(value) + "\n");
    const input = readline.createInterface({ input: process.stdin });
    input.on("line", () => {
      const { user, system } = process.cpuUsage();
      write((user + system) / 1e6);
    });
    input.on("close", () => process.exit());
    write(server.address().port);
  });
}

main(process.argv[2], process.argv[3]);
