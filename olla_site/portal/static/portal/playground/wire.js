// What comes over the wire: server-sent events, lines of JSON, and the last raw frames. Pure; see playground.js.
"use strict";
(() => {
  const LONGEST_LINE = 8 * 1024 * 1024; // characters without an end of line
  const MOST_FRAMES = 500;
  const MOST_CHARACTERS = 256 * 1024;
  const LONGEST_FRAME = 64 * 1024;

  // Lines that end in LF, CR or CR LF, however the text was cut. A CR at the end waits: its LF may be on its way.
  function lineReader() {
    let pieces = [];
    let size = 0;
    return {
      push(text) {
        pieces.push(text);
        size += text.length;
        if (!/[\r\n]/.test(text)) {
          if (size > LONGEST_LINE) throw new RangeError("A line of the answer is longer than 8 MB.");
          return [];
        }
        const lines = pieces.join("").split(/\r\n|\n|\r(?!$)/);
        const rest = lines.pop();
        pieces = [rest];
        size = rest.length;
        return lines;
      },
      end() {
        const rest = pieces.join("").replace(/\r$/, "");
        pieces = [];
        return rest;
      },
    };
  }

  // Server-sent events as the HTML standard reads them; what stands at the end without its blank line counts too,
  // for servers that forget it.
  function sseReader() {
    const lines = lineReader();
    let raw = [];
    let data = [];
    let name = "";
    let first = true;

    function finish(found) {
      if (data.length) found.push({ event: name || "message", data: data.join("\n"), raw: raw.join("\n") });
      else if (raw.length) found.push({ event: "", data: "", raw: raw.join("\n") });
      raw = [];
      data = [];
      name = "";
    }

    function take(line, found) {
      if (first) line = line.replace(/^\uFEFF/, "");
      first = false;
      if (line === "") return finish(found);
      raw.push(line);
      const colon = line.indexOf(":");
      if (colon === 0) return undefined; // a comment
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (field === "data") data.push(value);
      if (field === "event") name = value;
      return undefined;
    }

    return {
      push(text) {
        const found = [];
        for (const line of lines.push(text)) take(line, found);
        return found;
      },
      end() {
        const found = [];
        const rest = lines.end();
        if (rest) take(rest, found);
        finish(found);
        return found;
      },
    };
  }

  // One JSON value a line; empty lines say nothing.
  function ndjsonReader() {
    const lines = lineReader();
    const wrap = (line) => ({ event: "message", data: line, raw: line });
    return {
      push: (text) => lines.push(text).filter((line) => line.trim()).map(wrap),
      end: () => [lines.end()].filter((line) => line.trim()).map(wrap),
    };
  }

  // A whole body as one frame.
  function bodyReader() {
    let text = "";
    return {
      push(more) {
        text += more;
        if (text.length > LONGEST_LINE) throw new RangeError("The answer is longer than 8 MB.");
        return [];
      },
      end: () => (text.trim() ? [{ event: "message", data: text, raw: text }] : []),
    };
  }

  function chooseReader(contentType) {
    if (/^text\/event-stream\b/i.test(contentType)) return sseReader();
    if (/ndjson|jsonl|json-seq/i.test(contentType)) return ndjsonReader();
    return bodyReader();
  }

  // The last frames with the milliseconds after sending; older ones are counted.
  function frameList(most = MOST_FRAMES, room = MOST_CHARACTERS) {
    const items = [];
    let size = 0;
    let dropped = 0;
    return {
      items,
      get dropped() { return dropped; },
      add(at, text) {
        const longest = Math.min(LONGEST_FRAME, room);
        const left = text.length - longest;
        const kept = left > 0 ? `${text.slice(0, longest)} … ${left} more characters` : text;
        items.push({ at, text: kept });
        size += kept.length;
        while (items.length > most || (size > room && items.length > 1)) {
          size -= items.shift().text.length;
          dropped += 1;
        }
      },
      clear() {
        dropped += items.length;
        items.length = 0;
        size = 0;
      },
    };
  }

  const parts = { lineReader, sseReader, ndjsonReader, bodyReader, chooseReader, frameList };
  window.olla.playground = Object.assign(window.olla.playground || {}, parts);
})();
