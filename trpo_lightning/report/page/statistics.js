// Interquartile mean and its bootstrap interval, as the tables and still figures have them (statistics.py).

/** Random numbers in [0, 1), the same ones at each call: a figure must not change when it is drawn again. */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Sorts a few numbers in place: faster than the built-in sort, and never as text. */
function sortFew(values) {
  for (let i = 1; i < values.length; i++) {
    const value = values[i];
    let place = i;
    while (place > 0 && values[place - 1] > value) {
      values[place] = values[place - 1];
      place--;
    }
    values[place] = value;
  }
}

/** Mean of sorted numbers without the lowest and the highest floor(n / 4). */
function interquartileMean(sorted) {
  const cut = Math.floor(sorted.length / 4);
  let sum = 0;
  for (let i = cut; i < sorted.length - cut; i++) sum += sorted[i];
  return sum / (sorted.length - 2 * cut);
}

/** A quantile of sorted numbers, linear between them. */
function quantile(sorted, share) {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}

/** y at each place of a rising grid inside x, linear between the points. */
function interpolated(x, y, grid) {
  let k = 0;
  return Float64Array.from(grid, (place) => {
    while (k < x.length - 2 && x[k + 1] < place) k++;
    const width = x[k + 1] - x[k];
    return width > 0 ? y[k] + ((y[k + 1] - y[k]) * (place - x[k])) / width : y[k];
  });
}

/**
 * Interquartile mean over runs at each point of a grid, and the ends of its pointwise interval; whole runs are
 * resampled, the same ones at all points. `curves` are arrays of one length, at least two.
 */
function interval(curves, resamples, level) {
  const count = curves.length;
  const random = generator(0);
  const chosen = Uint16Array.from({ length: resamples * count }, () => Math.floor(random() * count));
  const points = curves[0].length;
  const [middle, low, high] = [[], [], []];
  const values = new Float64Array(count);
  const means = new Float64Array(resamples);
  for (let point = 0; point < points; point++) {
    for (let i = 0; i < count; i++) values[i] = curves[i][point];
    sortFew(values);
    middle.push(interquartileMean(values));
    for (let r = 0, k = 0; r < resamples; r++) {
      for (let i = 0; i < count; i++) values[i] = curves[chosen[k++]][point];
      sortFew(values);
      means[r] = interquartileMean(values);
    }
    means.sort();
    low.push(quantile(means, (1 - level) / 2));
    high.push(quantile(means, (1 + level) / 2));
  }
  return { middle, low, high };
}

/** Centred mean over so many numbers; at the ends over those that are there. */
function smoothed(values, width) {
  if (width <= 1) return values;
  const half = Math.floor(width / 2);
  const sums = [0];
  for (const value of values) sums.push(sums[sums.length - 1] + value);
  return values.map((_, i) => {
    const [from, to] = [Math.max(0, i - half), Math.min(values.length, i + half + 1)];
    return (sums[to] - sums[from]) / (to - from);
  });
}
