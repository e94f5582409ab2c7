// One WebSocket for each page: `olla.connect({ onMessage, onState })`. It comes back by itself, polls an address where
// sockets do not pass, and rests while the tab is hidden. States: connecting, live, polling, lost, signed-out.
// Other pages than the fleet's name their own: { path, poll() -> address, onPoll(text) }. Returns { rest(), go() }.
"use strict";
(() => {
  const SOCKET = "/portal/live";
  const POLL = "/portal/live.json";
  const PAUSES = [300, 1000, 2000, 4000, 8000]; // milliseconds before the next try
  const POLL_EVERY = 3000;
  const SILENCE = 10000; // without a word for so long a socket that seems open is asked anew
  const WORDS = {
    connecting: "Connecting", live: "Live", polling: "Polling", lost: "Connection lost, trying", "signed-out": "Signed out",
  };

  function connect({ onMessage, onState, path = SOCKET, poll: address = () => POLL, onPoll = (text) => onMessage(JSON.parse(text)) }) {
    let resting = false;
    let socket = null;
    let failures = 0;
    let retry = 0;
    let poller = 0;
    let watch = 0;
    let state = "";

    function be(next) {
      if (next === state) return;
      state = next;
      document.documentElement.classList.toggle("is-old", next === "lost");
      for (const element of document.querySelectorAll("#live")) {
        element.dataset.state = next;
        element.textContent = WORDS[next];
      }
      onState?.(next);
    }

    function heard(text) {
      clearTimeout(watch);
      watch = setTimeout(() => socket?.close(), SILENCE * 6);
      onMessage(JSON.parse(text));
    }

    function open() {
      clearTimeout(retry);
      if (document.hidden || resting || socket) return;
      if (state !== "polling" && state !== "lost") be("connecting");
      const scheme = location.protocol === "https:" ? "wss:" : "ws:";
      const mine = new WebSocket(`${scheme}//${location.host}${path}`);
      socket = mine;
      mine.addEventListener("message", (event) => {
        if (mine !== socket) return;
        failures = 0;
        stopPolling();
        be("live");
        heard(event.data);
      });
      mine.addEventListener("close", () => {
        if (mine !== socket) return;
        socket = null;
        clearTimeout(watch);
        if (document.hidden) return;
        const pause = PAUSES[Math.min(failures, PAUSES.length - 1)];
        failures += 1;
        if (state === "live") be("connecting");
        if (failures > 1) startPolling();
        retry = setTimeout(open, pause * (0.8 + 0.4 * Math.random()));
      });
    }

    async function poll() {
      try {
        const answer = await fetch(address(), { headers: { "HX-Request": "true" }, cache: "no-store" });
        const text = await answer.text(); // whatever it is: unread, an answer holds its connection
        if (answer.status === 401 || answer.status === 403) {
          be("signed-out");
          pause();
          return;
        }
        if (!answer.ok) throw new Error(String(answer.status));
        if (!poller) return; // the socket came back meanwhile
        be("polling");
        onPoll(text);
      } catch {
        if (poller) be("lost");
      }
    }

    function startPolling() {
      if (poller) return;
      poller = setInterval(poll, POLL_EVERY);
      poll();
    }

    function stopPolling() {
      clearInterval(poller);
      poller = 0;
    }

    function pause() {
      clearTimeout(retry);
      clearTimeout(watch);
      stopPolling();
      const old = socket;
      socket = null;
      old?.close();
    }

    document.addEventListener("visibilitychange", () => {
      if (document.hidden) pause();
      else open();
    });
    window.addEventListener("online", open);
    window.addEventListener("pagehide", pause);
    window.addEventListener("pageshow", (event) => { if (event.persisted) open(); });
    open();
    return {
      get state() { return state; },
      rest() { resting = true; pause(); state = ""; },
      go() { resting = false; open(); },
    };
  }

  window.olla.connect = connect;
})();
