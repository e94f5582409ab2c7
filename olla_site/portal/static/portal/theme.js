// The colour theme: auto (follows the system), light or dark. The same key and attribute as Django's admin uses, so
// that one choice holds for both. Loaded before the page is drawn: no flash of the other theme.
"use strict";
(() => {
  const KEY = "theme";
  const ORDER = ["auto", "light", "dark"];
  const GLYPHS = { auto: "◐", light: "☀", dark: "☾" };
  const root = document.documentElement;

  function read() {
    try {
      const kept = localStorage.getItem(KEY);
      return ORDER.includes(kept) ? kept : "auto";
    } catch {
      return "auto"; // storage is off: the choice lasts as long as the page
    }
  }

  function show() {
    const theme = root.dataset.theme;
    for (const button of document.querySelectorAll("[data-theme-button]")) {
      button.querySelector(".theme-glyph").textContent = GLYPHS[theme];
      button.setAttribute("aria-label", `Theme: ${theme}. Change it.`);
      button.title = `Theme: ${theme}`;
    }
  }

  root.dataset.theme = read();
  window.addEventListener("storage", (event) => {
    if (event.key !== KEY) return;
    root.dataset.theme = read();
    show();
  });
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.addEventListener("click", (event) => {
      if (!event.target.closest("[data-theme-button]")) return;
      const next = ORDER[(ORDER.indexOf(root.dataset.theme) + 1) % ORDER.length];
      root.dataset.theme = next;
      try {
        localStorage.setItem(KEY, next);
      } catch {
        // see read()
      }
      show();
      document.dispatchEvent(new CustomEvent("olla:theme"));
    });
  });
})();
