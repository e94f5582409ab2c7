// Buttons that act on an endpoint: in the fleet's row menu, and on the endpoint's own page (data-act, data-endpoint).
"use strict";
(() => {
  const { olla } = window;
  const menu = document.getElementById("row-menu");
  let chosen = null;

  async function act(button, id, name) {
    const stays = !menu?.contains(button); // the menu closes and may be opened for another row
    const label = button.textContent;
    const waiting = ["probe", "discover"].includes(name);
    if (stays) button.disabled = true;
    if (waiting && stays) button.textContent = "Asking…";
    else if (waiting) olla.toast("Asking the prober…");
    try {
      const answer = await fetch(`/fleet/${id}/${name}/`, {
        method: "POST",
        headers: { "X-CSRFToken": olla.csrf(), "HX-Request": "true" },
      });
      await answer.text(); // unread, an answer holds its connection
      const told = JSON.parse(answer.headers.get("HX-Trigger") || "{}")["olla:toast"];
      if (answer.status === 401) location.reload();
      else if (told) olla.toast(told.text, told.level);
      else olla.toast(answer.status === 403 ? "You may not do that." : `That did not work (HTTP ${answer.status}).`, "error");
      if (answer.ok) document.dispatchEvent(new CustomEvent("olla:acted", { detail: { id, name } }));
    } catch {
      olla.toast("The server cannot be reached.", "error");
    } finally {
      if (stays) {
        button.disabled = false;
        button.textContent = label;
      }
    }
  }

  document.addEventListener("click", (event) => {
    const more = event.target.closest(".more");
    if (more && menu) {
      chosen = more.closest("tr");
      document.getElementById("row-menu-name").textContent = chosen.querySelector(".endpoint-name").textContent;
      const box = more.getBoundingClientRect();
      menu.style.left = `${Math.max(8, Math.min(box.right - 230, window.innerWidth - 238))}px`;
      menu.style.top = `${Math.min(box.bottom + 4, window.innerHeight - 290)}px`;
      return;
    }
    const button = event.target.closest("button[data-act]");
    if (!button) return;
    const id = button.closest("[data-endpoint]")?.dataset.endpoint || chosen?.id.replace("endpoint-", "");
    if (menu?.contains(button)) menu.hidePopover();
    if (id) act(button, id, button.dataset.act);
  });
})();
