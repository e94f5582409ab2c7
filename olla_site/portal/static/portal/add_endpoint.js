// The form that adds an endpoint: shows the credential fields of the chosen kind, and takes a detected type over.
"use strict";
(() => {
  const form = document.getElementById("add-form");
  const kind = form.elements.auth_type;

  function show() {
    for (const box of form.querySelectorAll("[data-auth]")) {
      const wanted = box.dataset.auth.split(" ").includes(kind.value);
      box.hidden = !wanted;
      for (const input of box.querySelectorAll("input")) input.disabled = !wanted;
    }
  }

  kind.addEventListener("change", show);
  show();
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-use-type]");
    if (!button) return;
    form.elements.backend_type.value = button.dataset.useType;
    form.elements.backend_type.focus();
  });
})();
