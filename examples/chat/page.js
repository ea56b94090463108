// The page of the chat. Everything that others have written is shown as text, never as HTML.

import {Presence, Socket} from "/phoenix.mjs";

const TYPING_FOR = 3000;  // milliseconds after the last key
const GROUP_FOR = 5 * 60;  // seconds in which messages of one person are shown as a group
const MAX_MESSAGES = 500;  // for each room; older ones are removed from the page

const find = id => document.getElementById(id);
const log = find("log"), text = find("text");

// The account: all tabs of a browser are one person, identified by a secret.

const account = {secret: randomHex(32), name: "", key: "", rooms: [], ...load()};

function load() {
  try {
    return JSON.parse(localStorage.getItem("chat")) || {};
  } catch {
    return {};
  }
}

function save() {
  try {
    localStorage.setItem("chat", JSON.stringify(account));
  } catch {
    // Without storage, the next visit begins as another person.
  }
}

function randomHex(bytes) {
  return Array.from(crypto.getRandomValues(new Uint8Array(bytes)),
    byte => byte.toString(16).padStart(2, "0")).join("");
}

// State.

let socket, lobby, directory, current;
let me = {id: "", is_moderator: false};
const rooms = new Map();

class Room {
  constructor(name) {
    this.name = name;
    this.topic = `room:${name}`;
    this.items = element("ol");
    this.lastId = 0;  // of the last event of the history that this page has
    this.pending = new Map();  // items of messages that the server has not confirmed, by key
    this.last = null;
    this.unread = 0;
    this.draft = "";
    this.error = "";
    this.isJoined = false;
    this.scrollTop = null;  // null: at the end
    this.channel = socket.channel(this.topic, () => ({after: this.lastId}));
    this.channel.onMessage = (event, payload) => {
      if (typeof payload?.id === "string") { this.lastId = payload.id; }  // it can be a key of a presence
      return payload;
    };
    this.presence = new Presence(this.channel);
    this.presence.onSync(() => { showRooms(); if (this === current) showPeople(); });
    this.stopTyping = null;  // the timer while this page is typing
    this.channel.on("message", message => this.receive(message));
    this.channel.on("removed", ({name, by}) => this.add(divider(`${by} removed ${name}`)));
    this.channel.join()
      .receive("ok", response => this.joined(response))
      .receive("error", ({reason}) => this.refused(reason));
  }

  joined({id, is_moderator, now, gap}) {
    me = {id, is_moderator};
    showMe();
    this.joinedAt ??= now;  // what is older is history
    if (gap) this.add(divider(this.last ? "Some messages may be missing" : "Earlier messages are no longer kept"));
    this.isJoined = true;
    showAll();
  }

  refused(reason) {
    if (reason === "removed") {
      end("You were removed", "A moderator has removed you from this chat. "
        + "You can come back ten minutes after that.");
    } else if (reason !== "join crashed") {  // then phoenix.js tries again
      this.error = reason;
      this.channel.leave();
      showAll();
    }
  }

  get count() {
    return this.presence.list().length;
  }

  people() {
    const entries = this.presence.list((id, {metas}) => ({id, metas, ...metas.at(-1)}));
    for (const entry of entries) entry.isTyping = entry.metas.some(({typing}) => typing);
    return entries.sort((a, b) => (b.id === me.id) - (a.id === me.id) || a.name.localeCompare(b.name));
  }

  // Messages.

  receive(message) {
    const isNew = message.at >= this.joinedAt;
    const isOwn = message.from.id === me.id;
    if (isOwn) this.forgetPending(message.key);
    if (isNew && !isOwn) this.noteUnread();
    const isFirst = !this.last || day(this.last.at) !== day(message.at);
    if (isFirst) this.add(divider(day(message.at)));
    const continues = !isFirst && this.items.lastConfirmed?.classList.contains("message")
      && this.last.from.id === message.from.id && message.at - this.last.at < GROUP_FOR;
    this.add(messageItem(message, {isOwn, continues}));
    this.last = message;
    if (this === current && isNew && !isOwn) {
      announce(`${message.from.name}: ${message.text.slice(0, 300)}`);
    }
  }

  // Adds an item before those that are being sent.
  add(item) {
    const isAtEnd = this === current && isScrolledToEnd();
    const [firstPending = null] = this.pending.values();
    this.items.insertBefore(item, firstPending);
    this.items.lastConfirmed = item;
    while (this.items.children.length > MAX_MESSAGES) this.items.firstChild.remove();
    if (this !== current) return;
    showEmpty();
    if (isAtEnd) scrollToEnd();
  }

