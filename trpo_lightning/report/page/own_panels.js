// Figures that the user's own functions have made, in the colours of the page where they say nothing else.

function drawOwnPanels(data) {
  data.ownPanels.forEach((figure, i) => {
    if (!figure) return;
    const name = `own-panel-${i}`;
    const { template, ...own } = figure.layout; // plotly's own template is made for white pages
    const base = frame(widthOf(name), 380);
    const layout = { ...base, ...own, width: base.width, font: { ...base.font, ...own.font } };
    const used = (letter) => new Set([letter, ...figure.data.map((trace) => trace[letter]).filter(Boolean)]);
    for (const letter of ["xaxis", "yaxis"]) {
      for (const short of used(letter)) {
        const key = short.length > 2 ? short : short.replace(/^([xy])/, "$1axis");
        layout[key] = { ...axis(), automargin: true, ...own[key] };
      }
    }
    draw(name, figure.data, layout);
  });
}
