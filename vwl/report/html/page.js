"use strict";
// What the other scripts use: the page's data, elements made from plain text, and the theme.
const vwl = {
  data(name) {
    const element = document.getElementById(`data-${name}`);
    return element ? JSON.parse(element.textContent) : null;
  },
  // Children are elements or text; text is never read as HTML.
  element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null && value !== false) made.setAttribute(key, value === true ? "" : String(value));
    }
    made.append(...children);
    return made;
  },
  onTheme: [],
};

(() => {
  const root = document.documentElement;
  const group = document.querySelector(".theme");
  group.hidden = false;
  const changed = () => vwl.onTheme.forEach((draw) => draw());
  group.addEventListener("click", (event) => {
    const chosen = event.target.dataset.theme;
    if (!chosen) return;
    if (chosen === "auto") delete root.dataset.theme;
    else root.dataset.theme = chosen;
    for (const button of group.children) button.setAttribute("aria-pressed", String(button.dataset.theme === chosen));
    changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);

  // The entry of the section that is read is marked in the contents.
  const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        const current = links.get(entry.target.id);
        current.setAttribute("aria-current", "true");
        const list = current.closest("ul");
        if (list.scrollWidth > list.clientWidth) list.scrollLeft = current.offsetLeft - list.clientWidth / 3;
      }
    },
    { rootMargin: "-25% 0px -70% 0px" },
  );
  document.querySelectorAll("main > section").forEach((section) => seen.observe(section));
})();
