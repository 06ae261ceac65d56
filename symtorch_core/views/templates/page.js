"use strict";
(() => {
  const copied = async (text) => {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
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

  for (const front of document.querySelectorAll(".front")) {
    const panels = [...front.querySelectorAll(".panel")];
    const marks = panels.map((_, number) => front.querySelector(`#${front.dataset.key}-${number}`));
    const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
    ring.classList.add("ring");
    front.querySelector("svg").append(ring);
    const show = (chosen) => {
      const box = marks[chosen].getBBox();
      ring.setAttribute("cx", box.x + box.width / 2);
      ring.setAttribute("cy", box.y + box.height / 2);
      ring.setAttribute("r", box.width);
      panels.forEach((panel, number) => { panel.hidden = number !== chosen; });
      marks.forEach((mark, number) => mark.setAttribute("aria-pressed", String(number === chosen)));
    };
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
  theme.addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  });
})();
