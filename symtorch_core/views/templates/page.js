"use strict";
(() => {
  const copied = async (text) => {
    if (navigator.clipboard && window.isSecureContext) {
      try { return await navigator.clipboard.writeText(text); } catch { /* not allowed in a frame: as below */ }
    }
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    await copied(button.dataset.copy);
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 900);
  });

  // A line, or dots: subpaths of no length, drawn with round ends. Gaps are where an equation has no value.
  const trace = ({ dots, xs, ys }, chosen) => {
    let pen = "M";
    return xs.map((x, number) => {
      const y = ys[chosen][number];
      if (y === null) { pen = "M"; return ""; }
      const step = `${pen}${x / 10} ${y / 10}`;
      if (dots) return `${step}h0`;
      pen = "L";
      return step;
    }).join("");
  };

  for (const front of document.querySelectorAll(".front")) {
    const panels = [...front.querySelectorAll(".panel")];
    const marks = panels.map((_, number) => front.querySelector(`#${front.dataset.key}-${number}`));
    const slider = front.querySelector("input[type=range]");
    const fit = front.querySelector(".fit");
    const points = fit && JSON.parse(fit.dataset.path);
    const path = fit && fit.querySelector(`#${fit.dataset.key} path`);
    const r2 = fit && fit.querySelector(".r2");
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.classList.add("ring");
    ring.setAttribute("r", 8);
    front.querySelector("svg").append(ring);
    const show = (chosen) => {
      const mark = marks[chosen].querySelector("use");  // not its box: a frame that is not shown has none
      ring.setAttribute("cx", mark.getAttribute("x"));
      ring.setAttribute("cy", mark.getAttribute("y"));
      panels.forEach((panel, number) => { panel.hidden = number !== chosen; });
      marks.forEach((mark, number) => mark.setAttribute("aria-pressed", String(number === chosen)));
      if (slider) {
        slider.value = chosen;
        slider.setAttribute("aria-valuetext", panels[chosen].dataset.label);
      }
      if (path) path.setAttribute("d", trace(points, chosen));
      if (r2) r2.textContent = panels[chosen].dataset.r2;
    };
    if (slider) slider.addEventListener("input", () => show(Number(slider.value)));
    marks.forEach((mark, number) => {
      mark.classList.add("point");
      mark.setAttribute("role", "button");
      mark.setAttribute("tabindex", "0");
      mark.setAttribute("aria-label", panels[number].dataset.label);
      mark.addEventListener("click", () => show(number));
      mark.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); show(number); }
        if (step && marks[number + step]) { event.preventDefault(); marks[number + step].focus(); show(number + step); }
      });
    });
    show(Number(front.dataset.chosen));
  }

  const theme = document.getElementById("theme");
  if (theme) theme.addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  });
})();
