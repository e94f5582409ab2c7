// A table that is searched, filtered and sorted in the page, with the choice kept in its address:
// `olla.table({ form, body, head, matches(row, fields), value(row, key) })`. Sort keys with "-" are descending.
"use strict";
(() => {
  const folded = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  function compare(left, right) {
    if (typeof left === "number" && typeof right === "number") return left - right;
    return folded.compare(String(left), String(right));
  }

  function table({ form, head, body, matches, value, shown }) {
    const read = () => Object.fromEntries(new FormData(form));

    function fill() {
      const query = new URLSearchParams(location.search);
      for (const element of form.elements) {
        if (!element.name) continue;
        const wanted = query.get(element.name) || "";
        if (element.tagName === "SELECT" && ![...element.options].some((each) => each.value === wanted)) {
          if (element.name !== "sort" || !wanted) continue;
          element.add(new Option("As clicked", wanted)); // an order chosen at the table's head
        }
        element.value = wanted;
      }
    }

    function keep(fields) {
      const query = new URLSearchParams(Object.entries(fields).filter(([, each]) => each));
      const text = query.toString();
      history.replaceState(null, "", `${location.pathname}${text ? `?${text}` : ""}${location.hash}`);
    }

    function mark(sort) {
      for (const cell of head.querySelectorAll("[data-sort]")) {
        const key = sort.replace(/^-/, "");
        if (cell.dataset.sort !== key) cell.removeAttribute("aria-sort");
        else cell.setAttribute("aria-sort", sort.startsWith("-") ? "descending" : "ascending");
      }
    }

    // Rows are moved only when their order has changed: moving one takes the focus away.
    function apply() {
      const fields = read();
      const rows = [...body().rows];
      let count = 0;
      for (const row of rows) {
        const hit = matches(row, fields);
        if (row.hidden === hit) row.hidden = !hit;
        count += hit;
      }
      const sort = fields.sort || "";
      const key = sort.replace(/^-/, "");
      const turn = sort.startsWith("-") ? -1 : 1;
      const keyed = rows.map((row, place) => ({ row, place, at: key ? value(row, key) : value(row, "") }));
      keyed.sort((a, b) => turn * compare(a.at, b.at) || Number(a.row.dataset.order || 0) - Number(b.row.dataset.order || 0));
      if (keyed.some((each, place) => each.place !== place)) {
        const focused = document.activeElement;
        body().append(...keyed.map((each) => each.row));
        if (focused && focused !== document.activeElement && body().contains(focused)) focused.focus({ preventScroll: true });
      }
      mark(sort);
      shown?.(count, rows.length);
    }

    function changed() {
      keep(read());
      apply();
    }

    form.addEventListener("input", changed);
    form.addEventListener("submit", (event) => event.preventDefault());
    head.addEventListener("click", (event) => {
      const cell = event.target.closest(".sort")?.closest("[data-sort]");
      if (!cell) return;
      const key = cell.dataset.sort;
      const now = form.elements.sort.value;
      const next = now === `-${key}` ? key : now === key ? `-${key}` : key === "name" || key === "rank" ? key : `-${key}`;
      if (![...form.elements.sort.options].some((each) => each.value === next)) {
        form.elements.sort.add(new Option(`${cell.textContent.trim()}${next.startsWith("-") ? " ↓" : " ↑"}`, next));
      }
      form.elements.sort.value = next;
      changed();
    });
    window.addEventListener("popstate", () => { fill(); apply(); });
    fill();
    apply();
    return { apply, clear() { form.reset(); for (const each of form.elements) if (each.name) each.value = ""; changed(); } };
  }

  window.olla.table = table;
})();
