// Scores: all variants sorted with their intervals, what each run kept of its best, an axis, a heat map.

const ROW = 19;

/** Rows of variants, one panel for each environment; `rows(environment)` lists them from the top. */
function ranking(name, data, state, rows, options) {
  const shownRows = (environment) => rows(environment).filter((row) => !state.hidden.has(data.variants[row.variant]));
  const places = data.environments
    .map((environment) => ({ environment, rows: shownRows(environment) }))
    .filter((place) => place.rows.length);
  const most = Math.max(...places.map((place) => place.rows.length), 1);
  const longest = Math.max(...places.flatMap((place) => place.rows.map((row) => row.variant.length)), 1);
  const left = Math.min(24 + 6.6 * longest, widthOf(name) * 0.4);
  const { layout, axes } = panels(
    name,
    places.map((place) => safe(place.environment)),
    { least: 420, tall: ROW * most + 14, left, most: 1, ...options },
  );
  const fits = Math.floor((left - 14) / 6.4);
  places.forEach((place, i) => {
    const text = place.rows.map((row) =>
      row.variant.length > fits ? row.variant.slice(0, fits - 1) + "…" : row.variant,
    );
    const ticks = {
      tickvals: place.rows.map((_, k) => k),
      ticktext: text.map(safe),
      range: [most - 0.4, -0.6],
      tickfont: { size: 11, color: themed("ink") },
    };
    Object.assign(layout[`yaxis${i ? i + 1 : ""}`], ticks, { zeroline: false });
    layout[`yaxis${i ? i + 1 : ""}`].range = [place.rows.length - 0.4, -0.6];
  });
  return { places, layout, axes };
}

const colorOf = (data, variant) => shown(data.series[data.variants[variant]].color);
const byScore = (data) => (environment) =>
  data.scores.filter((s) => s.environment === environment && s.value !== null).sort((a, b) => b.value - a.value);

function drawIntervals(data, state) {
  const { places, layout, axes } = ranking("intervals", data, state, byScore(data), { x: data.scoreName });
  const traces = places.flatMap((place, i) => {
    const middles = place.rows.map((score) => score.value);
    const colors = place.rows.map((score) => colorOf(data, score.variant));
    const ends = place.rows.flatMap((score, k) => (score.low === null ? [] : [[score.low, score.high, k, colors[k]]]));
    const texts = place.rows.map(
      (s) =>
        `${safe(s.variant)}, ${s.finished}/${s.declared} runs<br>IQM ${digits(s.value)}` +
        (s.low === null ? ", no interval" : ` [${digits(s.low)}, ${digits(s.high)}]`),
    );
    const dots = place.rows.flatMap((score, k) => score.runs.map((run) => [run, k, colors[k]]));
    return [
      ...ends.map(([low, high, k, color]) => ({
        x: [low, high],
        y: [k, k],
        mode: "lines",
        meta: "interval",
        line: { color, width: 2.5 },
        hoverinfo: "skip",
      })),
      {
        x: dots.map((d) => d[0]),
        y: dots.map((d) => d[1]),
        mode: "markers",
        meta: "runs",
        marker: { size: 5, opacity: 0.45, color: dots.map((d) => d[2]) },
        hovertemplate: "run: %{x:,.4~g}<extra></extra>",
      },
      {
        x: middles,
        y: place.rows.map((_, k) => k),
        mode: "markers",
        meta: "middle",
        text: texts,
        marker: {
          size: 9,
          color: colors,
          line: { width: 1.8, color: place.rows.map((score, k) => (score.isDefault ? themed("ink") : colors[k])) },
        },
        hovertemplate: "%{text}<extra></extra>",
      },
    ].map((trace) => ({ ...trace, ...axes(i) }));
  });
  draw("intervals", traces, layout);
}

/** Final over best evaluation, a dot for each run, in the order of the scores. */
function drawFinalOverBest(data, state) {
  if (!document.getElementById("final-over-best")) return;
  const scored = byScore(data);
  const rows = (environment) => {
    const first = scored(environment).map((score) => score.variant);
    const own = data.runs.filter((run) => run.environment === environment && run.finalOverBest !== null);
    const variants = [...new Set([...first, ...own.map((run) => run.variant)])];
    return variants.map((variant) => ({ variant, runs: own.filter((run) => run.variant === variant) }));
  };
  const { places, layout, axes } = ranking("final-over-best", data, state, rows, { x: "final / best evaluation" });
  const traces = places.flatMap((place, i) => {
    const runs = place.rows.flatMap((row, k) => row.runs.map((run) => ({ run, k })));
    const n = i ? i + 1 : "";
    const least = Math.min(0, ...runs.map(({ run }) => run.finalOverBest));
    layout[`xaxis${n}`].range = [least - 0.04, 1.06];
    layout.shapes = [
      ...(layout.shapes ?? []),
      {
        type: "line",
        xref: `x${n}`,
        yref: `y${n} domain`,
        x0: 1,
        x1: 1,
        y0: 0,
        y1: 1,
        line: { color: themed("soft"), width: 1, dash: "dot" },
      },
    ];
    const texts = runs.map(
      ({ run }) =>
        `${safe(run.variant)}, seed ${run.seed} (${run.state})<br>last ${digits(run.final)}, ` +
        `best ${digits(run.best)}: ${digits(run.finalOverBest)}`,
    );
    const symbols = runs.map(({ run }) => (run.finished ? "circle" : "circle-open"));
    return {
      x: runs.map(({ run }) => run.finalOverBest),
      y: runs.map(({ k }) => k),
      text: texts,
      mode: "markers",
      meta: "runs",
      marker: { size: 7, opacity: 0.75, symbol: symbols, color: runs.map(({ run }) => colorOf(data, run.variant)) },
      hovertemplate: "%{text}<extra></extra>",
      ...axes(i),
    };
  });
  draw("final-over-best", traces, layout);
}

