// An answer as it grows, whichever of the four APIs sends it: text, reasoning, tool calls, usage, errors. Pure.
"use strict";
(() => {
  const LONGEST_ERROR = 2000;

  function newAnswer() {
    return {
      text: "", thinking: "", signature: "", calls: [], usage: {}, finish: "", vectors: null, error: "",
      ended: false, pieces: 0,
    };
  }

  const asText = (value) => (typeof value === "string" ? value : "");
  const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

  // Content is text, or a list of parts of which those with text count.
  function readContent(content) {
    if (Array.isArray(content)) return content.map((part) => asText(part?.text)).join("");
    return asText(content);
  }

  // The message of an error in any shape: OpenAI's and ours, Anthropic's, Ollama's, or plain text.
  function readError(value) {
    if (typeof value === "string") return value.slice(0, LONGEST_ERROR);
    if (!isObject(value)) return "";
    const error = value.error ?? value.detail ?? value.message;
    if (typeof error === "string") return error.slice(0, LONGEST_ERROR);
    if (isObject(error)) {
      const words = asText(error.message) || JSON.stringify(error);
      const code = asText(error.code) || asText(error.type);
      return (code && !words.includes(code) ? `${words} (${code})` : words).slice(0, LONGEST_ERROR);
    }
    return error === undefined || error === null ? "" : JSON.stringify(error).slice(0, LONGEST_ERROR);
  }

  function addCall(answer, index, { id, name, text }) {
    const place = Number.isInteger(index) && index >= 0 && index < 256 ? index : answer.calls.length;
    while (answer.calls.length <= place) answer.calls.push({ id: "", name: "", arguments: "" });
    const call = answer.calls[place];
    if (id) call.id = id;
    if (name) call.name = name;
    call.arguments += text || "";
  }

  const asArguments = (value) => (typeof value === "string" ? value : value === undefined ? "" : JSON.stringify(value));

  function feedChat(answer, value) {
    const choice = value.choices?.[0];
    const part = choice?.delta || choice?.message;
    if (isObject(part)) {
      const before = answer.text.length + answer.thinking.length;
      answer.text += readContent(part.content) || asText(part.refusal);
      answer.thinking += asText(part.reasoning_content) || asText(part.reasoning);
      for (const call of Array.isArray(part.tool_calls) ? part.tool_calls : []) {
        const asked = call?.function || {};
        addCall(answer, call?.index, { id: asText(call?.id), name: asText(asked.name), text: asArguments(asked.arguments) });
        answer.pieces += 1;
      }
      if (answer.text.length + answer.thinking.length > before) answer.pieces += 1;
    }
    if (choice?.finish_reason) {
      answer.finish = String(choice.finish_reason);
      answer.ended = true;
    }
    if (isObject(value.usage)) {
      answer.usage.input = value.usage.prompt_tokens ?? answer.usage.input;
      answer.usage.output = value.usage.completion_tokens ?? answer.usage.output;
    }
  }

  function readMessageUsage(answer, usage) {
    if (!isObject(usage)) return;
    answer.usage.input = usage.input_tokens ?? answer.usage.input;
    answer.usage.output = usage.output_tokens ?? answer.usage.output;
  }

  // A block's number counts all blocks; those that are tool calls are found again by it.
  function feedBlock(answer, index, block) {
    answer.text += asText(block.text);
    answer.thinking += asText(block.thinking);
    answer.signature += asText(block.signature);
    if (block.text || block.thinking) answer.pieces += 1;
    if (block.type !== "tool_use") return;
    const given = isObject(block.input) && Object.keys(block.input).length ? JSON.stringify(block.input) : "";
    answer.calls.push({ id: asText(block.id), name: asText(block.name), arguments: given, block: index });
    answer.pieces += 1;
  }

  function feedDelta(answer, index, delta) {
    if (!isObject(delta)) return;
    answer.text += asText(delta.text);
    answer.thinking += asText(delta.thinking);
    answer.signature += asText(delta.signature);
    const call = answer.calls.find((each) => each.block === index);
    if (call) call.arguments += asText(delta.partial_json);
    if (delta.text || delta.thinking || delta.partial_json) answer.pieces += 1;
  }

  function feedMessage(answer, value) {
    if (value.type === "message_start") readMessageUsage(answer, value.message?.usage);
    else if (value.type === "content_block_start") feedBlock(answer, value.index, value.content_block || {});
    else if (value.type === "content_block_delta") feedDelta(answer, value.index, value.delta);
    else if (value.type === "message_delta") {
      answer.finish = asText(value.delta?.stop_reason) || answer.finish;
      readMessageUsage(answer, value.usage);
    } else if (value.type === "message_stop") answer.ended = true;
    else if (value.type === "message") {
      (Array.isArray(value.content) ? value.content : []).forEach((block, index) => feedBlock(answer, index, block || {}));
      answer.finish = asText(value.stop_reason);
      answer.ended = true;
      readMessageUsage(answer, value.usage);
    }
  }

  function feedGenerate(answer, value) {
    answer.text += asText(value.response);
    answer.thinking += asText(value.thinking);
    if (value.response || value.thinking) answer.pieces += 1;
    if (!value.done) return;
    answer.ended = true;
    answer.finish = asText(value.done_reason);
    answer.usage.input = value.prompt_eval_count ?? answer.usage.input;
    answer.usage.output = value.eval_count ?? answer.usage.output;
    if (value.eval_duration > 0) answer.usage.seconds = value.eval_duration / 1e9;
  }

  function feedEmbeddings(answer, value) {
    if (!Array.isArray(value.data)) return;
    answer.vectors = value.data.map((each) => (Array.isArray(each?.embedding) ? each.embedding : []));
    answer.usage.input = value.usage?.prompt_tokens ?? answer.usage.input;
    answer.pieces += 1;
    answer.ended = true;
  }

  const FEEDS = { chat: feedChat, messages: feedMessage, generate: feedGenerate, embeddings: feedEmbeddings };

  // Take one frame. What is not JSON is an error of the answer, but for OpenAI's end mark.
  function feed(answer, api, frame) {
    if (!frame.data) return;
    if (frame.data.trim() === "[DONE]") {
      answer.ended = true;
      return;
    }
    let value;
    try {
      value = JSON.parse(frame.data);
    } catch {
      answer.error = `The answer is not JSON: ${frame.data.slice(0, 200)}`;
      return;
    }
    if (!isObject(value)) answer.error = "The answer is JSON, but not an object.";
    else if (value.error || value.type === "error" || frame.event === "error") {
      answer.error = readError(value) || "The backend reported an error without words.";
    } else FEEDS[api](answer, value);
  }

  // An error answer's body in words.
  function readErrorBody(text, status) {
    let words = "";
    try {
      words = readError(JSON.parse(text));
    } catch {
      words = text.trim().slice(0, LONGEST_ERROR);
    }
    return `HTTP ${status}${words ? `: ${words}` : ""}`;
  }

  // Tokens a second: as the backend measured, from its count, or from the pieces that came, which is said.
  function measureRate(answer, seconds) {
    const { output, seconds: measured } = answer.usage;
    if (output > 0 && measured > 0) return { rate: output / measured, unit: "tok/s", exact: true };
    if (!(seconds > 0.001)) return null;
    if (output > 0) return { rate: output / seconds, unit: "tok/s", exact: true };
    if (answer.pieces > 1) return { rate: answer.pieces / seconds, unit: "chunks/s", exact: false };
    return null;
  }

  const parts = { newAnswer, feed, readErrorBody, measureRate };
  window.olla.playground = Object.assign(window.olla.playground || {}, parts);
})();
