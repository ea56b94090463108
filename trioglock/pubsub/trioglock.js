// @ts-check
/**
 * Subscribes to a channel of a trioglock hub, and reconnects without losing messages.
 *
 *     import { subscribe } from "/trioglock.js";
 *     const feed = subscribe("/live/news", { onMessage: data => show(data) });
 *
 * After an interruption, the server sends the messages that follow the last one received, or a gap.
 */

/**
 * - `"connecting"`: connecting, or waiting before the next attempt
 * - `"open"`: subscribed
 * - `"offline"`: waiting until the browser is online
 * - `"closed"`: ended by `close()`, or by the server with code 1000 or 1008
 * @typedef {"connecting" | "open" | "offline" | "closed"} State
 */

/**
 * @typedef {object} Handlers
 * @property {(data: string | Uint8Array, message: {id: string | null, channel: string}) => void}
 *   onMessage called for each message; `id` is null if the hub has no history
 * @property {(gap: {seconds: number, id: string | null}) => void} [onGap] called where messages may
 *   be missing, for example to reload the data of the page; `seconds` is the length of the outage
 * @property {(state: State, close?: {code: number, reason: string}) => void} [onState] called when
 *   the state changes; `close` is passed only with `"closed"`
 */

/**
 * @typedef {object} Feed
 * @property {(data: string | Blob | BufferSource) => void} send sends a message to the server;
 *   throws an error unless the state is `"open"`
 * @property {() => void} close unsubscribes
 */

/** The upper limits of the first delay and of any delay between two attempts. */
const INITIAL_DELAY = 1_000, MAX_DELAY = 30_000;
/** How long a connection must last to reset the delay. */
const STABLE_AFTER = 10_000;
/** The time limit for connecting and subscribing. */
const OPEN_TIMEOUT = 20_000;
/** How often the clock is checked, and the time between two checks that shows that the page or the
 * computer was suspended. Browsers may run the timers of a hidden page only once a minute. */
const CHECK_INTERVAL = 10_000, SUSPENDED_AFTER = 90_000;
/** Close codes after which the module does not reconnect: normal closure and policy violation. */
const FINAL_CODES = [1000, 1008];

/**
 * Subscribes to a channel.
 *
 * @param {string | URL} url the address of the channel, absolute or relative to the page. The query
 *   parameter `after` is the id of the last message that the page already has, or 0 to receive
 *   first all messages that the hub has kept.
 * @param {Handlers} handlers the functions to call
 * @returns {Feed} the subscription
 */
export function subscribe(url, { onMessage, onGap = () => {}, onState = () => {} }) {
  const address = new URL(url, globalThis.location?.href);
  address.protocol = address.protocol.replace("http", "ws");
  let last = address.searchParams.get("after") ?? "";
  /** @type {State | undefined} */
  let state;
  /** @type {WebSocket | undefined} */
  let socket;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let attempts = 0, openedAt = 0, lostAt = 0, checkedAt = Date.now();
  const listeners = new AbortController();
  const checks = setInterval(check, CHECK_INTERVAL);

  /** @param {State} next @param {{code: number, reason: string}} [close] */
  function setState(next, close) {
    if (state === next) return;
    if (state === "open") lostAt = Date.now();
    state = next;
    onState(next, close);
  }

  function connect() {
    disconnect();
    if (globalThis.navigator?.onLine === false) return setState("offline");
    address.searchParams.set("after", last);
    socket = new WebSocket(address);
    socket.onmessage = event => receive(JSON.parse(event.data));
    socket.onclose = ({ code, reason }) => {
      if (FINAL_CODES.includes(code)) end(code, reason);
      else retry();
    };
    socket.onerror = retry; // Node.js 20 has no close event after a refused handshake
    timer = setTimeout(retry, OPEN_TIMEOUT);
    setState("connecting");
  }

  /** Closes the socket and ignores its further events. */
  function disconnect() {
    clearTimeout(timer);
    if (!socket) return;
    socket.onmessage = socket.onclose = socket.onerror = null;
    socket.close(1000);
    socket = undefined;
  }

  function retry() {
    disconnect();
    if (state === "open" && Date.now() - openedAt >= STABLE_AFTER) attempts = 0;
    const limit = Math.min(MAX_DELAY, INITIAL_DELAY * 2 ** attempts++);
    timer = setTimeout(connect, Math.random() * limit);
    setState("connecting");
  }

  /** @param {any} frame */
  function receive(frame) {
    const resumed = last !== "" && last !== "0";
    if (frame.id) last = frame.id;
    if ("subscribed" in frame) {
      clearTimeout(timer);
      openedAt = Date.now();
      try {
        setState("open");
      } finally {
        // No id was sent with the request, so the server does not know which messages were missed.
        if (lostAt && !resumed && socket) {
          // The clock may have been set back.
          onGap({ seconds: Math.max(0, openedAt - lostAt) / 1000, id: frame.id });
        }
      }
    } else if ("gap" in frame) {
      onGap({ seconds: frame.gap, id: frame.id });
    } else {
      const data = frame.data ?? Uint8Array.from(atob(frame.base64), char => char.charCodeAt(0));
      onMessage(data, { id: frame.id, channel: frame.channel });
    }
  }

  function check() {
    const late = Date.now() - checkedAt;
    checkedAt = Date.now();
    // The server may have closed the connection without the browser having noticed.
    if (late >= SUSPENDED_AFTER) connect();
  }

  function wake() {
    check();
    if (!socket || socket.readyState > WebSocket.OPEN) connect();
  }

  /** @param {number} code @param {string} reason */
  function end(code, reason) {
    disconnect();
    clearInterval(checks);
    listeners.abort();
    setState("closed", { code, reason });
  }

  // Not before the caller has the feed, which the handlers may use.
  timer = setTimeout(connect);
  const { signal } = listeners;
  globalThis.addEventListener?.("online", () => { attempts = 0; connect(); }, { signal });
  globalThis.addEventListener?.("offline", connect, { signal });
  globalThis.addEventListener?.("pageshow", wake, { signal });
  globalThis.document?.addEventListener("resume", wake, { signal });
  globalThis.document?.addEventListener("visibilitychange", () => {
    if (!document.hidden) wake();
  }, { signal });

  return {
    send(data) {
      if (!socket || state !== "open") {
        throw new Error(`cannot send: the feed is ${state ?? "connecting"}`);
      }
      socket.send(data);
    },
    close: () => end(1000, ""),
  };
}
