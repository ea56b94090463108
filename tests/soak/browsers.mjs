// Subscribes like many browsers, and prints what they have received.
//
// Arguments: the URL of trioglock.js, the number of clients, and the URLs of channels. Each channel
// carries the numbers 0, 1, 2 ... and at last "end". Prints "ready" when all clients have
// subscribed, "finished" when all have received "end", and a report as JSON when stdin has ended.
const [module, count, ...channels] = process.argv.slice(2);
const { subscribe } = await import(module);

const report = {
  received: 0, lost: 0, reported: 0, repeated: 0, unfinished: Number(count), gaps: [], reconnects: [],
};
let opening = Number(count);

function browse(url) {
  let next = 0, gap = false, interrupted = 0;
  const feed = subscribe(url, {
    onMessage(data) {
      if (data === "end") {
        feed.close();
        if (--report.unfinished === 0) console.log("finished");
        return;
      }
      const number = Number(data);
      report.received += 1;
      if (number < next) report.repeated += 1;
      if (number > next) report[gap ? "reported" : "lost"] += number - next;
      next = Math.max(next, number + 1);
      gap = false;
    },
    onGap() {
      report.gaps.push(Date.now());
      gap = true;
    },
    onState(state) {
      if (state === "connecting" && next) interrupted = Date.now();
      if (state !== "open") return;
      if (interrupted) report.reconnects.push([interrupted, Date.now()]);
      else if (--opening === 0) console.log("ready");
    },
  });
}

for (let number = 0; number < count; number++) browse(channels[number % channels.length]);
process.stdin.on("end", () => {
  console.log(JSON.stringify(report));
  process.exit();
}).resume();
