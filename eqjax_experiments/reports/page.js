"use strict";
// Draws the charts in the colours of the theme, and again when it changes.
const root = document.documentElement;
const button = document.getElementById("theme");
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const drawn = new Set();

function template() {
  const style = getComputedStyle(root);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = {
    gridcolor: colour("--line"),
    zerolinecolor: colour("--line"),
    linecolor: colour("--line"),
    automargin: true,
  };
  return {
    layout: {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: colour("--text"), family: "system-ui, sans-serif", size: 12 },
      hoverlabel: {
        align: "left",
        bgcolor: colour("--page"),
        bordercolor: colour("--line"),
        font: { color: colour("--text") },
      },
      xaxis: axis,
      yaxis: axis,
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    },
  };
}

function draw(plot) {
  if (drawn.has(plot)) return;
  drawn.add(plot);
  const figure = JSON.parse(plot.nextElementSibling.textContent);
  const layout = { ...figure.layout, template: template() };
  const options = { responsive: true, displayModeBar: false };
  Plotly.newPlot(plot, figure.data, layout, options);
  const orbits = (layout.meta || {}).orbits;
  if (orbits) plot.on("plotly_hover", (event) => mark(plot, orbits, event.points[0]));
}

// Outline all entries of a kernel that share the orbit of the one below the pointer.
function mark(plot, orbits, point) {
  const orbit = orbits[point.y]?.[point.x];
  if (orbit === undefined || orbit === null || point.curveNumber) return;
  const x = [];
  const y = [];
  orbits.forEach((row, i) => row.forEach((own, j) => {
    if (own === orbit) {
      x.push(j);
      y.push(i);
    }
  }));
  Plotly.restyle(plot, { x: [x], y: [y] }, [1]);
}

function drawVisible(within) {
  for (const plot of within.querySelectorAll(".plot")) {
    if (plot.offsetParent !== null) draw(plot);
  }
}

function show(theme) {
  root.dataset.theme = theme;
  button.textContent = theme === "dark" ? "Light" : "Dark";
  for (const plot of drawn) Plotly.relayout(plot, { template: template() });
}

button.addEventListener("click", () => {
  show(root.dataset.theme === "dark" ? "light" : "dark");
});
prefersDark.addEventListener("change", () => show(prefersDark.matches ? "dark" : "light"));

for (const choice of document.querySelectorAll(".choice")) {
  const select = choice.querySelector("select");
  const options = [...choice.children].filter((e) => e.classList.contains("option"));
  select.addEventListener("change", () => {
    options.forEach((option, i) => (option.hidden = i !== Number(select.value)));
    drawVisible(choice);
    for (const plot of choice.querySelectorAll(".plot")) {
      if (drawn.has(plot) && plot.offsetParent !== null) Plotly.Plots.resize(plot);
    }
  });
}
for (const details of document.querySelectorAll("details")) {
  details.addEventListener("toggle", () => drawVisible(details));
}

show(prefersDark.matches ? "dark" : "light");
drawVisible(document);
