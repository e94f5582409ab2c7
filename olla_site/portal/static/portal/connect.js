// The connection, checked from the browser: what a client on this machine would see.
"use strict";
(() => {
  const box = document.getElementById("outcome");

  function say(level, text) {
    const note = document.createElement("p");
    note.className = `notice notice-${level}`;
    note.textContent = text;
    box.replaceChildren(note);
  }

  async function run(button, work) {
    button.disabled = true;
    say("info", "Asking…");
    const began = performance.now();
    try {
      await work(() => `${Math.round(performance.now() - began)} ms`);
    } catch (error) {
      say("error", `The server cannot be reached: ${error.message}`);
    } finally {
      button.disabled = false;
    }
  }

  async function problem(answer) {
    const body = await answer.json().catch(() => null);
    const id = answer.headers.get("X-Olla-Request-ID");
    return `HTTP ${answer.status}: ${body?.error?.message || "no message"}${id ? ` (request ${id})` : ""}`;
  }

  const check = document.getElementById("check");
  check.addEventListener("click", () => run(check, async (elapsed) => {
    const answer = await fetch("/olla/openai/v1/models", { cache: "no-store" });
    if (!answer.ok) return say("error", await problem(answer));
    const count = (await answer.json()).data.length;
    if (!count) return say("warning", `Reached in ${elapsed()}, but no model is ready to use.`);
    say("success", `Reached in ${elapsed()}; ${count} ${count === 1 ? "model is" : "models are"} ready to use.`);
  }));

  const ask = document.getElementById("ask");
  ask?.addEventListener("click", () => run(ask, async (elapsed) => {
    const answer = await fetch("/olla/openai/v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        model: ask.dataset.model, max_tokens: 16, messages: [{ role: "user", content: "Say one word." }],
      }),
    });
    if (!answer.ok) return say("error", await problem(answer));
    const text = (await answer.json()).choices?.[0]?.message?.content || "(nothing)";
    say("success", `${answer.headers.get("X-Olla-Endpoint")} answered in ${elapsed()}: ${text.slice(0, 200)}`);
  }));
})();
