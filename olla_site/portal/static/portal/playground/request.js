// From the form to a request of one of the four APIs, or to what is wrong with the form. Pure.
//
//   build(fields, turns) -> { request: { api, path, headers, body }, problems: [{ field, words }] }
//
// `turns` is the conversation so far: { api, prompt, images, results, answer }, in their order.
"use strict";
(() => {
  const APIS = {
    chat: { path: "/olla/openai/v1/chat/completions", talks: true, tools: true, images: true, seed: true },
    messages: { path: "/olla/anthropic/v1/messages", talks: true, tools: true, images: true, seed: false },
    generate: { path: "/olla/ollama/api/generate", talks: false, tools: false, images: true, seed: true },
    embeddings: { path: "/olla/openai/v1/embeddings", talks: false, tools: false, images: false, seed: false },
  };
  const MESSAGES_MAX_TOKENS = 1024; // Anthropic's API wants a number

  class Problem extends Error {
    constructor(field, words) {
      super(words);
      this.field = field;
    }
  }

  function readNumber(fields, name, { whole = false, least = -Infinity, most = Infinity, like }) {
    const text = fields[name].trim();
    if (!text) return undefined;
    const value = Number(text);
    const fits = /^[+-]?(\d|\.\d)/.test(text) && Number.isFinite(value) && value >= least && value <= most;
    if (!fits || (whole && !Number.isSafeInteger(value))) throw new Problem(name, `${like}, not “${text.slice(0, 40)}”.`);
    return value;
  }

  function readJSON(fields, name) {
    const text = fields[name].trim();
    if (!text) return undefined;
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Problem(name, `This is not valid JSON: ${error.message}`);
    }
  }

  // One a line; \n and \t stand for what they stand for elsewhere.
  function readStops(fields) {
    const escapes = { n: "\n", t: "\t", r: "\r", "\\": "\\" };
    const lines = fields.stop.split("\n").map((line) => line.replace(/\r$/, "")).filter((line) => line !== "");
    return lines.length ? lines.map((line) => line.replace(/\\([ntr\\])/g, (_, letter) => escapes[letter])) : undefined;
  }

  function nameTool(tool, place) {
    const bare = tool?.function || tool;
    if (typeof bare !== "object" || bare === null || Array.isArray(bare)) {
      throw new Problem("tools", `Tool ${place + 1} must be an object.`);
    }
    if (typeof bare.name !== "string" || !bare.name) throw new Problem("tools", `Tool ${place + 1} needs a name.`);
    return bare;
  }

  // Tools in OpenAI's or Anthropic's shape, in the shape of the API they go to.
  function readTools(fields, api) {
    const given = readJSON(fields, "tools");
    if (given === undefined || !APIS[api].tools) return undefined;
    if (!Array.isArray(given)) throw new Problem("tools", "Tools are a list: [ { … } ].");
    if (!given.length) return undefined;
    return given.map((tool, place) => {
      const bare = nameTool(tool, place);
      if (api === "chat") {
        if (tool.function || (tool.type && tool.type !== "custom")) return tool;
        const { name, description, input_schema: schema } = bare;
        return { type: "function", function: { name, description, parameters: schema } };
      }
      if (!tool.function) return tool;
      return { name: bare.name, description: bare.description, input_schema: bare.parameters || { type: "object" } };
    });
  }

  function readExtra(fields) {
    const extra = readJSON(fields, "extra");
    if (extra === undefined) return {};
    if (typeof extra !== "object" || extra === null || Array.isArray(extra)) {
      throw new Problem("extra", 'Other fields are an object, such as {"think": true}.');
    }
    return extra;
  }

  // -- the conversation

  const base64 = (url) => url.slice(url.indexOf(",") + 1);
  const mediaType = (url) => /^data:([^;,]+)/.exec(url)?.[1] || "image/png";

  function chatUser({ prompt, images }) {
    if (!images.length) return { role: "user", content: prompt };
    const parts = images.map((url) => ({ type: "image_url", image_url: { url } }));
    return { role: "user", content: prompt ? [{ type: "text", text: prompt }, ...parts] : parts };
  }

  function chatMessages(turns, now, system) {
    const list = system ? [{ role: "system", content: system }] : [];
    for (const turn of [...turns, now]) {
      (turn.results || []).forEach(({ id, text }) => list.push({ role: "tool", tool_call_id: id, content: text }));
      if (turn.prompt || turn.images.length) list.push(chatUser(turn));
      if (!turn.answer) continue;
      const said = { role: "assistant", content: turn.answer.text };
      if (turn.answer.calls.length) {
        said.tool_calls = turn.answer.calls.map((call) => ({
          id: call.id, type: "function", function: { name: call.name, arguments: call.arguments || "{}" },
        }));
        if (!said.content) said.content = null;
      }
      list.push(said);
    }
    return list;
  }

  function parseArguments(text) {
    try {
      const value = JSON.parse(text || "{}");
      return typeof value === "object" && value !== null ? value : {};
    } catch {
      return {};
    }
  }

  function messageUser(turn) {
    const blocks = (turn.results || []).map(({ id, text }) => ({ type: "tool_result", tool_use_id: id, content: text }));
    for (const url of turn.images) {
      blocks.push({ type: "image", source: { type: "base64", media_type: mediaType(url), data: base64(url) } });
    }
    if (turn.prompt && !blocks.length) return { role: "user", content: turn.prompt };
    if (turn.prompt) blocks.push({ type: "text", text: turn.prompt });
    return { role: "user", content: blocks };
  }

  function messageAssistant(turn) {
    const { text, thinking, signature, calls } = turn.answer;
    const blocks = [];
    // Signed reasoning goes back where it came from; no other API would know it.
    if (signature && turn.api === "messages") blocks.push({ type: "thinking", thinking, signature });
    if (text) blocks.push({ type: "text", text });
    for (const call of calls) blocks.push({ type: "tool_use", id: call.id, name: call.name, input: parseArguments(call.arguments) });
    return { role: "assistant", content: blocks.length === 1 && text ? text : blocks };
  }

  function messageMessages(turns, now) {
    const list = [];
    for (const turn of [...turns, now]) {
      list.push(messageUser(turn));
      if (turn.answer) list.push(messageAssistant(turn));
    }
    return list;
  }

  // -- the body

  const defined = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

  // What the form has beside the prompt; each field's problem is noted.
  function readParameters(fields, problems) {
    const number = (name, rules) => attempt(problems, () => readNumber(fields, name, rules));
    return {
      temperature: number("temperature", { least: 0, like: "A number from 0 up, such as 0.7" }),
      maxTokens: number("max_tokens", { whole: true, least: 1, like: "A whole number from 1 up" }),
      topP: number("top_p", { least: 0, most: 1, like: "A number from 0 to 1, such as 0.9" }),
      seed: APIS[fields.api].seed ? number("seed", { whole: true, like: "A whole number" }) : undefined,
      stop: readStops(fields),
      tools: attempt(problems, () => readTools(fields, fields.api)),
      stream: fields.stream,
    };
  }

  function generateBody(fields, now, set) {
    const system = fields.system.trim() ? fields.system : undefined;
    const images = now.images.length ? now.images.map(base64) : undefined;
    const options = defined({
      temperature: set.temperature, top_p: set.topP, num_predict: set.maxTokens, seed: set.seed, stop: set.stop,
    });
    const given = Object.keys(options).length ? options : undefined;
    return { model: now.model, prompt: now.prompt, system, images, stream: set.stream, options: given };
  }

  function buildBody(fields, turns, now, set) {
    const { model, api } = now;
    if (api === "embeddings") return { model, input: now.prompt };
    if (api === "generate") return defined(generateBody(fields, now, set));
    const system = fields.system.trim() ? fields.system : undefined;
    const shared = { temperature: set.temperature, top_p: set.topP, tools: set.tools, stream: set.stream };
    if (api === "messages") {
      const most = set.maxTokens ?? MESSAGES_MAX_TOKENS;
      const messages = messageMessages(turns, now);
      return defined({ model, system, messages, max_tokens: most, stop_sequences: set.stop, ...shared });
    }
    const usage = set.stream ? { include_usage: true } : undefined; // else a stream does not say how many tokens it took
    const messages = chatMessages(turns, now, system);
    return defined({
      model, messages, max_tokens: set.maxTokens, stop: set.stop, seed: set.seed, ...shared, stream_options: usage,
    });
  }

  function buildHeaders(fields) {
    const headers = { "Content-Type": "application/json" };
    if (fields.api === "messages") headers["anthropic-version"] = "2023-06-01";
    const key = fields.key.trim();
    if (!key) return headers;
    if (/[^\x21-\x7e]/.test(key)) throw new Problem("key", "A key has no spaces and only plain letters, digits and signs.");
    if (fields.api === "messages") headers["x-api-key"] = key;
    else headers.Authorization = `Bearer ${key}`;
    return headers;
  }

  function checkPrompt(fields) {
    const { tools, images } = APIS[fields.api];
    const given = fields.prompt.trim() || (images && fields.images.length) || (tools && fields.results.some((each) => each.text.trim()));
    if (!given) throw new Problem("prompt", fields.api === "embeddings" ? "Write the text to embed." : "Write a prompt.");
  }

  // Every problem is found, not only the first.
  function attempt(problems, act) {
    try {
      return act();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      problems.push({ field: error.field, words: error.message });
      return undefined;
    }
  }

  function build(fields, turns) {
    const problems = [];
    const { api } = fields;
    const known = APIS[api];
    const model = fields.model.trim();
    if (!model) problems.push({ field: "model", words: "Choose a model or write its name." });
    attempt(problems, () => checkPrompt(fields));
    const now = {
      api, model, prompt: fields.prompt, images: known.images ? fields.images : [],
      results: known.tools ? fields.results : [],
    };
    const headers = attempt(problems, () => buildHeaders(fields));
    const set = api === "embeddings" ? {} : readParameters(fields, problems);
    const extra = attempt(problems, () => readExtra(fields));
    if (problems.length) return { request: null, problems };
    const body = buildBody(fields, known.talks ? turns : [], now, set);
    for (const [name, value] of Object.entries(extra)) {
      if (value === null) delete body[name];
      else body[name] = value;
    }
    return { request: { api, path: known.path, headers, body }, problems };
  }

  window.olla.playground = Object.assign(window.olla.playground || {}, { APIS, build });
})();
