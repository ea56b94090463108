// A slow join beside another channel, a new access token, and a flood of the server whose URL is the
// argument. Prints the result of each step as a line of JSON.
"use strict";

const {Socket} = require("phoenix");
const WebSocket = require("ws");

const socket = new Socket(process.argv[2], {
  params: () => ({ token: "al:3600" }),
  transport: WebSocket,
  timeout: 1500,
  rejoinAfterMs: () => 50,
  reconnectAfterMs: () => 50,
});
const print = (...items) => console.log(JSON.stringify(items));
const outcome = push =>
  new Promise(resolve => {
    for (const status of ["ok", "error", "timeout"]) {
      push.receive(status, response => resolve([status, response]));
    }
  });
const push = (channel, event, payload) => outcome(channel.push(event, payload));

async function main() {
  socket.connect();
  const fine = socket.channel("fine:1");
  print("fine", ...(await outcome(fine.join())));

  // The first join never returns; after the timeout the client leaves and joins again.
  const slow = socket.channel("slow:1");
  const rejoined = new Promise(resolve => slow.join().receive("ok", resolve));
  print("beside", ...(await push(fine, "echo", { n: 1 })));
  print("rejoined", await rejoined);
  print("works", ...(await push(slow, "echo", { n: 2 })));

  print("token", ...(await push(fine, "access_token", { access_token: "bo:3600" })));
  print("refused", ...(await push(fine, "access_token", { access_token: "no" })));
  const later = socket.channel("fine:2");
  print("user", ...(await outcome(later.join())));

  const closed = new Promise(resolve => socket.onClose(event => resolve(event)));
  let errors = 0;
  for (let n = 0; n < 300; n++) {
    fine.push("echo", { n }).receive("error", response => {
      errors += response.reason === "too many messages";
    });
  }
  const { code, reason } = await closed;
  print("closed", code, reason, errors >= 100);
  const opened = new Promise(resolve => socket.onOpen(resolve));
  await opened;
  let reply;
  do {
    reply = await push(fine, "echo", { n: 3 });
  } while (reply[0] !== "ok");
  print("connected again", ...reply);
  socket.disconnect();
}

main().catch(error => {
  console.error(error);
  process.exit(1);
});
