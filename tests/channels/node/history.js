// The official client joins again with the id of the last event. The arguments are the URLs of two
// servers of one topic.
"use strict";

class Reader {
  constructor(url, lastId) {
    this.lastId = lastId;
    this.numbers = [];
    this.responses = [];
    this.watcher = () => {};
    this.socket = new Phoenix.Socket(url, {rejoinAfterMs: () => 20, reconnectAfterMs: () => 200});
    this.socket.connect();
    this.channel = this.socket.channel("room:1", () => ({after: this.lastId}));
    this.channel.onMessage = (event, payload) => {
      if (typeof payload?.id === "string") { this.lastId = payload.id; }
      return payload;
    };
    this.channel.on("news", (payload) => {
      this.numbers.push(payload.n);
      this.watcher();
    });
    this.channel.join().receive("ok", (response) => {
      this.responses.push(response);
      this.watcher();
    });
  }

  // Waits for so many events and joins.
  sees(events, joins) {
    return new Promise((resolve) => {
      this.watcher = () => {
        if (this.numbers.length >= events && this.responses.length >= joins) { resolve(); }
      };
      this.watcher();
    });
  }
}

globalThis.run = async (report, ...urls) => {
  const [writer, reader] = [new Reader(urls[0], null), new Reader(urls[1], 0)];
  let count = 0;
  const send = (number) => {
    for (let sent = 0; sent < number; sent += 1) {
      count += 1;
      writer.channel.push("news", {n: count});
    }
    return writer.sees(count, 1);
  };

  const leave = () => new Promise((resolve) => { reader.socket.disconnect(resolve); });

  await Promise.all([writer.sees(0, 1), reader.sees(0, 1)]);
  await send(2);
  await reader.sees(2, 1);

  await leave();
  await send(3);
  reader.socket.connect();
  await reader.sees(5, 2);
  report("connected again", [...reader.numbers]);

  writer.channel.push("crash", {});  // and it joins again
  await writer.sees(5, 2);
  await send(1);
  await reader.sees(6, 2);
  report("after a crash", [...writer.numbers]);

  await leave();
  await send(7);
  reader.socket.connect();
  await reader.sees(11, 3);
  report("with a gap", [...reader.numbers]);
  report("responses", reader.responses);

  const newcomer = new Reader(urls[1], 0);
  await newcomer.sees(5, 1);
  report("newcomer", [newcomer.numbers, newcomer.responses]);
  for (const one of [writer, reader, newcomer]) { one.socket.disconnect(); }
};