  noteUnread() {
    const isSeen = this === current && !document.hidden && isScrolledToEnd();
    if (isSeen) return;
    if (!this.unread) {
      this.items.querySelector(".new")?.remove();
      this.add(divider("New", "new"));
    }
    this.unread += 1;
    showRooms();
  }

  send(words, key = randomHex(8)) {
    const item = messageItem({from: {id: me.id, name: account.name}, at: Date.now() / 1000, text: words},
      {isOwn: true, isPending: true});
    this.items.append(item);
    this.pending.set(key, item);
    const fail = why => {
      if (this.pending.get(key) !== item) return;  // it has arrived after all
      const again = button("Try again", () => { this.forgetPending(key); this.send(words, key); });
      const drop = button("Discard", () => { this.forgetPending(key); showEmpty(); });
      item.classList.add("failed");
      item.append(element("p", {className: "failure", role: "alert"}, `Not sent: ${why}. `, again, " ", drop));
      if (this === current) scrollToEnd();
    };
    this.channel.push("message", {text: words, key})
      .receive("error", ({reason}) => fail(reason || "the server refused it"))
      .receive("timeout", () => fail("there is no connection"));
    showEmpty();
    scrollToEnd();
  }

  forgetPending(key) {
    this.pending.get(key)?.remove();
    this.pending.delete(key);
  }

  // The presence shows to the others that this page is typing, until some time after the last key.
  setTyping(isTyping) {
    const wasTyping = this.stopTyping !== null;
    clearTimeout(this.stopTyping);
    this.stopTyping = isTyping ? setTimeout(() => this.setTyping(false), TYPING_FOR) : null;
    if (isTyping !== wasTyping && this.channel.canPush()) this.channel.push("typing", {typing: isTyping});
  }
}

// The connection.

function connect() {
  socket = new Socket("/socket", {
    params: () => ({name: account.name}),
    authToken: () => account.key ? `${account.secret} ${account.key}` : account.secret,
    heartbeatIntervalMs: 15_000,
  });
  socket.onOpen(() => showConnection("connected"));
  socket.onClose(() => showConnection("reconnecting"));
  socket.onError(() => showConnection("reconnecting"));
  socket.connect();
  lobby = socket.channel("lobby", () => ({rooms: [...rooms.values()].map(room => room.topic)}));
  directory = new Presence(lobby);
  directory.onSync(showRooms);
  for (const name of account.rooms) rooms.set(name, new Room(name));
  lobby.join().receive("error", ({reason}) => { if (reason !== "join crashed") lobby.leave(); });
}

function openRoom(name, {isBack = false} = {}) {
  name = name.trim();
  if (!rooms.has(name)) {
    rooms.set(name, new Room(name));
    saveRooms();
  }
  const path = `/rooms/${encodeURIComponent(name)}`;
  if (!isBack && location.pathname !== path) history.pushState(null, "", path);
  switchTo(rooms.get(name));
}

function leaveRoom(room) {
  if (!room) return;
  room.channel.leave();
  rooms.delete(room.name);
  saveRooms();
  const [next] = rooms.values();
  if (next) return openRoom(next.name);
  history.pushState(null, "", "/");
  switchTo(null);
}

function saveRooms() {
  account.rooms = [...rooms.keys()];
  save();
  if (lobby?.joinedOnce) lobby.push("rooms", {rooms: account.rooms.map(name => `room:${name}`)});
}

function switchTo(room) {
  if (current) {
    current.draft = text.value;
    current.setTyping(false);
    current.scrollTop = isScrolledToEnd() ? null : log.scrollTop;
    if (current !== room && !current.unread) current.items.querySelector(".new")?.remove();
  }
  current = room;
  find("find-room").value = "";
  find("announcer").replaceChildren();
  log.firstElementChild.replaceWith(room ? room.items : element("ol"));
  text.value = room?.draft ?? "";
  openPanel(null);
  showAll();
  log.scrollTop = room?.scrollTop ?? log.scrollHeight;
  noteSeen();
  if (matchMedia("(pointer: fine)").matches) text.focus();
}

function noteSeen() {
  if (!current?.unread || document.hidden || !isScrolledToEnd()) return;
  current.unread = 0;
  showRooms();
}

function end(title, words) {
  socket.disconnect();
  find("chat").hidden = true;
  find("ended").hidden = false;
  find("ended-title").textContent = title;
  find("ended-text").textContent = words;
  find("ended").focus();
}

// Showing.

