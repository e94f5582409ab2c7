// Sparklines: `olla.spark(svg, values)` draws a quarter of an hour; nulls are gaps.
"use strict";
(() => {
  const HEIGHT = 34;
  const NAMESPACE = "http://www.w3.org/2000/svg";

  function child(svg, name) {
    let path = svg.querySelector(`.${name}`);
    if (!path) {
      path = document.createElementNS(NAMESPACE, "path");
      path.setAttribute("class", name);
      svg.append(path);
    }
    return path;
  }

  function spark(svg, values) {
    const top = Math.max(...values.map((value) => value || 0), 1e-9);
    const y = (value) => (HEIGHT - 2 - (value / top) * (HEIGHT - 5)).toFixed(1);
    let line = "";
    let area = "";
    let start = -1;
    values.forEach((value, x) => {
      if (value === null) {
        if (start >= 0) area += `L${x - 1} ${HEIGHT}Z`;
        start = -1;
        return;
      }
      if (start < 0) {
        line += `M${x} ${y(value)}`;
        area += `M${x} ${HEIGHT}L${x} ${y(value)}`;
        start = x;
      } else {
        line += `L${x} ${y(value)}`;
        area += `L${x} ${y(value)}`;
      }
    });
    if (start >= 0) area += `L${values.length - 1} ${HEIGHT}Z`;
    child(svg, "area").setAttribute("d", area);
    child(svg, "line").setAttribute("d", line);
  }

  window.olla.spark = spark;
})();
