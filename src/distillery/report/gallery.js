"use strict";
(() => {
  const FIRST_ROWS = 4;
  const MOST_IN_A_ROW = 8;
  const find = (id) => document.getElementById(id);
  const element = (name, attributes = {}, ...children) => {
    const made = Object.assign(document.createElement(name), attributes);
    made.append(...children);
    return made;
  };
  const press = (button, on) => button.setAttribute("aria-pressed", String(on));

  // Gallery: the same prompts and noise for every model that is switched on.
  const gallery = JSON.parse(find("gallery-data").textContent);
  const rows = find("gallery-rows");
  const switches = find("gallery-models");
  if (!rows || !gallery.models.length) return;
  const preferred = JSON.parse(switches.dataset.first);
  // `?family=unet` in the address shows a family's models beside its teachers.
  const family = new URLSearchParams(location.search).get("family");
  const isFirst = (m) => family ? m.family === family || m.family === "teacher" : preferred.includes(m.id);
  const shown = new Set(gallery.models.filter(isFirst).map((m) => m.id));
  const picks = { prompt: find("gallery-prompt"), condition: find("gallery-condition"), difference: find("gallery-difference") };
  const more = find("gallery-more");
  let all = false;

  const byId = new Map(gallery.models.map((model) => [model.id, model]));
  const isReference = (model) => model.family === "reference";
  const fits = (model, prompt) => {
    if (!model.images[prompt]) return false;
    const kind = picks.condition.value;
    if (!kind || model.id === "reference/real") return true;
    return model.conditions[prompt] === (kind === "none" ? "" : kind) && !(kind === "none" && isReference(model));
  };
  const image = (model, prompt) => element("img", {
    src: model.images[prompt], loading: "lazy", decoding: "async",
    alt: `${model.label}: ${gallery.prompts[prompt]}`,
  });
  // The difference is made by blending: black where both agree, three times as bright.
  const picture = (model, prompt, other) => {
    const frame = element("span", { className: "frame" }, image(model, prompt));
    if (other && other !== model && other.images[prompt]) {
      frame.classList.add("difference");
      frame.append(image(other, prompt));
    }
    return frame;
  };

  // As many columns as leave no row half empty.
  const even = (count) => Math.ceil(count / Math.ceil(count / MOST_IN_A_ROW));

  const draw = () => {
    const models = gallery.models.filter((m) => shown.has(m.id));
    const other = byId.get(picks.difference.value);
    const one = picks.prompt.value;
    const prompts = gallery.prompts.map((_, i) => i)
      .filter((i) => (one === "" || i === Number(one)) && models.some((m) => fits(m, i) && !isReference(m)));
    const count = all || one !== "" ? prompts.length : Math.min(FIRST_ROWS, prompts.length);
    rows.replaceChildren(...prompts.slice(0, count).map((prompt) => {
      const cells = models.filter((m) => fits(m, prompt)).map((model) => {
        const kind = model.conditions[prompt];
        const text = kind && !isReference(model) && model.family === "control" ? `${model.label} (${kind})` : model.label;
        const button = element("button", { type: "button" }, picture(model, prompt, other), text);
        button.addEventListener("click", () => open(model, prompt));
        return button;
      });
      const grid = element("div", { className: "cells" }, ...cells);
      grid.style.setProperty("--cells", even(cells.length));
      return element("div", { className: "row" }, element("p", { textContent: gallery.prompts[prompt] }), grid);
    }));
    if (!prompts.length) rows.append(element("p", { className: "note", textContent: "None of the chosen models has images for this." }));
    more.classList.toggle("hidden", count >= prompts.length);
  };

  const NAMES = { reference: "Beside", teacher: "Teacher", whole: "Whole", unet: "U-Net", control: "Adapter", controlnet: "ControlNet", guidance: "Guidance" };
  for (const family of new Set(gallery.models.map((m) => m.family))) {
    const group = element("div", { className: "switch", role: "group" }, element("span", { textContent: NAMES[family] || family }));
    group.setAttribute("aria-label", NAMES[family] || family);
    for (const model of gallery.models.filter((m) => m.family === family)) {
      const button = element("button", { type: "button", textContent: model.label });
      press(button, shown.has(model.id));
      button.addEventListener("click", () => {
        if (!shown.delete(model.id)) shown.add(model.id);
        press(button, shown.has(model.id));
        draw();
      });
      group.append(button);
    }
    switches.append(group);
  }
  if (matchMedia("(max-width: 640px)").matches) switches.closest("details").open = false;
  const kinds = [...new Set(gallery.models.filter((m) => !isReference(m)).flatMap((m) => m.conditions))];
  for (const kind of kinds.length > 1 ? kinds : []) {
    picks.condition.append(element("option", { value: kind || "none", textContent: kind || "text only" }));
  }
  picks.condition.closest("label").classList.toggle("hidden", kinds.length < 2);
  for (const model of gallery.models.filter((m) => !m.id.startsWith("condition/") && m.id !== "reference/condition")) {
    picks.difference.append(element("option", { value: model.id, textContent: model.label }));
  }
  for (const pick of Object.values(picks)) pick.addEventListener("change", draw);
  more.addEventListener("click", () => { all = true; draw(); });

  // One image large; left and right change the model, up and down the prompt, D the difference.
  const dialog = find("viewer");
  const toggle = find("viewer-difference");
  const at = { model: gallery.models[0], prompt: 0, difference: false };
  const wrap = (value, length) => (value + length) % length;
  const baseline = () => byId.get(picks.difference.value)
    || byId.get(at.model.conditions[at.prompt] ? "teacher/control_canny" : "teacher/guided") || byId.get("teacher/guided");
  const show = () => {
    const other = at.difference ? baseline() : null;
    dialog.querySelector("figure").replaceChildren(picture(at.model, at.prompt, other));
    const beside = other && other !== at.model ? ` minus ${other.label}` : "";
    dialog.querySelector("strong").textContent = at.model.label + beside;
    dialog.querySelector("p span").textContent = gallery.prompts[at.prompt];
    press(toggle, at.difference);
  };
  const step = (list, value, by) => list[wrap(list.indexOf(value) + by, list.length)];
  const move = (model, prompt) => {
    if (model) at.model = step(gallery.models.filter((m) => m.images[at.prompt]), at.model, model);
    if (prompt) at.prompt = step(gallery.prompts.map((_, i) => i).filter((i) => at.model.images[i]), at.prompt, prompt);
    show();
  };
  const open = (model, prompt) => { Object.assign(at, { model, prompt }); show(); dialog.showModal(); };
  const flip = () => { at.difference = !at.difference; show(); };
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  dialog.addEventListener("keydown", (event) => {
    if (event.key in arrows) {
      event.preventDefault();
      move(...arrows[event.key]);
    } else if (event.key === "d" || event.key === "D") flip();
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  for (const button of dialog.querySelectorAll("[data-move]")) {
    button.addEventListener("click", () => move(...button.dataset.move.split(",").map(Number)));
  }
  toggle.addEventListener("click", flip);
  find("viewer-close").addEventListener("click", () => dialog.close());
  draw();
})();
