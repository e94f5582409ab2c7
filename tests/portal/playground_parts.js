// Runs the playground's pure scripts in node: each line read is [name, ...arguments], each
// line printed its result.
"use strict";
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

const folder = path.join(__dirname, "../../olla_site/portal/static/portal/playground");
globalThis.window = { olla: {} };
for (const name of ["wire", "answer", "request", "code"]) {
  vm.runInThisContext(fs.readFileSync(path.join(folder, `${name}.js`), "utf8"), { filename: name });
}
const parts = window.olla.playground;

// The frames of a text that arrives in these pieces.
function frames(kind, ...pieces) {
  const reader = parts[`${kind}Reader`]();
  return [...pieces.flatMap((piece) => reader.push(piece)), ...reader.end()];
}

// A text cut at every place gives the same frames; the frames, or where they differ.
function cutEverywhere(kind, text) {
  const whole = JSON.stringify(frames(kind, text));
  for (let place = 0; place <= text.length; place += 1) {
    const cut = JSON.stringify(frames(kind, text.slice(0, place), text.slice(place)));
    if (cut !== whole) return { place, cut, whole };
  }
  if (JSON.stringify(frames(kind, ...text)) !== whole) return "letter by letter";
  return frames(kind, text);
}

function answer(api, ...texts) {
  const made = parts.newAnswer();
  for (const text of texts) parts.feed(made, api, { event: "message", data: text });
  return made;
}

function keep(most, room, ...texts) {
  const list = parts.frameList(most, room);
  texts.forEach((text, at) => list.add(at, text));
  return { items: list.items, dropped: list.dropped };
}

const EMPTY = {
  api: "chat", model: "m", prompt: "hi", images: [], results: [], system: "", temperature: "", max_tokens: "", top_p: "",
  seed: "", stop: "", tools: "", extra: "", key: "", stream: true,
};
const build = (fields, turns = []) => parts.build({ ...EMPTY, ...fields }, turns);
const code = (language, asked) => parts.CODE[language](asked);

function longLine() {
  try {
    frames("ndjson", ...Array(9).fill("x".repeat(1024 * 1024)));
    return "kept";
  } catch (error) {
    return error.message;
  }
}

const { readErrorBody, measureRate } = parts;
const known = { cutEverywhere, answer, keep, build, code, longLine, readErrorBody, measureRate };
require("node:readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const [name, ...values] = JSON.parse(line);
  process.stdout.write(`${JSON.stringify(known[name](...values) ?? null)}\n`);
});
