// A request as curl, Python or JavaScript, to paste. Pure. Keys and tokens become variables of the environment.
"use strict";
(() => {
  const LONGEST_ARGUMENT = 100_000; // Linux takes 128 KiB in one argument; longer bodies go through standard input
  const SECRETS = { authorization: "OLLA_API_KEY", "x-api-key": "OLLA_API_KEY", "x-olla-operator": "OLLA_OPERATOR_TOKEN" };
  // Marks that turn the direction of what is read, or cannot be seen: code must look like what it does.
  const HIDDEN = /[\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;

  const escapeHidden = (text) => text.replace(HIDDEN, (mark) => `\\u${mark.charCodeAt(0).toString(16).padStart(4, "0")}`);
  const json = (value, indent = 2) => escapeHidden(JSON.stringify(value, null, indent));

  // Single quotes hold everything in a shell but themselves.
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

  function splitSecret(name, value) {
    const variable = SECRETS[name.toLowerCase()];
    return variable ? { variable, before: value.startsWith("Bearer ") ? "Bearer " : "" } : null;
  }

  // A token that asked for the trace alone changes nothing about the answer, and would be wanting when pasted.
  const sent = (headers) => Object.entries(headers).filter(([name]) => name !== "X-Olla-Operator" || headers["X-Olla-Pin"]);

  function curl({ url, headers, body }) {
    const lines = [`curl -N ${quote(url)}`];
    for (const [name, value] of sent(headers)) {
      const secret = splitSecret(name, value);
      lines.push(secret ? `-H "${name}: ${secret.before}$${secret.variable}"` : `-H ${quote(`${name}: ${value}`)}`);
    }
    const text = json(body);
    if (text.length <= LONGEST_ARGUMENT) return [...lines, `-d ${quote(text)}`].join(" \\\n  ");
    return `${[...lines, "--data-binary @- <<'END_OF_BODY'"].join(" \\\n  ")}\n${text}\nEND_OF_BODY`;
  }

  function pythonValue(value, indent = "") {
    const deeper = `${indent}    `;
    if (value === null) return "None";
    if (typeof value === "boolean") return value ? "True" : "False";
    if (typeof value !== "object") return json(value, 0);
    const isList = Array.isArray(value);
    const inside = isList
      ? value.map((each) => `${deeper}${pythonValue(each, deeper)},\n`)
      : Object.entries(value).map(([name, each]) => `${deeper}${json(name, 0)}: ${pythonValue(each, deeper)},\n`);
    const [open, close] = isList ? "[]" : "{}";
    return inside.length ? `${open}\n${inside.join("")}${indent}${close}` : open + close;
  }

  function listHeaders(headers, indent, readVariable) {
    return sent(headers).map(([name, value]) => {
      const secret = splitSecret(name, value);
      if (!secret) return `${indent}${json(name, 0)}: ${json(value, 0)},\n`;
      const read = readVariable(secret.variable);
      return `${indent}${json(name, 0)}: ${secret.before ? `"${secret.before}" + ${read}` : read},\n`;
    }).join("");
  }

  function python({ url, headers, body }) {
    const listed = listHeaders(headers, "    ", (variable) => `os.environ["${variable}"]`);
    const needsOs = listed.includes("os.environ[");
    return [
      "import json", ...(needsOs ? ["import os"] : []), "import urllib.request", "",
      `body = ${pythonValue(body)}`, `headers = {\n${listed}}`,
      `request = urllib.request.Request(${json(url, 0)}, data=json.dumps(body).encode(), headers=headers)`,
      "with urllib.request.urlopen(request) as answer:", "    for line in answer:",
      '        print(line.decode(), end="", flush=True)', "",
    ].join("\n");
  }

  function javascript({ url, headers, body }) {
    const listed = listHeaders(headers, "    ", (variable) => `process.env.${variable}`);
    return [
      `const body = ${json(body)};`, `const answer = await fetch(${json(url, 0)}, {`, '  method: "POST",',
      `  headers: {\n${listed}  },`, "  body: JSON.stringify(body),", "});",
      "for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {", "  process.stdout.write(text);", "}", "",
    ].join("\n");
  }

  const CODE = { curl, Python: python, JavaScript: javascript };
  window.olla.playground = Object.assign(window.olla.playground || {}, { CODE });
})();