function showAll() {
  showRooms();
  showPeople();
  showEmpty();
  find("title").textContent = current?.name ?? "No room";
  find("title").title = current?.name ?? "";
  for (const name of ["share", "leave"]) {
    for (const shown of document.querySelectorAll(`#${name}, [data-action=${name}]`)) shown.disabled = !current;
  }
  text.disabled = !current || Boolean(current.error);
  text.placeholder = current ? `Message ${current.name}` : "";
  resizeText();
}

function showRooms() {
  const wanted = find("find-room").value.trim().toLowerCase();
  const isWanted = ({name}) => name.toLowerCase().includes(wanted);
  const own = [...rooms.values()].filter(isWanted);
  const others = (directory?.list((topic, {metas}) => ({
    name: topic.slice("room:".length), count: new Set(metas.map(meta => meta.id)).size,
  })) ?? []).filter(room => !rooms.has(room.name) && isWanted(room));
  others.sort((a, b) => b.count - a.count || a.name.localeCompare(b.name, [], {numeric: true}));
  showList(find("rooms"), own, room => room.name, roomItem, updateRoom);
  showList(find("other-rooms"), others.slice(0, 100), room => room.name, roomItem, updateRoom);
  find("others").hidden = !others.length;
  const nothing = find("nothing-found");
  nothing.hidden = Boolean(own.length + others.length) || !wanted;
  nothing.textContent = `No open room is called “${find("find-room").value.trim()}”. Press Enter to open it.`;
  const unread = [...rooms.values()].reduce((sum, room) => sum + room.unread, 0);
  find("all-unread").hidden = !unread;
  find("all-unread").textContent = unread > 99 ? "99+" : unread;
  find("newer").hidden = !current?.unread || isScrolledToEnd();
  document.title = `${unread ? `(${unread}) ` : ""}${current ? `${current.name} · ` : ""}Chat`;
}

function roomItem(room) {
  const open = button("", () => openRoom(room.name), "");
  open.append(element("span", {className: "hash", ariaHidden: "true"}, "#"),
    element("span", {className: "name", dir: "auto"}, room.name), element("span", {className: "count"}));
  open.title = room.name;
  return element("li", {}, open);
}

function updateRoom(item, room) {
  const count = item.querySelector(".count"), open = item.firstChild;
  const people = room.count;
  if (room === current) open.setAttribute("aria-current", "page");
  else open.removeAttribute("aria-current");
  open.classList.toggle("unread", Boolean(room.unread));
  count.classList.toggle("badge", Boolean(room.unread));
  const shown = room.unread ? (room.unread > 99 ? "99+" : room.unread) : people || "";
  const spoken = room.unread ? " unread" : people ? plural(people, " person", " people").slice(`${people}`.length) : "";
  count.replaceChildren(`${shown}`, element("span", {className: "visually-hidden"}, spoken));
}

function showPeople() {
  const people = current?.people() ?? [];
  find("count").textContent = people.length;
  showList(find("people"), people, person => person.id, personItem, updatePerson);
  const typing = people.filter(({id, isTyping}) => isTyping && id !== me.id).map(({name}) => name);
  find("typing").textContent = typing.length > 2 ? "Several people are typing…"
    : typing.length ? `${typing.join(" and ")} ${typing.length > 1 ? "are" : "is"} typing…` : "";
}

function personItem() {
  return element("li", {}, avatar({id: "", name: ""}),
    element("span", {className: "who"}, element("bdi", {className: "name"}), element("span", {className: "hint"})));
}

function updatePerson(item, person) {
  const notes = [
    person.id === me.id && "you", person.is_moderator && "moderator", person.metas.length > 1 && `${person.metas.length} tabs`,
  ];
  item.querySelector(".avatar").replaceWith(avatar(person));
  const name = item.querySelector(".name");
  name.textContent = name.title = person.name;
  item.querySelector(".hint").textContent = notes.filter(Boolean).join(" · ");
  item.person = person;
  if (me.is_moderator && person.id !== me.id && !item.querySelector("button")) {
    item.append(button("✕", () => confirmRemoval(item.person), "icon danger"));
  }
  const remove = item.querySelector("button");
  if (remove) remove.ariaLabel = remove.title = `Remove ${person.name}`;
}

function showEmpty() {
  const empty = find("empty"), [title, words] = empty.children;
  const isEmpty = !current || current.error || !current.items.children.length;
  empty.hidden = !isEmpty;
  if (!isEmpty) return;
  [title.textContent, words.textContent] = !current ? ["No room", "Open one from the list of rooms."]
    : current.error ? ["You cannot join this room", `The server says: ${current.error}.`]
      : !current.isJoined ? [`Joining ${current.name}…`, ""]
        : ["No messages yet", "Say hello, or copy the link to invite others."];
}

