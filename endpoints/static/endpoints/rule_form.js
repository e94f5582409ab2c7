// Form of a routing rule: shows the fields of the chosen action, and the header name where a condition needs one.
// What is hidden is also switched off, so that it is not sent. The server checks everything again.
"use strict";
(() => {
  const EXAMPLES = {
    model: "llama*", prefix: "openai", path: "/v1/embeddings", header: "blue",
    client_network: "10.1.0.0/16", capability: "vision",
  };

  function toggle(element, shown) {
    element.hidden = !shown;
    for (const input of element.querySelectorAll("input, select, textarea")) input.disabled = !shown;
  }

  function showFields(action, first) {
    const fields = JSON.parse(action.dataset.fields);
    const own = fields[action.value] || [];
    for (const name of new Set(Object.values(fields).flat())) {
      const row = document.querySelector(`.form-row.field-${name}`);
      if (!row) continue;
      // A refused form keeps what was refused in sight.
      const refused = first && row.querySelector(".errorlist");
      toggle(row, own.includes(name) || Boolean(refused));
      if (name === "endpoints" && !row.hidden && window.django) {
        window.django.jQuery(row.closest("fieldset")).trigger("show.fieldset");
      }
    }
  }

  function showHeader(select) {
    const row = select.closest("tr");
    const header = row && row.querySelector("input[name$='-header']");
    const value = row && row.querySelector("input[name$='-value']");
    if (value) value.placeholder = EXAMPLES[select.value] || "";
    if (!header) return;
    const shown = select.value === "header" || header.closest("td").querySelector(".errorlist");
    header.hidden = !shown;
    header.disabled = !shown;
  }

  function start() {
    const action = document.querySelector("select[data-fields]");
    if (!action) return;
    showFields(action, true);
    action.addEventListener("change", () => showFields(action, false));
    const all = () => document.querySelectorAll("select[name^='conditions-'][name$='-field']").forEach(showHeader);
    all();
    document.addEventListener("change", (event) => {
      if (event.target.matches("select[name^='conditions-'][name$='-field']")) showHeader(event.target);
    });
    document.addEventListener("formset:added", all);
  }

  // After Django's own scripts have built the two boxes for endpoints.
  if (document.readyState === "complete") start();
  else window.addEventListener("load", start);
})();
