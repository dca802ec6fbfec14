"use strict";
(() => {
  const gallery = JSON.parse(document.getElementById("gallery-data").textContent);
  const FIRST_ROWS = 8;

  // Plots: one of several is shown, chosen by quality and cost.
  const plots = document.querySelectorAll("[data-plot]");
  const choice = {};
  for (const group of document.querySelectorAll("[data-choice]")) {
    const buttons = [...group.querySelectorAll("button")];
    const pick = (button) => {
      choice[group.dataset.choice] = button.value;
      for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
      for (const plot of plots) {
        const [quality, cost] = plot.dataset.plot.split(" ");
        plot.classList.toggle("hidden", quality !== choice.quality || cost !== choice.cost);
      }
    };
    for (const button of buttons) button.addEventListener("click", () => pick(button));
    pick(buttons[0]);
  }

  // Gallery: the same prompts and noise for every model that is switched on.
  const rows = document.getElementById("gallery-rows");
  const switches = document.getElementById("gallery-models");
  if (!rows || !gallery.models.length) return;
  const preferred = JSON.parse(switches.dataset.first);
  const shown = new Set(gallery.models.map((m) => m.id).filter((id) => preferred.includes(id)));
  if (!shown.size) gallery.models.slice(0, 4).forEach((m) => shown.add(m.id));
  let all = false;

  const element = (name, attributes = {}, ...children) => {
    const made = Object.assign(document.createElement(name), attributes);
    made.append(...children);
    return made;
  };
  const picture = (model, prompt) => element("img", {
    src: model.images[prompt], loading: "lazy", decoding: "async",
    alt: `${model.label}: ${gallery.prompts[prompt]}`,
  });

  const draw = () => {
    const models = gallery.models.filter((m) => shown.has(m.id));
    const count = all ? gallery.prompts.length : Math.min(FIRST_ROWS, gallery.prompts.length);
    rows.replaceChildren(...gallery.prompts.slice(0, count).map((prompt, index) => {
      const cells = models.map((model) => {
        const button = element("button", { type: "button" }, picture(model, index), model.label);
        button.addEventListener("click", () => open(gallery.models.indexOf(model), index));
        return button;
      });
      return element("div", { className: "row" },
        element("p", { textContent: prompt }), element("div", { className: "cells" }, ...cells));
    }));
    more.classList.toggle("hidden", all || gallery.prompts.length <= FIRST_ROWS);
  };

  for (const model of gallery.models) {
    const button = element("button", { type: "button", textContent: model.label });
    button.setAttribute("aria-pressed", String(shown.has(model.id)));
    button.addEventListener("click", () => {
      if (!shown.delete(model.id)) shown.add(model.id);
      button.setAttribute("aria-pressed", String(shown.has(model.id)));
      draw();
    });
    switches.append(button);
  }
  const more = document.getElementById("gallery-more");
  more.addEventListener("click", () => { all = true; draw(); });

  // One image large; left and right change the model, up and down the prompt.
  const dialog = document.getElementById("viewer");
  const at = { model: 0, prompt: 0 };
  const wrap = (value, length) => (value + length) % length;
  const show = () => {
    const model = gallery.models[at.model];
    dialog.querySelector("figure").replaceChildren(picture(model, at.prompt));
    dialog.querySelector("strong").textContent = model.label;
    dialog.querySelector("span").textContent = gallery.prompts[at.prompt];
  };
  const move = (model, prompt) => {
    at.model = wrap(at.model + model, gallery.models.length);
    at.prompt = wrap(at.prompt + prompt, gallery.prompts.length);
    show();
  };
  const open = (model, prompt) => { Object.assign(at, { model, prompt }); show(); dialog.showModal(); };
  const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  dialog.addEventListener("keydown", (event) => {
    if (!(event.key in keys)) return;
    event.preventDefault();
    move(...keys[event.key]);
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  for (const button of dialog.querySelectorAll("[data-move]")) {
    button.addEventListener("click", () => move(...button.dataset.move.split(",").map(Number)));
  }
  document.getElementById("viewer-close").addEventListener("click", () => dialog.close());
  draw();
})();