const CONNECTION = {connecting: "Connecting…", connected: "Connected", reconnecting: "Reconnecting…"};

function showConnection(state) {
  const shown = find("connection");
  if (shown.dataset.state === state) return;
  shown.dataset.state = state;
  shown.firstChild.textContent = CONNECTION[state];
  find("status").textContent = CONNECTION[state];
  find("banner").hidden = state !== "reconnecting";
  find("banner").textContent = "The connection is lost. Reconnecting…";
}

function announce(words) {
  const spoken = find("announcer");
  spoken.append(element("p", {}, words));
  while (spoken.children.length > 20) spoken.firstChild.remove();
}

// Elements.

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function button(label, onclick, className = "link") {
  return element("button", {type: "button", className, onclick}, label);
}

function divider(words, className = "") {
  return element("li", {className: `divider ${className}`}, element("span", {}, words));
}

function avatar({id, name}) {
  const letters = name.split(/\s+/).slice(0, 2).map(word => [...word][0] ?? "").join("");
  const made = element("span", {className: "avatar", ariaHidden: "true"}, letters.toUpperCase());
  made.style.setProperty("--hue", parseInt(id.slice(0, 4) || "0", 16) % 360);
  return made;
}

function messageItem({from, at, text: words}, {isOwn, isPending = false, continues = false}) {
  const when = new Date(at * 1000);
  const time = element("time", {dateTime: when.toISOString(), title: when.toLocaleString()},
    isPending ? "sending…" : when.toLocaleTimeString([], {hour: "numeric", minute: "2-digit"}));
  const author = element("bdi", {className: "author"}, from.name);
  const body = element("div", {className: "text", dir: "auto"}, ...linked(words));
  const item = element("li", {className: "message"}, avatar(from), element("p", {className: "meta"}, author, " ", time), body);
  item.classList.toggle("own", isOwn);
  item.classList.toggle("pending", isPending);
  item.classList.toggle("continues", continues);
  if (words.length > 1500 || words.split("\n").length > 20) {
    body.classList.add("long");
    const more = button("Show all", () => { body.classList.remove("long"); more.remove(); });
    item.append(more);
  }
  return item;
}

// The text, with links for web addresses.
function linked(words) {
  return words.split(/(https?:\/\/[^\s<>"]*[^\s<>".,;:!?)\]'])/).map((part, index) => index % 2
    ? element("a", {href: part, target: "_blank", rel: "noopener noreferrer nofollow"}, part) : part);
}

// Reuses the items of a list, so that the keyboard focus stays where it is.
function showList(list, values, key, create, update) {
  const known = new Map([...list.children].map(item => [item.dataset.key, item]));
  values.forEach((value, index) => {
    const item = known.get(key(value)) ?? create(value);
    item.dataset.key = key(value);
    update(item, value);
    if (list.children[index] !== item) list.insertBefore(item, list.children[index] ?? null);
  });
  while (list.children.length > values.length) list.lastChild.remove();
}

function day(seconds) {
  const date = new Date(seconds * 1000), days = (new Date().setHours(0, 0, 0, 0) - date.setHours(0, 0, 0, 0)) / 864e5;
  if (days < 0.5) return "Today";
  if (days < 1.5) return "Yesterday";
  return date.toLocaleDateString([], {day: "numeric", month: "long", year: "numeric"});
}

function plural(count, one, many) {
  return `${count}${count === 1 ? one : many}`;
}

function isScrolledToEnd() {
  return log.scrollHeight - log.scrollTop - log.clientHeight < 60;
}

function scrollToEnd() {
  log.scrollTop = log.scrollHeight;
}

// On narrow screens the lists of rooms and people are panels over the messages.

let opener = null;

function openPanel(id) {
  for (const panel of document.querySelectorAll(".panel")) panel.classList.toggle("open", panel.id === id);
  for (const opens of document.querySelectorAll("[data-open]")) opens.setAttribute("aria-expanded", opens.dataset.open === id);
  find("shade").hidden = !id;
  find("room").inert = Boolean(id);
  if (id) find(id).querySelector("[data-close]").focus();
  else opener?.focus();
  opener = id ? opener : null;
}

for (const opens of document.querySelectorAll("[data-open]")) {
  opens.onclick = () => { opener = opens; openPanel(opens.dataset.open); };
}
for (const closes of document.querySelectorAll("[data-close], #shade")) closes.onclick = () => openPanel(null);

