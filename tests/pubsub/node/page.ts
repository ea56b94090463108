// What a page may write, and mistakes that the compiler finds.
import { subscribe, type Feed, type State } from "./trioglock.js";

const states: State[] = [];
const feed: Feed = subscribe("/news", {
  onMessage(data, { id, channel }) {
    const text: string = typeof data === "string" ? data : new TextDecoder().decode(data);
    console.log(text.trim(), id?.length, channel.length);
  },
  onGap: ({ seconds, id }) => console.log(seconds.toFixed(1), id?.length),
  onState(state, close) {
    states.push(state);
    if (state === "closed") console.log(close?.code.toFixed(), close?.reason.trim());
  },
});
feed.send("hello");
feed.send(new Uint8Array(2));
feed.close();
subscribe(new URL("https://example.org/news"), { onMessage: () => {} });

// @ts-expect-error - onMessage is missing
subscribe("/news", {});
// @ts-expect-error - the data may be binary
subscribe("/news", { onMessage: data => data.trim() });
// @ts-expect-error - the id may be null
subscribe("/news", { onMessage: (_, { id }) => id.length });
// @ts-expect-error - not a state
states.push("reconnecting");
// @ts-expect-error - not a message
feed.send(17);
