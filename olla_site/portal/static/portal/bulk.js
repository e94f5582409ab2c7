// Choosing several endpoints of the fleet's table, and the bar of buttons that acts on them.
"use strict";
(() => {
  const table = document.getElementById("fleet");
  const bar = document.getElementById("bulk");
  if (!table || !bar) return;
  const all = document.getElementById("pick-all");
  const chosen = new Set(); // ids: rows are replaced when endpoints come or go
  const boxes = () => [...table.tBodies[0].querySelectorAll(".pick")];
  const isShown = (box) => !box.closest("tr").hidden;
  let last = null;

  // Nothing acts on a row that a filter hides: what is not seen is not chosen.
  function show() {
    const known = boxes();
    const shown = known.filter(isShown);
    for (const box of known) box.checked = isShown(box) && chosen.has(box.value);
    const picked = known.filter((box) => box.checked).map((box) => box.value);
    chosen.clear();
    for (const id of picked) chosen.add(id);
    all.checked = picked.length > 0 && picked.length === shown.length;
    all.indeterminate = picked.length > 0 && picked.length < shown.length;
    document.getElementById("picked").replaceChildren(...picked.map((id) => {
      const input = document.createElement("input");
      Object.assign(input, { type: "hidden", name: "endpoint", value: id });
      return input;
    }));
    const words = `${picked.length} chosen`;
    const count = document.getElementById("bulk-count");
    if (count.textContent !== words) count.textContent = words;
    bar.hidden = !picked.length;
    document.getElementById("pick-shown").disabled = picked.length === shown.length;
  }

  function pick(list, on) {
    for (const box of list) {
      if (on) chosen.add(box.value);
      else chosen.delete(box.value);
    }
    show();
  }

  // With the shift key everything between the last box and this one, as lists everywhere have it.
  table.addEventListener("click", (event) => {
    const box = event.target.closest?.("tbody .pick");
    if (!box) return;
    const shown = boxes().filter(isShown);
    const [from, to] = [shown.indexOf(last), shown.indexOf(box)].sort((a, b) => a - b);
    pick(event.shiftKey && from >= 0 ? shown.slice(from, to + 1) : [box], box.checked);
    last = box;
  });
  all.addEventListener("change", () => pick(boxes().filter(isShown), all.checked));
  document.getElementById("pick-shown").addEventListener("click", () => pick(boxes().filter(isShown), true));
  document.getElementById("pick-none").addEventListener("click", () => {
    pick(boxes(), false);
    all.focus();
  });
  document.addEventListener("olla:rows", show);
  document.addEventListener("click", (event) => {
    const close = event.target.closest("[data-close]");
    if (close) document.getElementById(close.dataset.close).remove();
  });
  show();
})();
