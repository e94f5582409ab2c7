// What every page of portal and admin shares: copy buttons, toasts, tabs, menus that close. `window.olla` has what
// other scripts use: olla.toast(text, level), olla.copy(element), olla.csrf().
"use strict";
(() => {
  const SHOWN = 6000;

  // Without a secure context (plain http to another machine) the clipboard API is missing, so the text is selected
  // and copied the old way.
  async function copy(source) {
    const text = source.value ?? source.textContent;
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

  async function press(button) {
    let done = false;
    try {
      done = await copy(document.getElementById(button.dataset.copy));
    } catch {
      done = false;
    }
    if (button.dataset.label) return; // it says so already
    const name = button.getAttribute("aria-label");
    button.dataset.label = button.textContent;
    button.textContent = done ? "Copied" : "Press Ctrl+C";
    if (name) button.setAttribute("aria-label", button.textContent); // the label would hide the text from readers
    setTimeout(() => {
      button.textContent = button.dataset.label;
      delete button.dataset.label;
      if (name) button.setAttribute("aria-label", name);
    }, 2000);
  }

  function toastBox() {
    let box = document.querySelector(".toasts");
    if (!box) {
      box = document.createElement("div");
      box.className = "toasts";
      box.setAttribute("role", "status");
      document.body.append(box);
    }
    return box;
  }

  // `level`: success, info, warning or error; errors stay until they are closed.
  function toast(text, level = "info") {
    for (const known of document.querySelectorAll(".toasts .notice")) {
      if (known.firstChild.textContent === text) known.remove(); // said again, as by what asks twice a second
    }
    const note = document.createElement("div");
    note.className = `notice notice-${level}`;
    const words = document.createElement("span");
    words.textContent = text;
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "✕";
    close.setAttribute("aria-label", "Close this message");
    close.addEventListener("click", () => note.remove());
    note.append(words, close);
    toastBox().append(note);
    if (level !== "error") setTimeout(() => note.remove(), SHOWN);
  }

  function select(tab, focus) {
    for (const each of tab.closest("[role=tablist]").querySelectorAll("[role=tab]")) {
      const chosen = each === tab;
      each.setAttribute("aria-selected", String(chosen));
      each.tabIndex = chosen ? 0 : -1;
      const panel = document.getElementById(each.getAttribute("aria-controls"));
      if (panel) panel.hidden = !chosen;
    }
    if (focus) tab.focus();
    tab.dispatchEvent(new CustomEvent("olla:tab", { bubbles: true }));
  }

  function moveTab(event, tab) {
    const tabs = [...tab.closest("[role=tablist]").querySelectorAll("[role=tab]")];
    const place = tabs.indexOf(tab);
    const next = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: tabs.length - 1 }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    select(tabs[(next + tabs.length) % tabs.length], true);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-copy]");
    if (button) press(button);
    const tab = event.target.closest("[role=tablist] [role=tab]");
    if (tab) select(tab, false);
    for (const menu of document.querySelectorAll("details[data-menu][open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("keydown", (event) => {
    const tab = event.target.closest?.("[role=tablist] [role=tab]");
    if (tab) moveTab(event, tab);
    if (event.key !== "Escape") return;
    const menu = event.target.closest?.("details[data-menu][open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  // Answers to htmx requests carry what is to be said in HX-Trigger: {"olla:toast": {"text", "level"}}.
  document.addEventListener("olla:toast", (event) => toast(event.detail.text, event.detail.level));
  document.addEventListener("htmx:responseError", (event) => {
    const status = event.detail.xhr.status;
    if (status === 401) window.location.reload();
    else toast(status === 403 ? "You may not do that." : `That did not work (HTTP ${status}).`, "error");
  });
  document.addEventListener("htmx:sendError", () => toast("The server cannot be reached.", "error"));

  // On a phone the header's links scroll: the page's own must be in sight.
  const current = document.querySelector(".head nav [aria-current]");
  // At the edge of the item before it, so that no name begins in its middle.
  const first = current && (current.previousElementSibling || current);
  if (first) first.parentElement.scrollLeft = first.offsetLeft - first.parentElement.offsetLeft;

  function csrf() {
    return document.querySelector("meta[name=csrf]")?.content || "";
  }

  window.olla = { toast, copy, csrf };
})();
