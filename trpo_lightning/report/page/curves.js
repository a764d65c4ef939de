// Learning curves of any metric over any x axis.

/** The points of a run that have both numbers. */
function points(run, metric, xName, width) {
  const [x, y] = [run.columns[xName] ?? [], run.columns[metric] ?? []];
  const known = [];
  for (let i = 0; i < Math.min(x.length, y.length); i++) if (x[i] !== null && y[i] !== null) known.push(i);
  return {
    run,
    x: known.map((i) => x[i]),
    y: smoothed(
      known.map((i) => y[i]),
      width,
    ),
  };
}

/** One variant in one panel: single lines, and where two finished runs overlap their mean with its interval. */
function curveOf(data, runs, state) {
  const lines = runs.map((run) => points(run, state.y, state.x, state.smoothing)).filter((line) => line.x.length);
  const whole = lines.filter((line) => line.run.finished);
  const curve = { lines, declared: runs.length, count: whole.length, x: [] };
  const start = Math.max(...whole.map((line) => line.x[0]));
  const end = Math.min(...whole.map((line) => line.x[line.x.length - 1]));
  if (whole.length < 2 || start >= end) return curve;
  curve.x = Array.from({ length: data.points }, (_, i) => start + ((end - start) * i) / (data.points - 1));
  const values = whole.map((line) => interpolated(line.x, line.y, curve.x));
  return Object.assign(curve, interval(values, data.resamples, data.level));
}

/** The curves of all panels and series; kept until what they are made of changes. */
const curves = (() => {
  let [key, found] = ["", []];
  return (data, state) => {
    const wanted = [state.y, state.x, state.smoothing].join(" ");
    if (wanted === key) return found;
    key = wanted;
    const groups = new Map();
    for (const run of data.runs) {
      const place = `${run.panel}\n${run.variant}`;
      groups.set(place, [...(groups.get(place) ?? []), run]);
    }
    found = [...groups.values()].map((runs) => ({
      ...curveOf(data, runs, state),
      panel: data.panels.findIndex((panel) => panel.name === runs[0].panel),
      series: data.variants[runs[0].variant],
    }));
    return (found = found.filter((curve) => curve.lines.length));
  };
})();

/** Whether any panel would hold more series than anyone can tell apart. */
const isCrowded = (data, found) =>
  data.panels.some((_, i) => found.filter((c) => c.panel === i).length > data.mostInAPanel);

function seeds(curve) {
  const unit = curve.declared === 1 ? "seed" : "seeds";
  return curve.count === curve.declared ? `${curve.declared} ${unit}` : `${curve.count} of ${curve.declared} ${unit}`;
}

function drawCurves(data, state) {
  const visible = curves(data, state).filter((curve) => !state.hidden.has(curve.series));
  const used = data.panels
    .map((panel, i) => ({ ...panel, own: visible.filter((curve) => curve.panel === i) }))
    .filter((p) => p.own.length);
  const places = state.multiples ? used.flatMap((panel) => panel.own.map((curve) => ({ ...panel, curve }))) : used;
  const name = (place) => {
    if (!place.curve) return safe(place.name);
    const text = safe(data.series[place.curve.series].label);
    return used.length > 1 ? `${safe(place.name)}<br>${text}` : text;
  };
  const { layout, axes } = panels("learning-curves", places.map(name), {
    ...(state.multiples
      ? { ...SMALL, lines: used.length > 1 ? 2 : 1, group: (i) => places[i].name }
      : { tall: 300, most: 3 }),
    x: data.xAxes[state.x],
    y: state.multiples ? "" : data.names[state.y],
  });
  if (state.log)
    Object.keys(layout)
      .filter((key) => key.startsWith("yaxis"))
      .forEach((key) => (layout[key].type = "log"));
  const traces = places.flatMap((place, i) => {
    const behind = place.curve ? place.own.filter((curve) => curve !== place.curve).map((curve) => grey(curve)) : [];
    const own = (place.curve ? [place.curve] : place.own).flatMap((curve) => lines(data, state, curve));
    return [...behind, ...own, ...published(data, state, place.name, visible)].map((trace) => ({
      ...trace,
      ...axes(i),
    }));
  });
  draw("learning-curves", traces, layout);
  document.getElementById("curves-caption").textContent = caption(data, state, visible);
}

