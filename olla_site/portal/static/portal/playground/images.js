// Images for the next prompt: chosen, pasted or dropped; read into data addresses, limited in size and number.
"use strict";
(() => {
  const MOST = 4;
  const LARGEST = 4 * 1024 * 1024; // bytes of one
  const TYPES = ["image/png", "image/jpeg", "image/webp", "image/gif"];

  function readFile(file) {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.addEventListener("load", () => resolve(reader.result));
      reader.addEventListener("error", () => reject(reader.error));
      reader.readAsDataURL(file);
    });
  }

  function attachments(form) {
    const { make } = window.olla.playground;
    const input = form.elements.image;
    const box = document.getElementById("images");
    const error = document.getElementById("image-error");
    let urls = [];
    let allowed = true;

    function refuse(words) {
      error.textContent = words;
      error.hidden = false;
    }

    function check(file) {
      const name = file.name.slice(0, 60) || "The image";
      if (!TYPES.includes(file.type)) return `${name} is not a PNG, JPEG, WebP or GIF image.`;
      if (file.size > LARGEST) return `${name} is larger than 4 MB.`;
      if (urls.length >= MOST) return `At most ${MOST} images at once.`;
      return "";
    }

    function draw() {
      box.replaceChildren(...urls.map((url, place) => {
        const item = make("li", "attached");
        const image = make("img", "thumb");
        image.src = url;
        image.alt = `Image ${place + 1}`;
        const button = make("button", "copy", "Remove");
        button.type = "button";
        button.setAttribute("aria-label", `Remove image ${place + 1}`);
        button.addEventListener("click", () => {
          urls = urls.filter((_, other) => other !== place);
          draw();
          input.focus();
        });
        item.append(image, button);
        return item;
      }));
    }

    async function add(files) {
      error.hidden = true;
      for (const file of files) {
        const wrong = check(file);
        if (wrong) {
          refuse(wrong);
          continue;
        }
        try {
          urls.push(await readFile(file));
        } catch {
          refuse(`${file.name.slice(0, 60)} cannot be read.`);
        }
      }
      draw();
    }

    const pictures = (transfer) => [...(transfer?.files || [])].filter((file) => file.type.startsWith("image/"));
    input.addEventListener("change", async () => {
      await add([...input.files]);
      input.value = ""; // the same file may be chosen again
    });
    form.elements.prompt.addEventListener("paste", (event) => {
      const found = allowed ? pictures(event.clipboardData) : [];
      if (!found.length) return;
      event.preventDefault();
      add(found);
    });
    form.elements.prompt.addEventListener("drop", (event) => {
      const found = allowed ? pictures(event.dataTransfer) : [];
      if (!found.length) return;
      event.preventDefault();
      add(found);
    });

    return {
      list: () => [...urls],
      allow(yes) { allowed = yes; },
      forget(sent) {
        urls = urls.filter((url) => !sent.includes(url));
        draw();
      },
    };
  }

  window.olla.playground = Object.assign(window.olla.playground || {}, { attachments });
})();
