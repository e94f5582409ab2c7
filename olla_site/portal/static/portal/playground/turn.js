// One turn of a conversation on the page: what was said, the answer as it grows, and all there is to know about it.
//
//   createTurn({ prompt, images, results, run, compact }) -> { element, update(), turn, readResults() }
//
// Everything a model or backend sent is put in by textContent alone.
"use strict";
(() => {
  const { CODE, measureRate } = window.olla.playground;
  const SHOWN_CODE = 20_000; // characters of a snippet on the page; Copy takes all of it
  const SHOWN_NUMBERS = 8;
  const REDRAW = 400; // milliseconds between two drawings of open details while the answer grows
  const STATES = {
    waiting: ["quiet", "waiting"], answering: ["quiet", "answering"], done: ["good", "complete"],
    stopped: ["warn", "stopped"], failed: ["bad", "failed"],
  };
  let count = 0;

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function showTime(milliseconds) {
    if (milliseconds === null) return "–";
    if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
    return `${(milliseconds / 1000).toFixed(milliseconds < 10_000 ? 2 : 1)} s`;
  }

  const showCount = (value) => (value === undefined ? "–" : Number(value).toLocaleString());

  // Growing text is appended to, so that a long answer costs no more a piece than a short one.
  function grow(element, text) {
    const node = element.firstChild;
    if (!node || !text.startsWith(node.data.slice(0, 1)) || node.length > text.length) element.textContent = text;
    else if (node.length < text.length) node.appendData(text.slice(node.length));
  }

  function pretty(text) {
    try {
      return JSON.stringify(JSON.parse(text), null, 2);
    } catch {
      return text;
    }
  }

  function describeVectors(vectors) {
    return vectors.map((vector, place) => {
      const numbers = vector.slice(0, SHOWN_NUMBERS).map((each) => Number(each).toPrecision(4)).join(", ");
      const name = vectors.length > 1 ? `Vector ${place + 1}: ` : "";
      return `${name}${vector.length} dimensions\n[${numbers}${vector.length > SHOWN_NUMBERS ? ", …" : ""}]`;
    }).join("\n\n");
  }

  function describeTrace(text) {
    try {
      const value = JSON.parse(text);
      return Object.entries(value).map(([name, each]) => [name, typeof each === "string" ? each : JSON.stringify(each)]);
    } catch {
      return [["trace", text]];
    }
  }

  function createTurn({ prompt, images, results, run, api }) {
    count += 1;
    const number = count;
    const element = document.getElementById("turn-template").content.firstElementChild.cloneNode(true);
    const part = (name) => element.querySelector(`[data-p="${name}"]`);
    const parts = Object.fromEntries([...element.querySelectorAll("[data-p]")].map((each) => [each.dataset.p, each]));
    const fields = [];
    let drawn = 0;
    let later = 0;

    function showSaid() {
      parts.prompt.textContent = prompt;
      parts.prompt.hidden = !prompt;
      for (const { name, text } of results) {
        parts.said.append(make("p", "small muted wrap", `Result of ${name}: ${text.slice(0, 300) || "(empty)"}`));
      }
      for (const url of images) {
        const image = make("img", "thumb");
        image.src = url;
        image.alt = "Image that was sent";
        parts.said.append(image);
      }
    }

    // Tabs find their panels by id, so each turn's get its number.
    function nameTabs() {
      for (const tab of element.querySelectorAll("[role=tab]")) {
        const name = tab.dataset.tab;
        tab.id = `turn-${number}-tab-${name}`;
        tab.setAttribute("aria-controls", `turn-${number}-${name}`);
        const panel = part(name);
        panel.id = `turn-${number}-${name}`;
        panel.setAttribute("aria-labelledby", tab.id);
      }
      part("code-text").id = `turn-${number}-code-text`;
      part("code-copy").dataset.copy = `turn-${number}-code-text`;
    }

    function showState() {
      const [tone, words] = STATES[run.state];
      parts.state.className = `pill tone-${tone}`;
      if (parts.state.textContent !== words) parts.state.textContent = words;
      element.dataset.state = run.state;
      const why = run.state === "done" && run.answer.finish && !["stop", "end_turn"].includes(run.answer.finish);
      parts.finish.textContent = why ? `ended: ${run.answer.finish}` : "";
    }

    function showMeasures() {
      const { times, answer } = run;
      const ended = times.total !== null;
      const begun = times.first ?? times.headers ?? 0;
      // What came in one burst at its end took the whole time to make, whatever the wire says.
      const streamed = ended && times.total - begun > times.total / 10;
      const rate = ended ? measureRate(answer, (streamed ? times.total - begun : times.total) / 1000) : null;
      const values = {
        first: showTime(times.first), total: showTime(times.total),
        rate: rate ? `${rate.rate.toFixed(1)} ${rate.unit}` : "–",
        tokens: `${showCount(answer.usage.input)} → ${showCount(answer.usage.output)}`,
      };
      for (const [name, value] of Object.entries(values)) if (parts[name].textContent !== value) parts[name].textContent = value;
      if (rate && !rate.exact) parts.rate.title = "Counted from the chunks of the stream: the backend did not say how many tokens.";
    }

    function showCalls() {
      const { calls } = run.answer;
      calls.forEach((call, place) => {
        let box = parts.calls.children[place];
        if (!box) {
          box = make("div", "call");
          box.append(make("h4", "mono wrap"), make("pre", "call-arguments"));
          box.lastChild.tabIndex = 0;
          parts.calls.append(box);
        }
        box.firstChild.textContent = `Tool call: ${call.name || "(no name)"}`;
        box.lastChild.textContent = run.state === "answering" ? call.arguments : pretty(call.arguments);
      });
    }

    // What the tools would have answered goes back with the next prompt; the APIs accept no conversation without it.
    function askResults() {
      run.answer.calls.forEach((call, place) => {
        call.id ||= `call_${number}_${place}`;
        const label = make("label", "small", "Result to send back with the next prompt");
        const field = make("textarea", "input mono");
        field.id = `turn-${number}-result-${place}`;
        label.htmlFor = field.id;
        field.rows = 2;
        parts.calls.children[place].append(label, field);
        fields.push({ id: call.id, name: call.name, field });
      });
    }

    function showError() {
      if (run.answer.error && parts.error.hidden) {
        parts.error.hidden = false;
        parts.error.textContent = run.answer.error;
      }
    }

    function showServed() {
      const named = Object.fromEntries(run.headers);
      const endpoint = named["x-olla-endpoint"] || "";
      const model = named["x-olla-model-used"] || "";
      parts.served.textContent = endpoint ? `${decodeName(endpoint)}${model ? ` · as ${decodeName(model)}` : ""}` : "";
      if (run.requestId && parts.link.hidden) {
        parts.link.href = `/requests/id/${encodeURIComponent(run.requestId)}/`;
        parts.link.hidden = false;
      }
    }

    function drawHeaders() {
      const ours = run.headers.filter(([name]) => name.startsWith("x-olla-"));
      const others = run.headers.filter(([name]) => !name.startsWith("x-olla-"));
      fillFacts(part("headers-list"), [["status", String(run.status || "none")], ...ours, ...others]);
    }

    function drawFrames() {
      const { items, dropped } = run.frames;
      part("frames-note").textContent = items.length || dropped
        ? `${items.length} frame${items.length === 1 ? "" : "s"}, with the milliseconds after sending.${dropped ? ` ${dropped} earlier ones are left out.` : ""}`
        : "Nothing has come yet.";
      part("frames-text").textContent = items.map(({ at, text }) => `${String(Math.round(at)).padStart(6)}  ${text}`).join("\n");
    }

    function drawTrace() {
      part("trace-note").hidden = Boolean(run.trace);
      fillFacts(part("trace-list"), run.trace ? describeTrace(run.trace) : []);
    }

    function writeCode() {
      const { path, headers, body } = run.request;
      return CODE[part("language").value]({ url: `${window.location.origin}${path}`, headers, body });
    }

    function drawCode() {
      const text = writeCode();
      part("code-text").textContent = text.slice(0, SHOWN_CODE);
      part("code-note").hidden = text.length <= SHOWN_CODE;
    }

    // Only what is open is drawn.
    function drawDetails() {
      drawn = performance.now();
      if (!parts.wire.open) return;
      const chosen = element.querySelector("[role=tab][aria-selected=true]").dataset.tab;
      ({ headers: drawHeaders, frames: drawFrames, trace: drawTrace, code: drawCode })[chosen]();
    }

    function drawSoon() {
      if (!parts.wire.open || later) return;
      const pause = run.times.total === null ? Math.max(0, REDRAW - (performance.now() - drawn)) : 0;
      later = setTimeout(() => { later = 0; drawDetails(); }, pause);
    }

    function update() {
      const { answer } = run;
      grow(parts.text, answer.vectors ? describeVectors(answer.vectors) : answer.text);
      parts.text.hidden = run.times.total !== null && !parts.text.textContent;
      parts.thinking.hidden = !answer.thinking;
      grow(part("thinking-text"), answer.thinking);
      showCalls();
      showState();
      showMeasures();
      showServed();
      showError();
      drawSoon();
      if (run.state === "done" && answer.calls.length && !fields.length) askResults();
    }

    // The button's own listener comes before the page's, which copies what the element holds at that moment.
    part("code-copy").addEventListener("click", () => {
      part("code-text").textContent = writeCode();
      setTimeout(drawCode, 0);
    });
    parts.wire.addEventListener("toggle", drawDetails);
    element.addEventListener("olla:tab", drawDetails);
    part("language").addEventListener("change", drawCode);
    parts.model.textContent = run.request.body.model;
    element.classList.toggle("is-vector", api === "embeddings");
    showSaid();
    nameTabs();
    update();

    // What the conversation remembers of it; null when nothing came that could be built on.
    function recall() {
      const whole = run.state === "done";
      const calls = whole ? run.answer.calls : [];
      if (!run.answer.text && !calls.length) return null;
      return { api, prompt, images, results, answer: { ...run.answer, calls } };
    }

    const readResults = () => fields.map(({ id, name, field }) => ({ id, name, text: field.value }));
    return { element, run, update, recall, readResults };
  }

  function decodeName(text) {
    try {
      return decodeURIComponent(text);
    } catch {
      return text;
    }
  }

  function fillFacts(list, pairs) {
    list.replaceChildren(...pairs.flatMap(([name, value]) => [make("dt", "mono", name), make("dd", "mono", value)]));
  }

  Object.assign(window.olla.playground, { createTurn, make });
})();
