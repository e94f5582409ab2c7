// Copy buttons. Without a secure context (plain http to another machine) the clipboard API is missing, so the
// text is selected and copied the old way.
"use strict";
(() => {
  async function copy(source) {
    const text = source.textContent;
    if (navigator.clipboard && window.isSecureContext) {
      await navigator.clipboard.writeText(text);
      return true;
    }
    const range = document.createRange();
    range.selectNodeContents(source);
    const selection = window.getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand("copy");
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    let done = false;
    try {
      done = await copy(document.getElementById(button.dataset.copy));
    } catch {
      done = false;
    }
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
})();
