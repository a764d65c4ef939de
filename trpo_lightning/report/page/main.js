// Unpacks what the page holds, draws it, and listens to the reader.

/** A text that `packed` of markup.py compressed. */
async function unpacked(name) {
  const bytes = Uint8Array.from(atob(document.getElementById(name).textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

const control = (name) => document.getElementById(name);

/** What the controls say. */
function chosen(data, hidden) {
  const checked = (name) => control(name)?.checked ?? false;
  return {
    y: control("y").value,
    x: control("x").value,
    smoothing: Number(control("smoothing").value),
    raw: checked("raw"),
    multiples: checked("multiples"),
    log: checked("log"),
    published: control("published")?.checked ?? true,
    hidden,
  };
}

/** A box for each series that shows and hides it everywhere, one for published scores, and two for all and none. */
function buildLegend(data, found) {
  const legend = control("legend");
  const box = (id, text, line) => {
    const label = document.createElement("label");
    const stroke = `stroke-width="${line.width}" stroke-dasharray="${DASHES[line.dash]}"`;
    label.innerHTML =
      '<input type="checkbox" checked><svg width="28" height="10" aria-hidden="true">' +
      `<line x1="1" y1="5" x2="27" y2="5" ${stroke}/></svg>`;
    label.querySelector("line").dataset.color = line.color;
    Object.assign(label.firstChild, id);
    label.append(text);
    legend.append(label);
  };
  data.series.forEach((series, i) => {
    const counts = new Set(found.filter((curve) => curve.series === i).map(seeds));
    box(
      { value: i, className: "series" },
      counts.size === 1 ? `${series.label}, ${[...counts][0]}` : series.label,
      series,
    );
  });
  if (data.references.length)
    box({ id: "published" }, "published scores", { color: "#888888", dash: "dash", width: 1.5 });
  for (const [text, state] of data.series.length > 2
    ? [
        ["all", true],
        ["none", false],
      ]
    : []) {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    button.addEventListener("click", () => {
      legend.querySelectorAll(".series").forEach((input) => (input.checked = state));
      legend.dispatchEvent(new Event("change", { bubbles: true }));
    });
    legend.append(button);
  }
}

function paintLegend() {
  document.querySelectorAll("#legend line").forEach((line) => line.setAttribute("stroke", shown(line.dataset.color)));
}

async function start() {
  const [plotly, text] = await Promise.all([unpacked("plotly"), unpacked("data")]);
  const script = document.createElement("script");
  script.textContent = plotly;
  document.head.append(script);
  const data = JSON.parse(text);
  document.documentElement.classList.add("alive");
  if (!control("controls")) return;
  const hidden = () =>
    new Set([...document.querySelectorAll("#legend .series:not(:checked)")].map((input) => Number(input.value)));
  const found = curves(data, chosen(data, new Set()));
  buildLegend(data, found);
  control("raw").checked = true;
  if (control("published")) control("published").checked = isNearPublished(data, found);
  control("multiples").checked = isCrowded(data, found);
  const drawAll = () => {
    const state = chosen(data, hidden());
    paintLegend();
    drawCurves(data, state);
    drawIntervals(data, state);
    drawFinalOverBest(data, state);
    drawSensitivity(data);
    drawHeatMaps(data);
    drawDiagnosis(data, state);
    drawOwnPanels(data);
  };
  const later = (wait, act) => {
    let timer;
    return () => (clearTimeout(timer), (timer = setTimeout(act, wait)));
  };
  control("legend").addEventListener("change", (event) => (event.stopPropagation(), drawAll()));
  control("controls").addEventListener("change", () => drawCurves(data, chosen(data, hidden())));
  control("where")?.addEventListener("change", () => drawDiagnosis(data, chosen(data, hidden())));
  DARK.addEventListener("change", drawAll);
  let width = innerWidth;
  addEventListener(
    "resize",
    later(150, () => innerWidth !== width && ((width = innerWidth), drawAll())),
  );
  drawAll();
  document.documentElement.dataset.drawn = "";
}

document.querySelectorAll("form").forEach((form) => form.addEventListener("submit", (event) => event.preventDefault()));
start().catch((error) => {
  document.documentElement.classList.remove("alive"); // the still figures say the same
  console.error(error);
});
