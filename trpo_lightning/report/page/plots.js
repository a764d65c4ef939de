// What all figures share: the theme of the reader, panels side by side, and names as plain text.

const CONFIG = {
  displayModeBar: matchMedia("(hover: hover) and (min-width: 600px)").matches ? "hover" : false,
  displaylogo: false,
  responsive: false, // figures are laid out anew where the width changes
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]], // others talk to a server
};
const DARK = matchMedia("(prefers-color-scheme: dark)");
const LIFT = 0.4; // lightness of black on a dark page
const SMALL = { least: 220, tall: 130, size: 12 }; // of small multiples
const DASHES = { solid: "", dash: "6 3", dot: "2 2", dashdot: "6 3 2 3", longdash: "11 4" };

/** A colour of the page's style. */
const themed = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** A colour legible on the page: on a dark one lighter, in OKLab, which keeps the hue and the order of lightness. */
function shown(color) {
  if (!DARK.matches) return color;
  if (color === "#000000") return themed("ink"); // or it would be the grey of what stands behind
  const [r, g, b] = channels(color).map((c) =>
    c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4,
  );
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  const lightness = 0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s;
  const more = LIFT + (1 - LIFT) * lightness - lightness; // the same on l, m and s changes lightness alone
  const [x, y, z] = [l, m, s].map((c) => (c + more) ** 3);
  const mixed = [
    4.0767416621 * x - 3.3077115913 * y + 0.2309699292 * z,
    -1.2684380046 * x + 2.6097574011 * y - 0.3413193965 * z,
    -0.0041960863 * x - 0.7034186147 * y + 1.707614701 * z,
  ];
  const display = (c) => (c <= 0.0031308 ? 12.92 * Math.max(c, 0) : 1.055 * Math.min(c, 1) ** (1 / 2.4) - 0.055);
  return (
    "#" +
    mixed
      .map((c) =>
        Math.round(display(c) * 255)
          .toString(16)
          .padStart(2, "0"),
      )
      .join("")
  );
}

const channels = (color) => [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
const faint = (color, share) => `rgba(${channels(color).join(",")},${share})`;

/** Names as text: plotly reads `<` as markup. */
const safe = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** A number with four digits, as in the tables; a dash for none. */
function digits(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  return value.toLocaleString("en", { maximumSignificantDigits: size >= 1000 ? Math.floor(Math.log10(size)) + 1 : 4 });
}

/** The room of a figure: its column where several stand side by side. */
function widthOf(name) {
  const around = document.getElementById(name).parentElement;
  return parseFloat(getComputedStyle(around).gridTemplateColumns) || around.clientWidth;
}

/**
 * Panels side by side, as many in a row as fit: `layout` for plotly, `axes(i)` for the traces of panel i.
 * `group(i)`: panels of a group share their y axis.
 */
function panels(
  name,
  titles,
  { least = 330, tall = 250, left = 58, lines = 1, x = "", y = "", group = null, most = 5, size = 13 },
) {
  const width = widthOf(name);
  const columns = Math.max(1, Math.min(most, titles.length, Math.floor(width / least)));
  const rows = Math.ceil(titles.length / columns);
  const [top, bottom, right] = [12 + 16 * lines, 46, 14];
  const gapX = left + 8;
  const gapY = 34 + 16 * lines;
  const inner = Math.max(width - left - right, 120);
  const one = (inner - (columns - 1) * gapX) / columns;
  const high = rows * tall + (rows - 1) * gapY;
  const layout = {
    ...frame(width, high + top + bottom),
    margin: { l: left, r: right, t: top, b: bottom },
    annotations: [],
  };
  const first = {};
  titles.forEach((title, i) => {
    const [row, column, n] = [Math.floor(i / columns), i % columns, i ? i + 1 : ""];
    const [from, end] = [(column * (one + gapX)) / inner, (column * (one + gapX) + one) / inner];
    const upper = 1 - (row * (tall + gapY)) / high;
    const isLast = i + columns >= titles.length;
    layout[`xaxis${n}`] = {
      ...axis(),
      domain: [from, end],
      anchor: `y${n}`,
      title: label(isLast ? x : ""),
      nticks: one < 260 ? 4 : 7,
    };
    layout[`yaxis${n}`] = {
      ...axis(),
      domain: [upper - tall / high, upper],
      anchor: `x${n}`,
      title: label(column ? "" : y),
    };
    if (group && first[group(i)] !== undefined) layout[`yaxis${n}`].matches = `y${first[group(i)]}`;
    else if (group) first[group(i)] = n;
    const place = {
      x: from,
      y: upper,
      xref: "paper",
      yref: "paper",
      xanchor: "left",
      yanchor: "bottom",
      align: "left",
    };
    layout.annotations.push({ ...place, text: title, showarrow: false, font: { size, color: themed("ink") } });
  });
  return { layout, axes: (i) => ({ xaxis: `x${i ? i + 1 : ""}`, yaxis: `y${i ? i + 1 : ""}` }) };
}

/** The layout of a figure without its axes. */
function frame(width, height) {
  return {
    width,
    height,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: themed("ink") },
    hoverlabel: { bgcolor: themed("back"), bordercolor: themed("line"), font: { color: themed("ink") }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: themed("soft"), activecolor: themed("ink") },
    hovermode: "closest",
    showlegend: false,
  };
}

function axis() {
  const line = themed("line");
  return {
    gridcolor: themed("faint"),
    zerolinecolor: line,
    linecolor: line,
    automargin: false,
    tickfont: { color: themed("soft") },
  };
}

const label = (text) => ({ text: safe(text), font: { size: 12, color: themed("soft") }, standoff: 6 });

/** Draws a figure, or empties its place where there is nothing. */
function draw(name, traces, layout) {
  const place = document.getElementById(name);
  if (!place) return;
  place.hidden = !traces.length;
  if (traces.length) Plotly.react(place, traces, layout, CONFIG);
}
