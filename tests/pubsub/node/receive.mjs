// Prints a number of messages with their ids.
const [module, url, after, count] = process.argv.slice(2);
const { subscribe } = await import(module);
const messages = [];
const feed = subscribe(`${url}?after=${after}`, {
  onMessage(data, { id }) {
    messages.push([data, id]);
    if (messages.length < Number(count)) return;
    feed.close();
    console.log(JSON.stringify(messages));
  },
});
