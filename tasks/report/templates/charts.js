"use strict";
// Puts charts that respond to the pointer in place of the pictures. Where plotly.js is not beside
// the page, or something fails, the pictures stay.
document.addEventListener("DOMContentLoaded", () => {
  if (!window.Plotly) return;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const coarse = matchMedia("(pointer: coarse)").matches;  // a finger scrolls the page, no zoom
  const config = { responsive: true, displayModeBar: false, showTips: false };
  const glyphs = {
    "circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "triangle-down": "▼",
    "cross": "✚", "star": "★", "x": "✖", "triangle-left": "◀", "triangle-right": "▶",
    "circle-open": "○", "square-open": "□",
  };
  const dashes = { "dash": "6 2", "dot": "2 2", "dashdot": "6 2 1 2", "longdash": "10 3" };

  const pageColour = (name) =>
    getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const luminance = (colour) => {
    const [red, green, blue] = channels(colour).map((v) =>
      v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  // on a dark ground, mixed with white until it has the contrast of 3 that WCAG asks of charts
  const lifted = (colour) => {
    const ground = luminance(pageColour("--page"));
    let found = colour;
    for (let share = 0.1; dark.matches && (luminance(found) + 0.05) / (ground + 0.05) < 3; share += 0.1) {
      const mixed = channels(colour).map((v) => Math.round(v + (255 - v) * share));
      found = "#" + mixed.map((v) => v.toString(16).padStart(2, "0")).join("");
    }
    return found;
  };

  const added = (parent, tag, attributes, text = "") => {
    const made = parent.appendChild(document.createElement(tag));
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.textContent = text;
    return made;
  };

  // what a trace looks like, before its name
  const sample = (button, { type, mode = "", line, marker }) => {
    button.innerHTML = '<svg width="32" height="16" aria-hidden="true">' +
      '<line x1="2" x2="30" y1="8" y2="8"/><text x="16" y="13" text-anchor="middle"/></svg>';
    const [stroke, glyph] = button.firstChild.children;
    const colour = lifted(marker?.color ?? line.color);
    if (type === "bar" || mode.includes("lines")) {
      stroke.setAttribute("stroke", colour);
      stroke.setAttribute("stroke-width", type === "bar" ? 10 : 2);
      stroke.setAttribute("stroke-dasharray", dashes[line?.dash] ?? "none");
    }
    glyph.setAttribute("fill", colour);
    glyph.textContent = glyphs[marker?.symbol] ?? "";
  };

  const draw = (place, plot, hidden) => {
    const [text, rule, faint] = ["--text", "--rule", "--faint"].map(pageColour);
    const font = { color: text, family: getComputedStyle(document.body).fontFamily, size: 12 };
    const axis = {
      gridcolor: rule, zerolinecolor: rule, linecolor: faint, tickcolor: faint, fixedrange: coarse,
      automargin: true,
    };
    const data = structuredClone(plot.data);
    for (const trace of data) {
      trace.visible = !hidden.has(trace.name);
      for (const part of [trace.line, trace.marker, trace.error_y]) {
        if (part?.color) part.color = lifted(part.color);
      }
    }
    const layout = structuredClone(plot.layout);
    return window.Plotly.react(place, data, {
      ...layout,
      xaxis: { ...axis, ...layout.xaxis },
      yaxis: { ...axis, ...layout.yaxis },
      font,
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      hoverlabel: {
        bgcolor: pageColour("--strong"), bordercolor: faint, font, align: "left",
      },
      hovermode: "closest",
      dragmode: coarse ? false : "zoom",
      showlegend: false,
      margin: { l: 10, r: 10, t: 10, b: 10 },
      uirevision: "kept",
    }, config);
  };

  // a button for each line and set of bars hides it in all charts of a figure, and shows it again
  const legendOf = (plots, hidden, redraw) => {
    const traces = new Map();
    for (const trace of plots.flatMap((plot) => plot.data)) {
      if (trace.name !== undefined && !traces.has(trace.name)) traces.set(trace.name, trace);
    }
    const legend = document.createElement("div");
    legend.className = "legend";
    legend.setAttribute("role", "group");
    legend.setAttribute("aria-label", "What the charts show");
    for (const [name, trace] of traces) {
      const button = added(legend, "button", { type: "button", "aria-pressed": !hidden.has(name) });
      sample(button, trace);
      added(button, "span", {}, name);
      button.addEventListener("click", () => {
        if (!hidden.delete(name)) hidden.add(name);
        button.setAttribute("aria-pressed", !hidden.has(name));
        redraw();
      });
    }
    legend.hidden = traces.size < 2;
    return legend;
  };

  const show = async (figure) => {
    const picture = figure.querySelector(".picture");
    const plots = JSON.parse(figure.querySelector("script").textContent);
    const hidden = new Set();
    const charts = document.createElement("div");
    charts.className = "charts";
    charts.setAttribute("role", "img");
    charts.setAttribute("aria-label", picture.querySelector("img").alt);
    const places = plots.map((plot) => {
      const panel = added(charts, "div", {});
      if (plot.title) added(panel, "p", { class: "panel" }, plot.title);
      return added(panel, "div", {});
    });
    const redraw = () => Promise.all(plots.map((plot, at) => draw(places[at], plot, hidden)));
    let legend = legendOf(plots, hidden, redraw);
    picture.after(legend, charts);
    try {
      await redraw();
    } catch (error) {
      legend.remove();
      charts.remove();
      return;
    }
    picture.hidden = true;
    dark.addEventListener("change", () => {
      const recoloured = legendOf(plots, hidden, redraw);
      legend.replaceWith(recoloured);
      legend = recoloured;
      redraw();
    });
  };

  document.querySelectorAll("figure:has(script)").forEach(show);
});
