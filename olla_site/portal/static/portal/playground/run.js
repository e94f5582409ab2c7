// One request through the real path: sent, timed, read frame by frame, stopped. Nothing here knows the page.
//
//   run(request, { signal, onChange }) -> run       settles when the answer has ended, however it ended
//
// A run: { request, answer, frames, state, status, headers, sentAt, times: { headers, first, total } }; states are
// waiting, answering, done, stopped, failed. Times are milliseconds after sending.
"use strict";
(() => {
  const { newAnswer, feed, readErrorBody, chooseReader, frameList } = window.olla.playground;
  const LONGEST_ERROR_BODY = 256 * 1024;
  const TOKEN_KEPT = 8 * 60 * 1000; // it is good for ten minutes
  const tokens = new Map(); // scopes -> { token, until }

  // An operator token with these scopes. Throws an Error with words for people.
  async function operatorToken(scopes, signal) {
    const wanted = scopes.join(",");
    const kept = tokens.get(wanted);
    if (kept && Date.now() < kept.until) return kept.token;
    const answer = await fetch("/operator/token", {
      method: "POST", signal, headers: { "X-CSRFToken": window.olla.csrf() }, body: new URLSearchParams({ scopes: wanted }),
    });
    const text = await answer.text();
    if (!answer.ok) {
      // A page instead of JSON: the session is another one than this page was drawn for.
      const gone = answer.status === 401 || text.trimStart().startsWith("<");
      const words = "You signed out, or in anew, since this page was opened. Reload it to pin or to see traces.";
      throw new Error(gone ? words : `No operator token: ${readErrorBody(text, answer.status)}`);
    }
    const { token } = JSON.parse(text);
    tokens.set(wanted, { token, until: Date.now() + TOKEN_KEPT });
    return token;
  }

  // The headers of an operator's wishes: a pinned endpoint, the trace.
  async function operatorHeaders({ pin, trace }, signal) {
    const scopes = [...(pin ? ["pin"] : []), ...(trace ? ["trace"] : [])];
    if (!scopes.length) return {};
    const headers = { "X-Olla-Operator": await operatorToken(scopes, signal) };
    if (pin) headers["X-Olla-Pin"] = encodeURIComponent(pin);
    return headers;
  }

  async function* readText(response) {
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        const text = done ? decoder.decode() : decoder.decode(value, { stream: true });
        if (text) yield text;
        if (done) return;
      }
    } finally {
      reader.cancel().catch(() => {}); // it may have ended or failed already
    }
  }

  async function readFailure(made, response) {
    let text = "";
    for await (const piece of readText(response)) {
      text += piece;
      if (text.length > LONGEST_ERROR_BODY) break;
    }
    made.frames.add(made.elapsed(), text);
    made.answer.error = readErrorBody(text, response.status);
    if (response.status === 401) tokens.clear();
  }

  function take(made, frames) {
    const { answer, request, times } = made;
    for (const frame of frames) {
      made.frames.add(made.elapsed(), frame.raw);
      feed(answer, request.api, frame);
      if (times.first === null && answer.pieces) times.first = made.elapsed();
      if (answer.error) return;
    }
  }

  async function readAnswer(made, response, onChange) {
    const reader = chooseReader(response.headers.get("Content-Type") || "");
    for await (const text of readText(response)) {
      take(made, reader.push(text));
      onChange(made);
      if (made.answer.error) return;
    }
    take(made, reader.end());
    if (!made.answer.ended && !made.answer.error) {
      made.answer.error = "The answer ended before it said that it was complete.";
    }
  }

  async function exchange(made, wishes, signal, onChange) {
    const { request } = made;
    Object.assign(request.headers, await operatorHeaders(wishes, signal));
    made.sentAt = performance.now();
    const response = await fetch(request.path, {
      method: "POST", headers: request.headers, body: JSON.stringify(request.body), signal,
      cache: "no-store",
    });
    made.status = response.status;
    made.headers = [...response.headers].filter(([name]) => name !== "x-olla-trace");
    made.trace = response.headers.get("X-Olla-Trace") || "";
    made.requestId = response.headers.get("X-Olla-Request-ID") || "";
    made.times.headers = made.elapsed();
    made.state = "answering";
    onChange(made);
    await (response.ok ? readAnswer(made, response, onChange) : readFailure(made, response));
  }

  function newRun(request) {
    return {
      request, answer: newAnswer(), frames: frameList(), state: "waiting", status: 0, headers: [], trace: "",
      requestId: "", sentAt: performance.now(), times: { headers: null, first: null, total: null },
      elapsed() { return performance.now() - this.sentAt; },
    };
  }

  // What went wrong outside the answer itself, in words.
  function explain(made, error) {
    if (error instanceof RangeError) return error.message;
    if (!(error instanceof TypeError)) return error.message || String(error);
    if (made.status) return "The connection broke off before the answer was complete.";
    return "The server cannot be reached.";
  }

  async function run(made, { wishes, signal, onChange }) {
    try {
      await exchange(made, wishes, signal, onChange);
      made.state = made.answer.error ? "failed" : "done";
    } catch (error) {
      if (signal.aborted) made.state = "stopped";
      else {
        made.answer.error = explain(made, error);
        made.state = "failed";
      }
    }
    made.times.total = made.elapsed();
    onChange(made);
    return made;
  }

  Object.assign(window.olla.playground, { newRun, run });
})();
