// Draws every figure with the colours of the light or dark page, and again when either changes.
"use strict";
(() => {
  const figures = [...document.querySelectorAll(".figure")].map((element) => ({
    element,
    figure: JSON.parse(element.querySelector("script").textContent),
  }));

  const withAlpha = (hex, alpha) => {
    const channel = (at) => parseInt(hex.slice(at, at + 2), 16);
    return `rgba(${channel(1)},${channel(3)},${channel(5)},${alpha})`;
  };

  // "@accent" and "@accent/0.2" become colours of the page's palette.
  const coloured = (value, palette) => {
    if (typeof value === "string" && value.startsWith("@")) {
      const [role, alpha] = value.slice(1).split("/");
      const hex = palette.getPropertyValue(`--${role}`).trim();
      if (!hex) return value;
      return alpha ? withAlpha(hex, alpha) : hex;
    }
    if (Array.isArray(value)) return value.map((item) => coloured(item, palette));
    if (value && typeof value === "object") {
      return Object.fromEntries(
        Object.entries(value).map(([key, item]) => [key, coloured(item, palette)]),
      );
    }
    return value;
  };

  // Small multiples: as many columns as fit, only the first of a row names the common y axis.
  const arrange = (figure, width) => {
    const least = width < 560 ? 165 : 250;
    const most = Math.max(1, Math.min(figure.cells, 4, Math.floor(width / least)));
    const rows = Math.ceil(figure.cells / most);
    const columns = Math.ceil(figure.cells / rows); // five are shown as 3 + 2, not 4 + 1
    const { layout } = figure;
    layout.height = rows * figure.cell_height;
    const inner = { x: width - 72, y: layout.height - 60 };
    const gap = { x: 46 / inner.x, y: 62 / inner.y };
    const size = { x: (1 - gap.x * (columns - 1)) / columns, y: (1 - gap.y * (rows - 1)) / rows };
    for (let i = 0; i < figure.cells; i += 1) {
      const end = i ? String(i + 1) : "";
      const [column, row] = [i % columns, Math.floor(i / columns)];
      const left = column * (size.x + gap.x);
      const top = 1 - row * (size.y + gap.y);
      Object.assign(layout[`xaxis${end}`], {
        domain: [left, left + size.x],
        anchor: `y${end}`,
        tickangle: 0,
        nticks: width < 560 ? 4 : 6,
      });
      Object.assign(layout[`yaxis${end}`], {
        domain: [Math.max(0, top - size.y), top],
        anchor: `x${end}`,
      });
      if (column) layout[`yaxis${end}`].title = { text: "" };
    }
  };

  const draw = () => {
    const palette = getComputedStyle(document.documentElement);
    const coarse = matchMedia("(pointer: coarse)").matches;
    for (const { element, figure } of figures) {
      const copy = structuredClone(figure);
      const width = element.clientWidth;
      if (copy.cells) arrange(copy, width);
      if (copy.layout.legend && width < 560) {
        Object.assign(copy.layout.legend, { entrywidth: 0.49, entrywidthmode: "fraction" });
      }
      const { data, layout } = coloured(copy, palette);
      layout.width = width;
      layout.font.family = getComputedStyle(document.body).fontFamily;
      // A finger that scrolls over a figure must scroll the page.
      layout.dragmode = coarse ? false : "zoom";
      Plotly.react(element, data, layout, { displayModeBar: false });
    }
  };

  let width = 0;
  let waiting = 0;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(draw, 120);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();

// A browser breaks 1e-3 after its minus; a non-breaking hyphen keeps the number on one line.
for (const heading of document.querySelectorAll("h1")) {
  heading.textContent = heading.textContent.replace(/(\de)-(?=\d)/g, "$1\u2011");
}
