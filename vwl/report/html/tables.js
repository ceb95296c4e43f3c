"use strict";
// Tables of which one is shown at a time, and the confusion matrices, which are built when they are looked at.
(() => {
  const matrices = vwl.data("confusion") || {};

  function buildMatrix(target) {
    const { names, counts } = matrices[target.dataset.matrix];
    const head = vwl.element("tr", {}, vwl.element("td"), ...names.map((name) => vwl.element("th", { scope: "col" }, name)));
    const rows = counts.map((row, i) => {
      const total = row.reduce((sum, value) => sum + value, 0);
      const cells = row.map((value, j) => {
        const share = total ? value / total : 0;
        const text = !total || share < 0.0005 ? "" : share > 0.9995 ? "100" : (100 * share).toFixed(share < 0.1 ? 1 : 0);
        return vwl.element(
          "td",
          { class: "n shade", style: `--v: ${Math.sqrt(share).toFixed(3)}`, title: `${names[i]} taken for ${names[j]}: ${(100 * share).toFixed(2)} %` },
          text,
        );
      });
      return vwl.element("tr", {}, vwl.element("th", { scope: "row" }, names[i]), ...cells);
    });
    target.append(vwl.element("table", { class: "matrix" }, vwl.element("thead", {}, head), vwl.element("tbody", {}, ...rows)));
  }

  for (const controls of document.querySelectorAll("[data-tables]")) {
    const section = controls.closest("section");
    const selects = [...controls.querySelectorAll("[data-select]")];
    const show = () => {
      for (const table of section.querySelectorAll(".switched")) {
        table.hidden = selects.some((select) => table.dataset[select.dataset.select] !== select.value);
        const target = table.querySelector("[data-matrix]");
        if (!table.hidden && target && !target.hasChildNodes()) buildMatrix(target);
      }
    };
    selects.forEach((select) => select.addEventListener("change", show));
    show();
  }
})();
