// A server on socket.io that does what the channels of trioglock do in the benchmarks.
//
// Prints its port, then answers each line of JSON with one. It ends when its stdin is closed.

"use strict";

const http = require("node:http");
const readline = require("node:readline");
const { Server } = require("socket.io");

const server = http.createServer();
const io = new Server(server, { transports: ["websocket"], serveClient: false });

io.on("connection", (socket) => {
  socket.on("join", (room, answer) => {
    socket.join(room);
    answer("ok");
  });
  socket.on("leave", (room, answer) => {
    socket.leave(room);
    answer("ok");
  });
  socket.on("echo", (payload, answer) => answer("ok", payload));
});

const COMMANDS = {
  usage() {
    const { user, system } = process.cpuUsage();
    return { cpu: (user + system) / 1e6 };
  },

  memory() {
    global.gc();
    return { resident: process.memoryUsage().rss };
  },

  broadcast({ room, size, count }) {
    const payload = { text: "x".repeat(size) };
    for (let i = 0; i < count; i++) io.to(room).emit("shout", payload);
    return {};
  },
};

server.listen(0, "127.0.0.1", () => {
  const write = (value) => process.stdout.write(JSON.stringify(value) + "\n");
  const input = readline.createInterface({ input: process.stdin });
  input.on("line", (line) => {
    const command = JSON.parse(line);
    write(COMMANDS[command.name](command));
  });
  input.on("close", () => process.exit());
  write(server.address().port);
});
