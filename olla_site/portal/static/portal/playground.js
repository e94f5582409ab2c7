// The playground: a form, one or two conversations beside each other, and what sends between them. Its parts:
// playground/wire.js (frames), answer.js (what they say), request.js (form to request), code.js (snippets),
// run.js (sending), images.js (attachments), turn.js (one answer on the page).
"use strict";
(() => {
  const { APIS, build, newRun, run, createTurn, attachments } = window.olla.playground;
  const MOST_WITH_FRAMES = 20; // answers that keep their raw frames
  const form = document.getElementById("playground");
  const fields = form.elements;
  const status = document.getElementById("play-status");
  const compare = document.getElementById("compare");
  const images = attachments(form);
  let stopper = null; // of the requests that are open

  const columns = [...form.querySelectorAll("[data-column]")].map((element) => ({
    element,
    name: element.dataset.column,
    log: element.querySelector(".log"),
    empty: element.querySelector(".log-empty"),
    turns: [],
  }));

  const shown = () => columns.filter(({ element }) => !element.hidden);
  const chosenApi = () => form.querySelector("input[name=api]:checked").value;

  // -- the form

  function showApi() {
    const api = chosenApi();
    const known = APIS[api];
    document.getElementById("api-path").textContent = known.path;
    for (const element of form.querySelectorAll("[data-for]")) {
      element.hidden = !element.dataset.for.split(" ").includes(api);
    }
    document.getElementById("prompt-label").textContent = api === "embeddings" ? "Text to embed" : "Prompt";
    images.allow(known.images);
  }

  function findField(name, column) {
    return name === "model" ? fields[`model_${column.name}`] : fields[name];
  }

  function clearProblems() {
    for (const element of form.querySelectorAll("[aria-invalid]")) element.removeAttribute("aria-invalid");
    for (const element of form.querySelectorAll(".error")) {
      element.textContent = "";
      element.hidden = true;
    }
  }

  // Each beside its field; the first gets the focus, its group opened.
  function showProblems(found) {
    found.forEach(({ field, words, column }, place) => {
      const input = findField(field, column);
      const error = document.getElementById(`${input.id}-error`);
      input.setAttribute("aria-invalid", "true");
      error.textContent = words;
      error.hidden = false;
      const box = input.closest("details");
      if (box) box.open = true;
      if (place === 0) input.focus();
    });
  }

  function readFields(column) {
    const text = (name) => fields[name].value;
    const last = column.turns.at(-1);
    return {
      api: chosenApi(), model: fields[`model_${column.name}`].value, prompt: text("prompt"), images: images.list(),
      system: text("system"), temperature: text("temperature"), max_tokens: text("max_tokens"), top_p: text("top_p"),
      seed: text("seed"), stop: text("stop"), tools: text("tools"), extra: text("extra"), key: text("key"),
      stream: fields.stream.checked, results: last ? last.readResults() : [],
    };
  }

  // -- sending

  function say(words) {
    status.textContent = words;
  }

  function busy(now) {
    document.getElementById("send").disabled = now;
    document.getElementById("stop-button").disabled = !now;
    form.classList.toggle("is-busy", now);
  }

  const atEnd = (log) => log.scrollHeight - log.scrollTop - log.clientHeight < 48;

  // Drawn once a frame of the screen, however many pieces come; the log follows unless somebody scrolled up.
  function drawer(turn, log) {
    let asked = 0;
    const draw = () => {
      asked = 0;
      const follow = atEnd(log);
      turn.update();
      if (follow) log.scrollTop = log.scrollHeight;
    };
    return () => {
      if (turn.run.times.total !== null) { // a hidden tab gets no frames, but must show the end
        cancelAnimationFrame(asked);
        draw();
      } else asked ||= requestAnimationFrame(draw);
    };
  }

  function addTurn(column, values, request) {
    const turn = createTurn({
      prompt: values.prompt, images: request.api === "embeddings" ? [] : values.images,
      results: APIS[request.api].tools ? values.results : [], run: newRun(request), api: request.api,
    });
    column.empty.hidden = true;
    column.turns.push(turn);
    column.turns.at(-1 - MOST_WITH_FRAMES)?.run.frames.clear();
    column.log.append(turn.element);
    column.log.scrollTop = column.log.scrollHeight;
    return turn;
  }

  async function sendOne(column, values, request, signal) {
    const turn = addTurn(column, values, request);
    const wishes = { pin: fields[`pin_${column.name}`].value.trim(), trace: fields.trace.checked };
    return run(turn.run, { wishes, signal, onChange: drawer(turn, column.log) });
  }

  function prepare() {
    const made = shown().map((column) => {
      const values = readFields(column);
      const past = column.turns.map((turn) => turn.recall()).filter(Boolean);
      return { column, values, ...build(values, past) };
    });
    const problems = made.flatMap(({ problems: found, column }) => found.map((each) => ({ ...each, column })));
    return { made, problems };
  }

  // The prompt goes once somebody has answered it, unless it was changed meanwhile.
  function forgetPrompt(sent, runs) {
    if (runs.every((each) => each.state === "failed")) return;
    if (fields.prompt.value === sent.prompt) fields.prompt.value = "";
    images.forget(sent.images);
  }

  function sumUp(runs) {
    const count = (state) => runs.filter((each) => each.state === state).length;
    if (runs.length === 1) return { done: "The answer is complete.", stopped: "Stopped.", failed: "That failed." }[runs[0].state];
    return `${count("done")} complete, ${count("stopped")} stopped, ${count("failed")} failed.`;
  }

  async function send() {
    if (stopper) return;
    clearProblems();
    const { made, problems } = prepare();
    if (problems.length) {
      showProblems(problems);
      say("Not sent: see what is marked.");
      return;
    }
    stopper = new AbortController();
    busy(true);
    say(made.length > 1 ? "Both are answering." : "Answering.");
    try {
      const { signal } = stopper;
      const runs = await Promise.all(made.map(({ column, values, request }) => sendOne(column, values, request, signal)));
      forgetPrompt(made[0].values, runs);
      say(sumUp(runs));
    } finally {
      stopper = null;
      busy(false);
    }
  }

  function stop() {
    stopper?.abort();
  }

  function clear() {
    stop();
    for (const column of columns) {
      for (const turn of column.turns) turn.element.remove();
      column.turns = [];
      column.empty.hidden = false;
    }
    say("The conversation is empty.");
    fields.prompt.focus();
  }

  function toggleCompare() {
    const on = compare.getAttribute("aria-pressed") !== "true";
    compare.setAttribute("aria-pressed", String(on));
    columns[1].element.hidden = !on;
    form.classList.toggle("is-compared", on);
    if (on) fields[`model_${columns[1].name}`].focus();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  form.addEventListener("change", (event) => {
    if (event.target.name === "api") showApi();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && form.contains(event.target)) {
      event.preventDefault();
      send();
    } else if (event.key === "Escape") stop();
  });
  document.getElementById("stop-button").addEventListener("click", stop);
  document.getElementById("clear").addEventListener("click", clear);
  compare.addEventListener("click", toggleCompare);
  window.addEventListener("pagehide", stop);
  if (window.matchMedia("(min-width: 1000px)").matches) document.getElementById("parameters").open = true;
  showApi();
  busy(false);
})();
