// An endpoint's own page: its row of the feed, and charts of the last quarter of an hour.
"use strict";
(() => {
  const { olla, uPlot } = window;
  const head = document.getElementById("endpoint");
  const id = head.dataset.endpoint;
  const charts = document.getElementById("charts");
  const EVERY = 5000;
  const COLOURS = { requests: 1, errors: 2, in_flight: 1, latency: 1, first_byte: 4, tokens: 3 };
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
  const plots = [];
  let timer = 0;

  function setTimes(root) {
    for (const element of root.querySelectorAll("time[data-at]")) setTime(element, Number(element.dataset.at));
    window.ollaTimes.show(root);
  }

  function setTime(element, at) {
    if (at) element.setAttribute("datetime", new Date(at * 1000).toISOString());
    else {
      element.removeAttribute("datetime");
      element.textContent = element.dataset.f === "last" ? "never" : "";
    }
    element.closest("[hidden]")?.toggleAttribute("hidden", !at);
  }

  function setField(name, value) {
    for (const element of document.querySelectorAll(`[data-f="${name}"]`)) {
      if (element.tagName === "TIME") setTime(element, value);
      else element.textContent = name === "limit" && value ? `/${value}` : String(value);
    }
  }

  function hear(message) {
    const values = message.rows?.[id];
    if (!values) return;
    for (const [name, value] of Object.entries(values)) {
      if (name === "tone") {
        const pill = document.querySelector("[data-f=label]");
        pill.className = `pill tone-${value}${pill.classList.contains("stale") ? " stale" : ""}`;
      } else if (name === "stale") {
        document.querySelector("[data-f=label]").classList.toggle("stale", value);
        document.querySelector("[data-f=stale]").hidden = !value;
      } else if (name === "breaker_tone") {
        document.querySelector("[data-f=breaker]").className = `breaker tone-${value}`;
      } else setField(name, value);
      if (name === "state") showState(value);
    }
    window.ollaTimes.show(document.getElementById("main"));
  }

  function showState(value) {
    document.querySelector("[data-f=state]").hidden = !value;
    for (const button of document.querySelectorAll("[data-when]")) button.hidden = (button.dataset.when === "held") !== Boolean(value);
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function draw(data) {
    const times = data.series.requests.map((_, place) => data.from + place * data.step);
    for (const box of charts.querySelectorAll("[data-chart]")) {
      const names = box.dataset.chart.split(" ");
      const values = [times, ...names.map((name) => data.series[name])];
      const known = plots.find((each) => each.box === box);
      if (known) known.plot.setData(values);
      else plots.push({ box, plot: make(box, names, values) });
    }
  }

  // A value between two steps without any has no line to be seen by.
  function alone(plot, index) {
    return plot.data[index].flatMap((value, at, all) => (value != null && all[at - 1] == null && all[at + 1] == null ? [at] : []));
  }

  function make(box, names, values) {
    const axis = { stroke: colour("--olla-muted"), grid: { stroke: colour("--olla-line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
    const options = {
      width: box.clientWidth,
      height: box.clientHeight,
      legend: { show: false },
      cursor: { y: false, points: { size: 6 } },
      scales: { y: { range: (_, low, high) => [0, Math.max(high || 0, 1) * 1.1] } },
      axes: [{ ...axis, size: 30, values: (_, ticks) => ticks.map((tick) => clock.format(tick * 1000)) }, { ...axis, size: 52 }],
      series: [{}, ...names.map((name) => ({ stroke: colour(`--olla-chart-${COLOURS[name]}`), width: 1.5, spanGaps: false, points: { show: true, size: 5, filter: alone } }))],
    };
    box.replaceChildren();
    return new uPlot(options, values, box);
  }

  async function renew() {
    clearTimeout(timer);
    if (document.hidden) return;
    try {
      const answer = await fetch(charts.dataset.history, { cache: "no-store" });
      const text = await answer.text(); // also a sign-in page: unread, an answer holds its connection
      if (answer.ok && !answer.redirected) draw(JSON.parse(text));
    } catch {
      // the live mark says that the server is away
    }
    timer = setTimeout(renew, EVERY);
  }

  new ResizeObserver(() => {
    for (const { box, plot } of plots) plot.setSize({ width: box.clientWidth, height: box.clientHeight });
  }).observe(charts);
  function redraw() {
    for (const { plot } of plots.splice(0)) plot.destroy();
    renew();
  }
  document.addEventListener("olla:theme", redraw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) renew(); });

  setTimes(document.getElementById("main"));
  showState(document.querySelector("[data-f=state]").textContent);
  renew();
  olla.connect({ onMessage: hear });
})();