/** A variant's interval, mean and single runs. */
function lines(data, state, curve) {
  const { label, color: plain, dash, width } = data.series[curve.series];
  const color = shown(plain);
  const point = `%{x:,.4~g} ${data.xAxes[state.x]}: %{y:.4~g}`;
  const single = curve.lines
    .filter((line) => state.raw || !curve.x.length || !line.run.finished)
    .map((line) => ({
      ...line,
      mode: line.x.length > 1 ? "lines" : "markers",
      meta: "run",
      opacity: curve.x.length && line.run.finished ? 0.32 : line.run.finished ? 1 : 0.6,
      line: { color, width: curve.x.length && line.run.finished ? 0.8 : 1.2, dash: line.run.finished ? dash : "dot" },
      marker: { color },
      hovertemplate: `${safe(label)}, seed ${line.run.seed} (${line.run.state})<br>${point}<extra></extra>`,
    }));
  single.forEach((trace) => delete trace.run);
  if (!curve.x.length) return single;
  const around = { x: [...curve.x, ...curve.x.toReversed()], y: [...curve.high, ...curve.low.toReversed()] };
  const band = {
    ...around,
    mode: "lines",
    meta: "band",
    fill: "toself",
    fillcolor: faint(color, 0.18),
    line: { width: 0 },
    hoverinfo: "skip",
  };
  const ends = curve.low.map((low, i) => [digits(low), digits(curve.high[i])]);
  const between = "95 %: %{customdata[0]} to %{customdata[1]}";
  const hover = `${safe(label)}, ${seeds(curve)}<br>${point}<br>${between}<extra></extra>`;
  const middle = {
    x: curve.x,
    y: curve.middle,
    customdata: ends,
    mode: "lines",
    meta: "mean",
    name: label,
    line: { color, dash, width },
    hovertemplate: hover,
  };
  return [band, ...single, middle];
}

/** Another variant's curve, for comparison. */
function grey(curve) {
  const parts = curve.x.length ? [{ x: curve.x, y: curve.middle }] : curve.lines;
  const joined = (key) => parts.flatMap((part) => [...part[key], null]);
  return {
    x: joined("x"),
    y: joined("y"),
    mode: "lines",
    meta: "behind",
    line: { color: themed("behind"), width: 1 },
    hoverinfo: "skip",
  };
}

/** Published scores, where the experiment's own metric is drawn: a diamond marks the end of their budget. */
function published(data, state, panel, visible) {
  if (state.y !== data.metric || !state.published) return [];
  const end = Math.max(...visible.flatMap((curve) => curve.lines.map((line) => line.x[line.x.length - 1])));
  const marks = [...new Set(data.references.map((reference) => reference.mark))];
  return data.references
    .filter((reference) => reference.panel === panel)
    .map((reference) => {
      const letter = end * (0.03 + 0.06 * (marks.indexOf(reference.mark) % 15)); // near lines stay legible
      const inView = state.x === "env_steps" && reference.envSteps <= end * 1.02;
      return {
        x: [0, letter, inView ? Math.min(reference.envSteps, end) : end, end],
        y: Array(4).fill(reference.score),
        mode: "lines+markers+text",
        meta: "published",
        text: ["", reference.mark, "", ""],
        textposition: "top center",
        textfont: { size: 10, color: themed("soft") },
        line: { color: "#888888", width: 1.2, dash: "dash" },
        marker: { symbol: "diamond", size: [0, 0, inView ? 8 : 0, 0], color: "#888888", opacity: 1 },
        hovertemplate: `${reference.says.split("<br>").map(safe).join("<br>")}<extra></extra>`,
      };
    });
}

/** Whether published scores leave the curves a fair share of the axis. */
function isNearPublished(data, found) {
  const share = data.panels.map((panel, i) => {
    const own = found.filter((curve) => curve.panel === i).flatMap((curve) => curve.lines.flatMap((line) => line.y));
    const all = [...own, ...data.references.filter((r) => r.panel === panel.name).map((r) => r.score)];
    const range = (values) =>
      values.reduce((most, v) => Math.max(most, v), -Infinity) -
      values.reduce((least, v) => Math.min(least, v), Infinity);
    return own.length ? range(own) / range(all) : 1;
  });
  return Math.min(...share) > 0.25;
}

/** What the curves show, as sentences. */
function caption(data, state, visible) {
  const parts = [`${state.y}: ${data.about[state.y]}.`];
  if (visible.some((curve) => curve.x.length)) {
    const smooth =
      state.smoothing > 1
        ? `each run smoothed by a centred mean over ${state.smoothing} of its numbers`
        : "not smoothed";
    parts.push(
      "Lines with a band: interquartile mean over finished seeds, pointwise 95 % bootstrap interval; linear between " +
        `iterations, ${smooth}, only where all these seeds have data.`,
    );
    if (state.raw) parts.push("Faint lines: the single runs.");
  }
  if (visible.some((curve) => !curve.x.length && curve.count))
    parts.push("Thin lines without a band: single seeds, too few for an interval.");
  if (visible.some((curve) => curve.lines.some((line) => !line.run.finished)))
    parts.push("Thin dotted lines: runs that are not finished; they are in no statistic.");
  if (state.multiples) parts.push("Each panel shows one variant, the others' middles in grey, on the same axes.");
  if (state.x === "seconds")
    parts.push(
      "Seconds: the sum of all iterations' wall-clock times, evaluation included; start-up, and what was repeated " +
        "after a resume, are not in it.",
    );
  if (state.log) parts.push("On a logarithmic axis, numbers that are not above 0 are left out.");
  if (state.y === data.metric && data.references.length) {
    const drawn =
      "Dashed lines: published scores, see below; a diamond marks the end of their budget where it is in view.";
    parts.push(state.published ? drawn : "Published scores are not drawn: their box is above.");
  }
  if (data.every > 1)
    parts.push(
      `The page holds one of ${data.every} successive iterations, with the last number of each metric among them; ` +
        "extremes between are in metrics.csv only.",
    );
  return parts.join(" ");
}
