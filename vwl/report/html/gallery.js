"use strict";
// The gallery: cards of images with the layer of the chosen stage, filters, and a viewer for one image.
(() => {
  const data = vwl.data("gallery");
  const byId = (id) => document.getElementById(id);
  if (!data || !data.images.length) return;
  const PAGE = 60;
  const stages = data.stages;
  const inputs = { stage: byId("stage"), opacity: byId("opacity"), label: byId("filter-class"), split: byId("filter-split"), score: byId("filter-score"), sort: byId("sort") };
  const cards = byId("cards");
  const viewer = byId("viewer");
  let found = [];
  let shown = 0;
  let current = 0;

  const stage = () => stages[Number(inputs.stage.value)][0];
  const stageName = () => stages[Number(inputs.stage.value)][1];
  const labelNames = (image) => image.labels.map((id) => data.classes[id]).join(", ");

  // Photo and layer of an image; a stage without a result for it says so.
  function fill(picture, image, source) {
    const layer = source.layers[stage()];
    const what = stage() === "photo" ? image.id : `${image.id}, ${stageName()}`;
    const parts = [vwl.element("img", { src: source.photo, alt: `${what}: ${labelNames(image) || "no labels"}`, loading: "lazy" })];
    if (layer) {
      const isHeat = stage() === "cam" || stage() === "walk";
      parts.push(vwl.element("img", { src: layer, alt: "", class: isHeat ? "layer" : "layer mask" }));
    } else if (stage() !== "photo") {
      parts.push(vwl.element("span", { class: "missing" }, "no result"));
    }
    picture.replaceChildren(...parts);
  }

  // The score of the stage that is looked at; that of the order where the stage has none (image, ground truth).
  function scoreText(image) {
    const key = stage() in image.scores ? stage() : inputs.sort.value.replace("best:", "");
    return key in image.scores ? image.scores[key].toFixed(1) : "";
  }

  function card(position) {
    const image = found[position];
    const picture = vwl.element("span", { class: "picture" });
    fill(picture, image, image);
    const text = vwl.element("span", { class: "card-text" }, vwl.element("b", { title: image.id }, image.id), vwl.element("span", {}, scoreText(image)));
    const labels = vwl.element("span", { class: "card-labels" }, labelNames(image) || "no labels");
    const button = vwl.element("button", { type: "button", class: "card", "data-position": position }, picture, text, labels);
    button.addEventListener("click", () => open(position));
    return vwl.element("li", {}, button);
  }

  function more() {
    const next = Math.min(found.length, shown + PAGE);
    const added = [];
    for (let position = shown; position < next; position += 1) added.push(card(position));
    cards.append(...added);
    shown = next;
    byId("more").hidden = shown >= found.length;
    byId("gallery-count").textContent = found.length ? `${found.length.toLocaleString("en")} images match, ${shown.toLocaleString("en")} shown.` : "No image matches.";
  }

  function select() {
    const [sort, best] = [inputs.sort.value.replace("best:", ""), inputs.sort.value.startsWith("best:")];
    const limit = inputs.score.value === "" ? Infinity : Number(inputs.score.value);
    const key = sort || (byId("sort").options[0].value || "segment");
    found = data.images.filter(
      (image) =>
        (!inputs.label.value || image.labels.includes(Number(inputs.label.value))) &&
        (!inputs.split.value || image.split === inputs.split.value) &&
        (limit === Infinity || image.scores[key] < limit),
    );
    if (sort) {
      const rank = (image) => (sort in image.scores ? (best ? -image.scores[sort] : image.scores[sort]) : Infinity);
      found = found.map((image, i) => [rank(image), i, image]).sort((a, b) => (a[0] === b[0] ? a[1] - b[1] : a[0] - b[0])).map((one) => one[2]);
    }
    cards.replaceChildren();
    shown = 0;
    more();
  }

  function restage() {
    byId("stage-name").textContent = stageName();
    inputs.stage.setAttribute("aria-valuetext", stageName());
    for (const button of cards.querySelectorAll(".card")) {
      const image = found[Number(button.dataset.position)];
      fill(button.querySelector(".picture"), image, image);
      button.querySelector(".card-text span").textContent = scoreText(image);
    }
    if (viewer.open) view();
  }

  function setStage(number) {
    inputs.stage.value = Math.max(0, Math.min(stages.length - 1, number));
    restage();
  }

  function view() {
    const image = found[current];
    const full = data.full[image.id];
    fill(byId("viewer-picture"), image, full || image);
    byId("viewer-title").textContent = `${image.id} · ${stageName()}`;
    const scores = stages.filter(([key]) => key in image.scores).map(([key, name]) => `${name} ${image.scores[key].toFixed(1)}`);
    const parts = [image.split, labelNames(image) || "no labels", scores.length ? `IoU: ${scores.join(", ")}` : "", full ? "" : "thumbnail only"];
    byId("viewer-note").textContent = parts.filter(Boolean).join(" · ");
    byId("viewer-previous").disabled = current === 0;
    byId("viewer-next").disabled = current === found.length - 1;
    [...byId("viewer-stages").children].forEach((button, number) => button.setAttribute("aria-pressed", String(number === Number(inputs.stage.value))));
  }

  function open(position) {
    current = position;
    if (!viewer.open) viewer.showModal();
    view();
  }

  function step(by) {
    const next = current + by;
    if (next >= 0 && next < found.length) open(next);
  }

  stages.forEach(([, name], number) => {
    const button = vwl.element("button", { type: "button", "aria-pressed": "false" }, name);
    button.addEventListener("click", () => setStage(number));
    byId("viewer-stages").append(button);
  });
  viewer.addEventListener("keydown", (event) => {
    const number = Number(inputs.stage.value);
    const actions = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), ArrowUp: () => setStage(number + 1), ArrowDown: () => setStage(number - 1) };
    const digit = Number(event.key);
    const action = actions[event.key] || (digit >= 1 && digit <= stages.length ? () => setStage(digit - 1) : null);
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  });
  viewer.addEventListener("click", (event) => event.target === viewer && viewer.close());
  viewer.addEventListener("close", () => {
    const button = cards.querySelector(`[data-position="${current}"]`);
    if (button) button.focus();
  });
  byId("viewer-close").addEventListener("click", () => viewer.close());
  byId("viewer-previous").addEventListener("click", () => step(-1));
  byId("viewer-next").addEventListener("click", () => step(1));
  inputs.stage.addEventListener("input", restage);
  inputs.opacity.addEventListener("input", () => document.documentElement.style.setProperty("--opacity", Number(inputs.opacity.value) / 100));
  for (const name of ["label", "split", "score", "sort"]) inputs[name].addEventListener("input", select);
  document.querySelector(".gallery-controls").addEventListener("submit", (event) => event.preventDefault());
  byId("more").addEventListener("click", more);

  const classes = [...new Set(data.images.flatMap((image) => image.labels))].sort((a, b) => a - b);
  byId("gallery-legend").append(
    ...classes.map((id) => vwl.element("li", {}, vwl.element("i", { style: `background: ${data.colours[id]}` }), data.classes[id])),
    vwl.element("li", {}, vwl.element("i", { style: "background: #fff" }), "ignored"),
  );
  select();
  restage();
})();
