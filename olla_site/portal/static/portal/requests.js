// The request log grows while it is looked at: new rows are asked for every two seconds, never by a hidden tab.
"use strict";
(() => {
  const EVERY = 2000;
  const MOST_ROWS = 300;
  const rows = document.getElementById("rows");
  const address = rows?.dataset.more;
  if (!address) return;
  const state = document.getElementById("live");
  const pause = document.getElementById("pause");
  let newest = rows.dataset.newest;
  let paused = false;
  let asking = false;

  function say(name, words) {
    if (state.dataset.state === name) return;
    state.dataset.state = name;
    state.textContent = words;
  }

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

  async function look() {
    if (paused || asking || document.hidden) return;
    asking = true;
    try {
      const answer = await fetch(`${address}&after=${newest}`, { headers: { "HX-Request": "true" } });
      if (answer.status === 401 || answer.status === 403) return window.location.reload();
      if (!answer.ok) throw new Error(String(answer.status));
      insert(await answer.text());
      say("live", "Live");
    } catch {
      say("lost", "Not reachable, trying again");
    } finally {
      asking = false;
    }
  }

  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
    say(paused ? "connecting" : "live", paused ? "Paused" : "Live");
    look();
  });
  document.addEventListener("visibilitychange", look);
  setInterval(look, EVERY);
})();
