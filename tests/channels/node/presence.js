// The Presence of the official client with two servers, whose URLs are the arguments.
"use strict";

const {Socket, Presence} = Phoenix;

// A browser tab of a user.
class Tab {
  constructor(url, key) {
    this.socket = new Socket(url, {rejoinAfterMs: () => 20, reconnectAfterMs: () => 200});
    this.socket.connect();
    this.channel = this.socket.channel("room:1", {key});
    this.presence = new Presence(this.channel);
    this.log = [];
    this.presence.onJoin((name, known) => { if (!known) { this.log.push(["join", name]); } });
    this.presence.onLeave((name, left) => { if (!left.metas.length) { this.log.push(["leave", name]); } });
  }

  join() {
    return new Promise((resolve) => this.channel.join().receive("ok", resolve));
  }

  list() {
    const metas = this.presence.list((key, entry) => [key, ...entry.metas.map((meta) => meta.status)]);
    return metas.sort();
  }

  // Waits until the list has this value.
  sees(...expected) {
    return new Promise((resolve) => {
      const check = () => {
        if (JSON.stringify(this.list()) === JSON.stringify(expected)) { resolve(); }
      };
      this.presence.onSync(check);
      check();
    });
  }
}

globalThis.run = async (report, ...urls) => {
  const [phone, laptop, other] = [
    new Tab(urls[0], "al"), new Tab(urls[1], "al"), new Tab(urls[1], "bo"),
  ];
  const all = (...expected) => Promise.all(
    [phone, laptop, other].filter((tab) => tab.channel.state === "joined")
      .map((tab) => tab.sees(...expected)));

  await phone.join();
  await all(["al", "here"]);
  await laptop.join();
  await all(["al", "here", "here"]);
  await other.join();
  await all(["al", "here", "here"], ["bo", "here"]);
  report("joined", phone.list());

  other.channel.push("status", "away");
  await all(["al", "here", "here"], ["bo", "away"]);
  report("updated", phone.list());

  phone.channel.push("crash", {});  // and it joins again
  await all(["al", "here", "here"], ["bo", "away"]);

  await new Promise((resolve) => laptop.channel.leave().receive("ok", resolve));
  await all(["al", "here"], ["bo", "away"]);
  report("left", phone.list());

  other.socket.conn.close();
  await phone.sees(["al", "here"]);
  await phone.sees(["al", "here"], ["bo", "here"]);
  report("connected again", phone.list());

  other.socket.disconnect();
  await phone.sees(["al", "here"]);
  report("log", phone.log);
  laptop.socket.disconnect();
  await new Promise((resolve) => phone.socket.disconnect(resolve));
};
