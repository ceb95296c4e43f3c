"use strict";
// Charts are drawn by plotly when they come near the screen, in the colours of the theme.
(() => {
  const light = ["#2f5bd0", "#c2410c", "#15803d", "#a21caf", "#0e7490", "#a16207"];
  const dark = ["#8fb0ff", "#ff9f6b", "#6fd695", "#eb9bf5", "#67d3e6", "#e8c15c"];
  const charts = Object.assign({}, ...[...document.querySelectorAll('script[id^="data-charts_"]')].map((e) => JSON.parse(e.textContent)));
  const drawn = new Set();

  function trace(one, colours, text) {
    const colour = one.colour < 0 ? text : colours[one.colour % colours.length];
    return {
      name: one.name,
      x: one.x,
      y: one.y,
      mode: one.mode,
      type: "scatter",
      text: one.labels || undefined,
      hovertemplate: one.labels ? "%{text}<extra></extra>" : "%{y:.4~g}<extra>%{fullData.name}</extra>",
      line: { color: colour, width: 2, dash: one.dash ? "dash" : "solid" },
      marker: { color: colour, size: one.mode === "markers" ? 10 : 5, symbol: one.symbol, line: { width: one.symbol.endsWith("open") ? 2 : 0, color: colour } },
      error_y: one.error ? { type: "data", array: one.error, visible: true, color: colour, thickness: 1.5, width: 5 } : undefined,
    };
  }

  // Plotly reads a few tags in names; a name is shown as it is written.
  const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

  function draw(element) {
    const chart = charts[element.dataset.chart];
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    const text = value("--soft");
    const isDark = style.colorScheme === "dark";
    const axis = { gridcolor: value("--line"), zerolinecolor: value("--line"), linecolor: value("--line"), automargin: true, fixedrange: false };
    const safe = chart.series.map((one) => ({
      ...one,
      name: plain(one.name),
      x: chart.categories ? one.x.map(plain) : one.x,
      labels: one.labels && one.labels.map(plain),
    }));
    const layout = {
      margin: { l: 52, r: 12, t: 8, b: 40 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: text },
      hoverlabel: { bgcolor: value("--panel"), bordercolor: value("--line"), font: { color: value("--text"), size: 12 } },
      hovermode: chart.categories ? "closest" : "x unified",
      xaxis: { ...axis, title: { text: plain(chart.x_title), standoff: 6 }, type: chart.categories ? "category" : "linear" },
      yaxis: { ...axis, title: { text: plain(chart.y_title), standoff: 6 }, type: chart.log_y ? "log" : "linear" },
      showlegend: safe.length > 1,
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0, font: { size: 11 } },
      dragmode: false,
    };
    const options = { displaylogo: false, responsive: true, displayModeBar: false, showEditInChartStudio: false, plotlyServerURL: "" };
    Plotly.react(element, safe.map((one) => trace(one, isDark ? dark : light, text)), layout, options);
    drawn.add(element);
  }

  const near = new IntersectionObserver(
    (entries) => {
      for (const entry of entries.filter((one) => one.isIntersecting)) {
        near.unobserve(entry.target);
        draw(entry.target);
      }
    },
    { rootMargin: "300px" },
  );
  document.querySelectorAll("[data-chart]").forEach((element) => near.observe(element));
  vwl.onTheme.push(() => drawn.forEach(draw));
})();
