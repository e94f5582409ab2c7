// The "Detect type" button beside the type of an endpoint: posts the form as it is, and chooses what was found.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const choice = document.getElementById("id_backend_type");
  const place = document.getElementById("olla-detect");
  if (!choice || !place) return;
  const button = document.createElement("button");
  const result = document.createElement("span");
  button.type = "button";
  button.className = "button olla-detect";
  button.textContent = "Detect type";
  result.setAttribute("role", "status");
  result.className = "olla-detected";
  choice.parentElement.append(button, result);

  button.addEventListener("click", async () => {
    button.disabled = true;
    result.textContent = "Asking the server…";
    try {
      const answer = await fetch(place.dataset.address, {
        method: "POST", body: new FormData(choice.form), headers: { Accept: "application/json" },
      });
      const found = await answer.json();
      if (found.kind) choice.value = found.kind;
      result.textContent = found.kind ? `It is ${found.title}.` : found.error;
    } catch {
      result.textContent = "The question failed. Reload the page and try again.";
    } finally {
      button.disabled = false;
    }
  });
});
