// Shows every <time datetime> as "3 minutes ago", renewed twice a minute, with the exact local time on hover.
"use strict";
(() => {
  const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
  const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
  const brief = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "narrow" });
  const exact = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "long" });

  function phrase(moment, words) {
    const seconds = Math.round((moment - Date.now()) / 1000);
    const [unit, size] = units.find(([, size]) => Math.abs(seconds) >= size) || units[units.length - 1];
    return words.format(Math.trunc(seconds / size), unit);
  }

  function show(root = document) {
    for (const element of root.querySelectorAll("time[datetime]")) {
      const moment = new Date(element.dateTime);
      if (Number.isNaN(moment.getTime())) continue;
      const title = exact.format(moment);
      const text = phrase(moment, "short" in element.dataset ? brief : relative);
      if (element.title !== title) element.title = title;
      if (element.textContent !== text) element.textContent = text;
    }
  }

  window.ollaTimes = { show };

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => show());
  else show();
  setInterval(() => { if (!document.hidden) show(); }, 10000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) show(); });
  document.addEventListener("htmx:load", (event) => show(event.detail.elt));
})();
