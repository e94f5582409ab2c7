// The fleet page: puts what the feed says into rows, tiles and sparklines; search, order and row actions.
"use strict";
(() => {
  const { olla } = window;
  const root = document.getElementById("fleet");
  const history_ = {};

  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function setTime(element, at) {
    element.dataset.at = at;
    if (!at) {
      element.removeAttribute("datetime");
      setText(element, element.dataset.f === "last" ? "never" : "not planned");
      return;
    }
    element.setAttribute("datetime", new Date(at * 1000).toISOString());
  }

  // What most rows do not show is not in the page: name -> class and where it belongs.
  const PARTS = {
    stale: ["pill tone-warn", "label"], state: ["pill tone-quiet", "label"], reason: ["reason", ""],
    limit: ["limit", "in_flight"], waiting: ["waiting", "in_flight"],
  };

  function setPart(row, name, text) {
    let element = row.querySelector(`[data-f=${name}]`);
    if (!element && text) {
      const [className, beside] = PARTS[name];
      element = document.createElement("span");
      element.className = className;
      element.dataset.f = name;
      (beside ? row.querySelector(`[data-f=${beside}]`).parentElement : row.querySelector(".status")).append(element);
    }
    if (!element) return;
    setText(element, text);
    element.hidden = !text;
    if (name === "reason") element.title = text;
  }

  const setters = {
    label(row, value) { setText(row.querySelector("[data-f=label]"), value); },
    tone(row, value) {
      const pill = row.querySelector("[data-f=label]");
      pill.className = `pill tone-${value}${pill.classList.contains("stale") ? " stale" : ""}`;
      row.dataset.tone = value;
    },
    stale(row, value) {
      row.querySelector("[data-f=label]").classList.toggle("stale", value);
      setPart(row, "stale", value ? "stale" : "");
    },
    reason(row, value) { setPart(row, "reason", value); },
    state(row, value) {
      setPart(row, "state", value);
      row.dataset.state = value;
    },
    state_reason(row, value) {
      const element = row.querySelector("[data-f=state]");
      if (element) element.title = value;
    },
    since(row, value) {
      const element = row.querySelector("[data-f=since]");
      setTime(element, value);
      element.parentElement.hidden = !value;
    },
    last(row, value) { setTime(row.querySelector("[data-f=last]"), value); },
    next(row, value) { setTime(row.querySelector("[data-f=next]"), value); },
    rank(row, value) { row.dataset.rank = value; },
    ready(row, value) { row.dataset.ready = value; },
    limit(row, value) { setPart(row, "limit", value ? `/${value}` : ""); },
    waiting(row, value) { setPart(row, "waiting", value ? `${value} waiting` : ""); },
    breaker(row, value) { setText(row.querySelector("[data-f=breaker]"), value); },
    breaker_tone(row, value) { row.querySelector("[data-f=breaker]").className = `breaker tone-${value}`; },
  };

  function setRow(row, values) {
    for (const [name, value] of Object.entries(values)) {
      if (setters[name]) setters[name](row, value);
      else {
        const cell = row.querySelector(`[data-f="${name}"]`);
        if (cell) setText(cell, String(value));
      }
    }
    if ("since" in values || "last" in values || "next" in values) window.ollaTimes.show(row);
  }

  function setTroubles(troubles) {
    const list = document.getElementById("trouble-list");
    list.replaceChildren();
    troubles.forEach(([id, name], place) => {
      if (place) list.append(", ");
      const element = document.createElement(id ? "a" : "span");
      if (id) element.href = `#endpoint-${id}`;
      else element.className = "muted";
      element.textContent = name.length > 32 ? `${name.slice(0, 31)}…` : name;
      list.append(element);
    });
    document.getElementById("troubles").hidden = !troubles.length;
  }

  function setSummary(values) {
    for (const [name, value] of Object.entries(values)) {
      for (const element of document.querySelectorAll(`[data-s="${name}"]`)) setText(element, String(value));
    }
    if ("tone" in values) document.getElementById("verdict").className = `verdict tone-${values.tone}`;
    if ("troubles" in values) setTroubles(values.troubles);
    if ("warning" in values) {
      const warning = document.getElementById("fleet-warning");
      setText(warning, values.warning);
      warning.hidden = !values.warning;
    }
    if ("ready" in values || "total" in values) {
      history_.ready = values.ready ?? history_.ready;
      history_.total = values.total ?? history_.total;
      document.title = `${history_.ready} of ${history_.total} ready · Olla for Django`;
    }
  }

  function drawSparks() {
    for (const svg of document.querySelectorAll(".spark[data-series]")) {
      const values = history_.series?.[svg.dataset.series];
      if (values) olla.spark(svg, values);
    }
  }

  function addPoint(point) {
    if (!history_.series) return;
    for (const [name, value] of Object.entries(point)) {
      history_.series[name].push(value);
      history_.series[name].shift();
    }
    drawSparks();
  }

  const body = () => document.getElementById("fleet-rows");
  let fetching = "";

  async function renewRows(shape) {
    if (fetching === shape) return;
    fetching = shape;
    if (!body()) {
      location.reload(); // the first endpoint has come
      return;
    }
    await window.htmx.ajax("GET", "/fleet/rows/", { target: "#fleet-rows", swap: "outerHTML" });
    if (!body().rows.length) location.reload(); // the last one has gone
    prepare();
    view.apply();
    fetching = "";
  }

  // Who works with the keyboard stays where he is when rows are replaced.
  const FOCUSABLE = ".pick, .endpoint-name, .more";
  let focused = null; // the row's id, and which of its elements

  document.addEventListener("htmx:beforeSwap", () => {
    const row = document.activeElement.closest("#fleet-rows > tr");
    focused = row && [row.id, [...row.querySelectorAll(FOCUSABLE)].indexOf(document.activeElement)];
  });
  document.addEventListener("htmx:afterSwap", () => {
    if (focused) document.getElementById(focused[0])?.querySelectorAll(FOCUSABLE)[focused[1]]?.focus({ preventScroll: true });
    focused = null;
  });

  function hear(message) {
    const shape = document.querySelector("[data-shape]").dataset.shape;
    if (message.shape && message.shape !== shape) renewRows(message.shape);
    if (!root) return;
    if (message.summary) setSummary(message.summary);
    for (const [id, values] of Object.entries(message.rows || {})) {
      const row = document.getElementById(`endpoint-${id}`);
      if (row) setRow(row, values);
    }
    if (message.history) {
      history_.series = message.history;
      drawSparks();
    }
    if (message.point) addPoint(message.point);
    if (message.rows) view.apply();
  }

  // Once for each new set of rows: times from seconds, and the order they came in.
  function prepare() {
    [...body().rows].forEach((row, place) => {
      row.dataset.order = place;
      row.dataset.state = row.querySelector("[data-f=state]")?.textContent || "";
      row.dataset.tone = /tone-(\w+)/.exec(row.querySelector("[data-f=label]").className)[1];
      for (const element of row.querySelectorAll("time[data-at]")) {
        if (element.dataset.f !== "since") element.dataset.short = "";
        setTime(element, Number(element.dataset.at));
      }
      const name = row.querySelector(".endpoint-name").textContent;
      row.querySelector(".more")?.setAttribute("aria-label", `Actions for ${name}`);
      row.querySelector(".pick")?.setAttribute("aria-label", `Choose ${name}`);
      for (const element of row.querySelectorAll(".url, .reason")) element.title = element.textContent;
      row.dataset.text = row.querySelector("th").textContent.toLowerCase();
    });
    window.ollaTimes.show(body());
  }

  function matches(row, fields) {
    const words = (fields.q || "").toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.every((word) => row.dataset.text.includes(word))) return false;
    const held = row.dataset.state !== "";
    if (fields.status === "problem") return !held && row.dataset.tone === "bad";
    if (fields.status === "held") return held;
    if (fields.status === "ready") return !held && ["good", "warn"].includes(row.dataset.tone);
    return true;
  }

  function value(row, key) {
    if (!key || key === "rank") return Number(row.dataset.rank);
    if (key === "name") return row.querySelector(".endpoint-name").textContent;
    const text = row.querySelector(`[data-f="${key}"]`).textContent;
    if (key === "breaker") return text;
    const number = Number.parseFloat(text);
    return Number.isNaN(number) ? -1 : number;
  }

  function shown(count, total) {
    const words = `${total} endpoint${total === 1 ? "" : "s"}`;
    setText(document.getElementById("count"), count === total ? words : `${count} of ${words}`);
    document.getElementById("nothing-found").hidden = count > 0;
    document.dispatchEvent(new CustomEvent("olla:rows"));
  }

  let view = null;
  if (root) {
    prepare();
    view = olla.table({ form: document.getElementById("filters"), head: root.tHead, body, matches, value, shown });
    document.getElementById("clear-filters").addEventListener("click", () => view.clear());
    window.addEventListener("hashchange", flash);
    flash();
  }

  // A link to a row shows and lights it, whatever is filtered away.
  function flash() {
    const row = location.hash.startsWith("#endpoint-") && document.getElementById(location.hash.slice(1));
    if (!row) return;
    if (row.hidden) view.clear();
    row.scrollIntoView({ block: "center" });
    row.dataset.flash = "";
    row.querySelector("a").focus({ preventScroll: true });
    setTimeout(() => delete row.dataset.flash, 1900);
  }

  olla.connect({ onMessage: hear });
})();
