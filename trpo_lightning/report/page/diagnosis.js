// Why curves look as they do: four figures with a row for each variant of one environment.

const SHADES = [
  "#0072B2",
  "#E69F00",
  "#009E73",
  "#CC79A7",
  "#56B4E9",
  "#D55E00",
  "#999933",
  "#882255",
  "#44AA99",
  "#777777",
];

function drawDiagnosis(data, state) {
  if (!document.getElementById("diagnosis-time")) return;
  const where = document.getElementById("where").value;
  const rows = data.diagnoses.filter((d) => d.env_id === where && !state.hidden.has(data.variants[d.variant]));
  const reasons = [...new Set(rows.flatMap((d) => Object.keys(d.reasons)))];
  shares(
    "diagnosis-rejections",
    "rejected updates, share of iterations",
    rows,
    reasons,
    (d, reason) => [d.reasons[reason] ?? 0, d.iterations],
    false,
  );
  const counts = rows.some((d) => d.backtracks.length) ? [...Array(data.manyBacktracks + 1).keys()] : [];
  const named = (count) => `${count}${count === data.manyBacktracks ? " or more" : ""}`;
  const total = (values) => values.reduce((sum, value) => sum + value, 0);
  shares(
    "diagnosis-backtracks",
    "backtracks of the line search, share of updates",
    rows,
    counts,
    (d, count) => [d.backtracks[count] ?? 0, total(d.backtracks)],
    true,
    named,
  );
  ratios(data, rows);
  const parts = [...new Set(rows.flatMap((d) => Object.keys(d.seconds)))].sort(
    (a, b) => (a === "overhead") - (b === "overhead"),
  );
  shares(
    "diagnosis-time",
    "wall clock, share of each part",
    rows,
    parts,
    (d, part) => [d.seconds[part] ?? 0, total(Object.values(d.seconds))],
    true,
  );
}

/** The layout of rows with a title and a legend above. */
function rowsLayout(name, title, rows, entries) {
  const wide = widthOf(name);
  const longest = Math.max(...rows.map((d) => d.variant.length), 1);
  const left = Math.min(20 + 6.6 * longest, wide * 0.4);
  const fits = Math.floor((left - 12) / 6.4);
  const perLine = Math.max(
    1,
    Math.floor((wide - 20) / (44 + 6.8 * Math.max(...entries.map((text) => text.length), 1))),
  );
  const lines = entries.length > 1 ? Math.ceil(entries.length / perLine) : 0;
  const top = 30 + 19 * lines;
  const height = 20 * rows.length + 14;
  return {
    ...frame(wide, height + top + 40),
    margin: { l: left, r: 14, t: top, b: 40 },
    barmode: "stack",
    bargap: 0.3,
    showlegend: lines > 0,
    legend: {
      orientation: "h",
      x: -left / (wide - left - 14),
      xanchor: "left",
      y: 1 + 4 / height,
      yanchor: "bottom",
      traceorder: "normal",
      font: { size: 11 },
    },
    annotations: [
      {
        text: safe(title),
        x: -left / (wide - left - 14),
        y: 1 + (top - 20) / height,
        xref: "paper",
        yref: "paper",
        xanchor: "left",
        yanchor: "bottom",
        showarrow: false,
        font: { size: 13, color: themed("ink") },
      },
    ],
    xaxis: axis(),
    yaxis: {
      ...axis(),
      tickvals: rows.map((_, k) => k),
      ticktext: rows.map((d) => safe(d.variant.length > fits ? d.variant.slice(0, fits - 1) + "…" : d.variant)),
      range: [rows.length - 0.4, -0.6],
      tickfont: { size: 11, color: themed("ink") },
      zeroline: false,
      showgrid: false,
    },
  };
}

/** Stacked bars; `part(row, kind)` gives count and whole. */
function shares(name, title, rows, kinds, part, isWhole, named = String) {
  const texts = kinds.map(named);
  const has = rows.some((d) => kinds.some((kind) => part(d, kind)[0] > 0));
  const traces = kinds.map((kind, i) => ({
    type: "bar",
    orientation: "h",
    name: safe(texts[i]),
    x: rows.map((d) => (part(d, kind)[1] ? part(d, kind)[0] / part(d, kind)[1] : 0)),
    y: rows.map((_, k) => k),
    customdata: rows.map((d) => [safe(d.variant), digits(part(d, kind)[0])]),
    marker: { color: kind === "overhead" ? "#888888" : shown(SHADES[i % SHADES.length]) },
    hovertemplate: `%{customdata[0]}<br>${safe(texts[i])}: %{x:.1%} (%{customdata[1]})<extra></extra>`,
  }));
  const layout = rowsLayout(name, title, rows, texts);
  Object.assign(layout.xaxis, {
    tickformat: isWhole ? ".0%" : ".1~%",
    range: isWhole ? [0, 1] : undefined,
    rangemode: "tozero",
  });
  draw(name, has ? traces : [], layout);
}

/** Boxes of KL over delta: median, quartiles, 5 and 95 %. */
function ratios(data, rows) {
  const known = rows.filter((d) => d.kl.length);
  const traces = known.map((d, k) => {
    const [low, lower, median, upper, high] = d.kl;
    const color = colorOf(data, d.variant);
    return {
      type: "box",
      orientation: "h",
      name: safe(d.variant),
      y: [k],
      q1: [lower],
      median: [median],
      q3: [upper],
      lowerfence: [low],
      upperfence: [high],
      line: { color, width: 1.5 },
      fillcolor: faint(color, 0.3),
      width: 0.55,
      hoverinfo: "x+name",
    };
  });
  const layout = rowsLayout("diagnosis-kl", "KL / delta of updates: 5, 25, 50, 75, 95 %", known, []);
  const most = Math.max(1.1, ...known.map((d) => d.kl[4] * 1.05));
  Object.assign(layout.xaxis, { range: [0, most], hoverformat: ".3~g" });
  layout.shapes = [
    {
      type: "line",
      xref: "x",
      yref: "paper",
      x0: 1,
      x1: 1,
      y0: 0,
      y1: 1,
      line: { color: themed("soft"), width: 1, dash: "dot" },
    },
  ];
  draw("diagnosis-kl", traces, layout);
}
