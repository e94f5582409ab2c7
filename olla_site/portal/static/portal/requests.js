// The request log grows while it is looked at: new rows come over a socket, never to a hidden tab. Filtered, the page
// asks for its rows when it hears that there are some.
"use strict";
(() => {
  const EVERY = 2000; // milliseconds between two questions
  const MOST_ROWS = 300;
  const rows = document.getElementById("rows");
  const address = rows?.dataset.more;
  if (!address) return;
  const isFiltered = "filtered" in rows.dataset;
  const state = document.getElementById("live");
  const pause = document.getElementById("pause");
  let newest = rows.dataset.newest;
  let paused = false;
  let asking = 0; // the moment of the last question
  let later = 0;

  function insert(text) {
    // The server's own fragment, escaped there; a table's rows parse only inside a table.
    const holder = new DOMParser().parseFromString(`<table><tbody>${text}</tbody></table>`, "text/html");
    const known = new Set([...rows.children].map((row) => row.dataset.key));
    const fresh = [...holder.querySelectorAll("tr")].filter((row) => !known.has(row.dataset.key));
    if (!fresh.length) return;
    if (BigInt(fresh[0].dataset.key) > BigInt(newest)) newest = fresh[0].dataset.key;
    rows.prepend(...fresh.map((row) => document.adoptNode(row)));
    while (rows.children.length > MOST_ROWS) rows.lastElementChild.remove();
    document.getElementById("none").hidden = true;
    document.getElementById("log").hidden = false;
    window.ollaTimes.show(rows);
  }

  const missed = () => `${address}&after=${newest}`;

  async function look() {
    clearTimeout(later);
    if (paused || document.hidden) return;
    const wait = asking + EVERY - Date.now();
    if (wait > 0) {
      later = setTimeout(look, wait);
      return;
    }
    asking = Date.now();
    try {
      const answer = await fetch(missed(), { headers: { "HX-Request": "true" } });
      const text = await answer.text(); // also one not wanted: unread, an answer holds its connection
      if (answer.status === 401 || answer.status === 403) window.location.reload();
      else if (answer.ok && !paused) insert(text);
    } catch {
      // the live mark says that the server is away
    }
  }

  const line = window.olla.connect({
    path: "/portal/live/requests",
    onMessage({ log }) {
      if (!log || isFiltered) look();
      else if (!paused) insert(log);
    },
    poll: missed,
    onPoll: insert,
  });

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    if (paused) {
      line.rest();
      state.dataset.state = "paused";
      state.textContent = "Paused";
    } else line.go();
  });
})();