/** Scores against the levels of the experiment's axis; small multiples where lines are too many. */
function drawSensitivity(data) {
  if (!data.sensitivity) return;
  const { key, scale, levels, groups } = data.sensitivity;
  const own = (environment) => groups.filter((group) => group.environment === environment);
  const environments = data.environments.filter((environment) => own(environment).length);
  const crowded = environments.some((environment) => own(environment).length > data.mostInAPanel);
  const places = crowded
    ? groups.map((group) => ({
        title: `${safe(group.environment)}<br>${safe(group.label)}`,
        environment: group.environment,
        groups: [group],
      }))
    : environments.map((environment) => ({ title: safe(environment), environment, groups: own(environment) }));
  const size = crowded ? { ...SMALL, lines: 2, group: (i) => places[i].environment } : { tall: 260, most: 3 };
  const { layout, axes } = panels(
    "sensitivity",
    places.map((place) => place.title),
    { ...size, x: key, y: crowded ? "" : data.scoreName },
  );
  const even = scale === "even" ? { type: "category", categoryorder: "array", categoryarray: levels } : { type: scale };
  const ticks = scale !== "even" && levels.length <= 8 ? { tickvals: levels, ticktext: levels.map(String) } : {};
  Object.keys(layout)
    .filter((name) => name.startsWith("xaxis"))
    .forEach((name) => Object.assign(layout[name], even, ticks));
  const traces = places.flatMap((place, i) =>
    place.groups.flatMap((group) => sensitivityLines(data, group)).map((trace) => ({ ...trace, ...axes(i) })),
  );
  draw("sensitivity", traces, layout);
}

function sensitivityLines(data, group) {
  const color = shown(group.color);
  const scores = group.variants.map((variant) =>
    data.scores.find((s) => s.variant === variant && s.environment === group.environment),
  );
  const error = {
    type: "data",
    array: scores.map((s) => (s.high === null ? null : s.high - s.value)),
    arrayminus: scores.map((s) => (s.low === null ? null : s.value - s.low)),
    thickness: 1.4,
    color,
  };
  const dots = scores.flatMap((s, k) => s.runs.map((run) => [group.levels[k], run]));
  return [
    {
      x: group.levels,
      y: scores.map((s) => s.value),
      error_y: error,
      mode: "lines+markers",
      meta: "middle",
      line: { color, dash: group.dash, width: 2 },
      marker: {
        size: scores.map((s) => (s.isDefault ? 13 : 7)),
        color,
        line: { color: scores.map((s) => (s.isDefault ? themed("ink") : color)), width: 1.5 },
      },
      text: scores.map((s) => `${safe(s.variant)}, ${s.finished}/${s.declared} runs`),
      hovertemplate: "%{text}<br>IQM %{y:,.4~g}<extra></extra>",
    },
    {
      x: dots.map((d) => d[0]),
      y: dots.map((d) => d[1]),
      mode: "markers",
      meta: "runs",
      marker: { size: 5, color, opacity: 0.4 },
      hovertemplate: "run: %{y:,.4~g}<extra></extra>",
    },
  ];
}

function drawHeatMaps(data) {
  if (!data.heatMaps.length) return;
  const [first, second] = data.heatMaps[0].keys;
  const { layout, axes } = panels(
    "heat-map",
    data.heatMaps.map((heat) => safe(heat.environment)),
    { least: 420, tall: 300, most: 2, x: second, y: first },
  );
  Object.keys(layout)
    .filter((name) => /^[xy]axis/.test(name))
    .forEach((name) => (layout[name].type = "category"));
  const traces = data.heatMaps.map((heat, i) => ({
    type: "heatmap",
    x: heat.columns,
    y: heat.rows,
    z: heat.scores,
    text: heat.scores.map((row) => row.map(digits)),
    customdata: heat.runs,
    texttemplate: "%{text}",
    colorscale: "Viridis",
    showscale: false,
    hovertemplate: `${safe(first)}=%{y}, ${safe(second)}=%{x}<br>IQM %{text}, %{customdata} runs<extra></extra>`,
    ...axes(i),
  }));
  layout.shapes = data.heatMaps.flatMap((heat, i) => (heat.default ? [framed(heat.default, i)] : []));
  draw("heat-map", traces, layout);
}

/** A frame around the default's cell. */
function framed([row, column], i) {
  const n = i ? i + 1 : "";
  return {
    type: "rect",
    xref: `x${n}`,
    yref: `y${n}`,
    x0: column - 0.5,
    x1: column + 0.5,
    y0: row - 0.5,
    y1: row + 0.5,
    line: { color: themed("ink"), width: 2.5 },
  };
}
