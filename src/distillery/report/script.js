"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const element = (name, attributes = {}, ...children) => {
    const made = Object.assign(document.createElement(name), attributes);
    made.append(...children);
    return made;
  };
  const press = (button, on) => button.setAttribute("aria-pressed", String(on));

  // Plots: one of several is shown, chosen by models, quality and cost.
  const plots = [...document.querySelectorAll("[data-plot]")];
  const keys = plots.map((plot) => plot.dataset.plot.split(" "));
  const groups = [...document.querySelectorAll("[data-choice]")];
  const place = { family: 0, quality: 1, cost: 2 };
  const chosen = keys.length ? [...keys[0]] : [];
  const settle = () => {
    // A choice that the others have no plot for gives way to the first one that has.
    for (const level of [1, 2]) {
      const fits = keys.filter((key) => key.slice(0, level).every((part, i) => part === chosen[i]));
      if (fits.length && !fits.some((key) => key[level] === chosen[level])) chosen[level] = fits[0][level];
    }
    for (const group of groups) {
      const level = place[group.dataset.choice];
      for (const button of group.querySelectorAll("button")) {
        press(button, button.value === chosen[level]);
        const fits = (key) => key[level] === button.value && key.slice(0, level).every((part, i) => part === chosen[i]);
        button.classList.toggle("hidden", !keys.some(fits));
      }
    }
    plots.forEach((plot, i) => plot.classList.toggle("hidden", keys[i].some((part, j) => part !== chosen[j])));
  };
  for (const group of groups) {
    const level = place[group.dataset.choice];
    if (group.tagName === "SELECT") {
      group.value = chosen[level];
      group.addEventListener("change", () => { chosen[level] = group.value; settle(); });
    }
    for (const button of group.querySelectorAll("button")) {
      button.addEventListener("click", () => { chosen[level] = button.value; settle(); });
    }
  }
  if (keys.length) settle();

  // Claims: the verdicts that are switched on; the groups of a single one open.
  const verdicts = [...document.querySelectorAll("button[data-verdict]")];
  for (const button of verdicts) {
    button.addEventListener("click", () => {
      const isOnly = button.getAttribute("aria-pressed") === "true" && verdicts.some((b) => b !== button && b.getAttribute("aria-pressed") === "false");
      for (const other of verdicts) press(other, isOnly || other === button);
      const on = new Set(verdicts.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.verdict));
      for (const group of document.querySelectorAll(".claim-group")) {
        const claims = [...group.querySelectorAll(".claim")];
        for (const claim of claims) claim.classList.toggle("hidden", !on.has(claim.dataset.verdict));
        const left = claims.some((claim) => on.has(claim.dataset.verdict));
        group.classList.toggle("hidden", !left);
        if (!isOnly && left) group.open = true;
      }
    });
  }

  // What an address points to is shown: groups around it open, a verdict's button is pressed.
  const reveal = () => {
    const target = location.hash.length > 1 && find(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    for (let box = target.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    if (target.matches("button[data-verdict]")) target.click();
    target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  // Search: every word must be in an entry; "/" goes to the box, Enter to the first that is found.
  const MOST_FOUND = 12;
  const entries = JSON.parse(find("search-data").textContent);
  const box = find("search");
  const found = find("found");
  const look = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = (entry) => words.every((word) => `${entry.text} ${entry.kind}`.toLowerCase().includes(word));
    const hits = words.length ? entries.filter(fits) : [];
    found.replaceChildren(...hits.slice(0, MOST_FOUND).map((entry) =>
      element("li", {}, element("a", { href: entry.href }, entry.text, element("small", { textContent: entry.kind })))));
    if (words.length && !hits.length) found.append(element("li", { className: "note", textContent: "Nothing has this name." }));
    if (hits.length > MOST_FOUND) found.append(element("li", { className: "note", textContent: `and ${hits.length - MOST_FOUND} more` }));
    found.classList.toggle("hidden", !words.length);
  };
  const close = () => { box.value = ""; look(); };
  box.addEventListener("input", look);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, select, textarea") || document.querySelector("dialog[open]");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey) { event.preventDefault(); box.focus(); }
    if (!event.target.closest || !event.target.closest(".search")) return;
    const links = [...found.querySelectorAll("a")];
    const at = links.indexOf(document.activeElement);
    if (event.key === "Escape") { close(); box.focus(); }
    else if (event.key === "Enter" && at < 0 && links.length) links[0].click();
    else if (event.key === "ArrowDown" && links.length) { event.preventDefault(); links[Math.min(at + 1, links.length - 1)].focus(); }
    else if (event.key === "ArrowUp" && at >= 0) { event.preventDefault(); (links[at - 1] || box).focus(); }
  });
  found.addEventListener("click", (event) => { if (event.target.closest("a")) close(); });
})();