document.onkeydown = event => {
  if (event.key === "Escape") openPanel(null);
  if (event.key?.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (getComputedStyle(find("rooms-panel")).position === "fixed") openPanel("rooms-panel");
    find("find-room").focus();
  }
};

// Writing.

function resizeText() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight + 2}px`;  // and the border
}

text.oninput = () => {
  resizeText();
  current?.setTyping(Boolean(text.value.trim()));
};

text.onkeydown = event => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  find("send").requestSubmit();
};

find("send").onsubmit = event => {
  event.preventDefault();
  const words = text.value.trim();
  if (!words || text.disabled) return;
  current.send(words);
  text.value = current.draft = "";
  current.setTyping(false);
  resizeText();
  text.focus();
};

// Reading.

let wasAtEnd = true;

log.onscroll = () => { wasAtEnd = isScrolledToEnd(); noteSeen(); };
new ResizeObserver(() => { if (wasAtEnd) scrollToEnd(); }).observe(log);
document.addEventListener("visibilitychange", noteSeen);
find("newer").onclick = () => { scrollToEnd(); text.focus(); };

// Rooms.

find("find-room").oninput = showRooms;
find("find").onsubmit = event => {
  event.preventDefault();
  if (find("find-room").value.trim()) openRoom(find("find-room").value);
};

async function share() {
  const url = `${location.origin}/rooms/${encodeURIComponent(current.name)}`;
  try {
    await navigator.clipboard.writeText(url);
    find("status").textContent = "The link is copied";
    find("share").textContent = "Copied";
    setTimeout(() => { find("share").textContent = "Copy link"; }, 2000);
  } catch {
    prompt("The link of this room", url);
  }
}

for (const shown of document.querySelectorAll("#share, [data-action=share]")) shown.onclick = share;
for (const shown of document.querySelectorAll("#leave, [data-action=leave]")) shown.onclick = () => leaveRoom(current);

function roomOfPath() {
  const [, name] = location.pathname.match(/^\/rooms\/([^/]+)$/) ?? [];
  try {
    return name && decodeURIComponent(name);
  } catch {
    return undefined;
  }
}

window.onpopstate = () => {
  const name = roomOfPath();
  if (name && current) openRoom(name, {isBack: true});
};

// People.

function confirmRemoval(person) {
  const dialog = find("confirm");
  find("confirm-title").textContent = `Remove ${person.name}?`;
  dialog.onclose = () => {
    if (dialog.returnValue !== "remove") return;
    current.channel.push("remove", {id: person.id, name: person.name})
      .receive("error", ({reason}) => { find("status").textContent = reason; });
  };
  dialog.returnValue = "";
  dialog.showModal();
  dialog.querySelector("[value=cancel]").focus();  // the harmless button
}

find("me").onclick = () => {
  find("new-name").value = account.name;
  find("account").returnValue = "";
  find("account").showModal();
};

find("account").onclose = () => {
  const choice = find("account").returnValue, name = find("new-name").value.trim();
  if (choice === "forget") {
    localStorage.removeItem("chat");
    location.href = "/";
  } else if (choice === "save" && name && name !== account.name) {
    account.name = name;
    save();
    showMe();
    socket.disconnect(() => socket.connect());  // the server learns the name in the handshake
  }
};

function showMe() {
  find("me").replaceChildren(avatar({id: me.id, name: account.name}),
    element("bdi", {className: "name"}, account.name), element("span", {className: "hint"}, "Change"));
  find("me").setAttribute("aria-label", `Your name: ${account.name}. Change it`);
}

// Begin.

function begin(name) {
  find("welcome").hidden = true;
  find("chat").hidden = false;
  showMe();
  connect();
  openRoom(name);
}

find("retry").onclick = () => location.reload();
find("enter").onsubmit = event => {
  event.preventDefault();
  const name = find("name").value.trim(), room = find("first-room").value.trim();
  if (!name || !room) return;
  account.name = name;
  save();
  begin(room);
};

const [, key] = location.hash.match(/^#moderator=(.+)$/) ?? [];
if (key) {
  account.key = key;
  save();
  history.replaceState(null, "", location.pathname);
}
const wanted = roomOfPath() || account.rooms[0];
if (account.name && wanted) {
  begin(wanted);
} else {
  find("welcome").hidden = false;
  find("name").value = account.name;
  find("first-room").value = wanted || "garden";
  find("name").focus();
}
