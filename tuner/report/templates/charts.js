"use strict";
/* Charts, and the choice of another promise. */

const run = JSON.parse(document.getElementById("run-data").textContent);
const specs = JSON.parse(document.getElementById("chart-specs").textContent);
const state = { percentile: run.percentile, limit: run.limit, chosen: -1 };

/* Words */

function percentile(name) {
  return run.percentiles[name] || name;
}

function pointWords(point) {
  const config = run.configs[point.c];
  const parts = Object.keys(run.percentiles)
    .filter((name) => name in point)
    .map((name) => `${percentile(name)} ${point[name] === null ? "failed" : number(point[name])}`);
  const lines = [
    `${config.name ? `${config.name}: ` : ""}${config.label}`,
    `${number(point.offered)}/s offered, ${number(point.answered)}/s answered`,
    `${parts.join(", ")} ms`,
  ];
  if (point.rows !== null) {
    const padding = point.padding ? `, ${number(100 * point.padding)} % padding` : "";
    lines.push(`${number(point.rows)} rows per batch${padding}, ${number(point.queue)} ms queueing`);
  }
  if (point.errors) lines.push(`${number(100 * point.errors)} % failed`);
  lines.push(`${point.standing}; trial ${point.trial}`);
  return lines;
}

const describe = {
  percentiles: (d) => [d.name, `${number(100 * d.share)} % within ${number(d.ms)} ms`],
  waits: (d) => [
    d.label,
    `${number(d.offered)}/s: ${d.words}`,
    `${number(d.rows)} rows per batch${d.padding ? `, ${number(100 * d.padding)} % padding` : ""}`,
  ],
  progress: (d) => [
    `trial ${d.trial}, ${d.why}`, d.label,
    d.sustainable === null ? "no rate" : `${number(d.sustainable)}/s sustained`,
  ],
};

/* Which configuration for which promise */

function heldRates(name, limit) {
  const trials = new Map();
  for (const point of run.points) {
    if (point.final) continue;
    if (!trials.has(point.trial)) trials.set(point.trial, []);
    trials.get(point.trial).push(point);
  }
  const held = [];
  for (const points of trials.values()) {
    let best = null;
    for (const point of points.sort((a, b) => a.offered - b.offered)) {
      const latency = point[name];
      if (latency === undefined) continue; // too few samples carry this percentile
      if (latency === null || latency > limit || point.errors > run.maxErrorRate) break;
      best = point;
    }
    if (best) held.push(best);
  }
  return held;
}

function choose(name, limit) {
  const held = heldRates(name, limit);
  const most = Math.max(...held.map((point) => point.offered));
  const near = held.filter((point) => point.offered >= most * (1 - run.tie));
  near.sort((a, b) => run.configs[a.c].simplicity - run.configs[b.c].simplicity || b.offered - a.offered);
  return near[0] || null;
}

function fileFor(config, limit) {
  if (config.file === null || config.queue === null) return config.file;
  const { drain, rows, threads } = config.queue;
  const bound = Math.max(Math.ceil((limit / 1000) * drain / rows), threads) + 1;
  return config.file.replace(/max_enqueued_batches \{ value: \d+ \}/, `max_enqueued_batches { value: ${bound} }`);
}

const choice = document.getElementById("choice");

function answer() {
  const name = choice.elements.percentile.value;
  const limit = Number(choice.elements.limit.value);
  const said = document.getElementById("choice-answer");
  const detail = document.getElementById("choice-detail");
  const file = document.getElementById("choice-file");
  const box = document.getElementById("choice-file-box");
  const again = name !== state.percentile;
  box.hidden = true;
  detail.textContent = "";
  if (!(limit > 0)) {
    said.textContent = "Give a limit above 0 ms.";
    return;
  }
  state.percentile = name;
  state.limit = limit;
  state.chosen = -1;
  const promise = `${percentile(name)} ≤ ${limit} ms`;
  const own = name === run.percentile && limit === run.limit && run.recommended !== null;
  const point = own ? null : choose(name, limit);
  if (own) {
    const config = run.configs[run.recommended];
    state.chosen = run.references.find((reference) => reference.recommended)?.i ?? -1;
    said.textContent = `For ${promise}: ${config.label}.`;
    detail.textContent = "This run's own promise: it is the recommendation, and its file, at the top of the page.";
  } else if (point) {
    const config = run.configs[point.c];
    state.chosen = point.i;
    said.textContent = `For ${promise}: ${config.label}.`;
    detail.textContent =
      `${number(point.offered)}/s held in trial ${point.trial}, with ${percentile(name)} at ` +
      `${number(point[name])} ms. Read from the search's measured percentiles, not confirmed by a ` +
      `final. tuner recommend RUN --${name} ${limit}ms decides it by the confidence test, from the same run.`;
    show(file, box, fileFor(config, limit));
  } else {
    said.textContent = `For ${promise}: nothing that was measured holds it.`;
    detail.textContent = "No configuration kept it at any load tried. Relax the limit, or tune with it.";
  }
  if (again) draw();
  else update();
}

function show(file, box, text) {
  file.textContent = text || "# Batching is best left off: no file, no --enable_batching.\n";
  box.hidden = false;
}

/* Charts */

function scale() {
  const name = state.percentile;
  const front = run.fronts[name].map((i) => run.points[i][name]);
  const all = run.points.map((point) => point[name]).filter((value) => value > 0);
  const limit = state.limit || 0;
  if (!all.length) return [1, 10];
  const near = front.filter((value) => !limit || value <= 2 * limit);
  const worst = Math.max(limit, ...near) || Math.max(...all);
  const highest = Math.min(Math.max(1.35 * Math.max(...all), 1.6 * limit), 6 * worst);
  return [Math.min(limit || Infinity, ...all) / 1.4, highest];
}

/** How far the percentile chart reaches: all it shows, with room for the words of a promise. */
function reach(data) {
  const values = [...data.distributions, ...data.promises].map((item) => item.ms);
  return values.length ? { least: Math.min(...values) / 1.1, most: Math.max(...values) * 1.3 } : { least: 1, most: 10 };
}

function joined(point) {
  const config = run.configs[point.c];
  return { ...point, latency: point[state.percentile], look: config.look };
}

/** Name the contenders beside their points, each where it covers no other name and the least else. */
function nameContenders() {
  const view = views.front;
  const named = references().reverse();
  if (!view || !named.length) return;
  const [width, height] = [view.width(), view.height()];
  const at = (point) => [view.scale("x")(point.answered), view.scale("y")(point.latency)];
  const marks = run.points.map(joined).filter((point) => point.latency > 0).map(at);
  const line = view.scale("y")(state.limit || 0);
  const taken = [{ left: 0, right: 90, top: line - 20, bottom: line }]; // the limit's own words
  const cost = (box, away) => {
    const inside = ([x, y]) => x > box.left && x < box.right && y > box.top && y < box.bottom;
    const outside = Math.max(0, -box.left) + Math.max(0, box.right - width)
      + Math.max(0, -box.top) + Math.max(0, box.bottom - height);
    const over = taken.filter((other) => box.left < other.right && other.left < box.right
      && box.top < other.bottom && other.top < box.bottom).length;
    const crosses = line > box.top && line < box.bottom ? 2 : 0;
    return 10 * outside + 50 * over + crosses + marks.filter(inside).length + away / 10;
  };
  const placed = named.map((reference) => {
    const [x, y] = at(reference);
    const wide = 7.7 * Math.max(...reference.title.map((words) => words.length));
    const high = 15 * reference.title.length;
    const places = [];
    for (const away of [12, 30, 48, 66]) {
      for (const share of [0.5, 0.25, 0.75, 0, 1]) {
        for (const top of [-away - high, away]) {
          const left = x - wide * share;
          const box = { left, right: left + wide, top: y + top, bottom: y + top + high };
          places.push({ box, dx: wide * (0.5 - share), dy: top, cost: cost(box, away + 20 * Math.abs(share - 0.5)) });
        }
      }
    }
    const best = places.reduce((least, place) => (place.cost < least.cost ? place : least));
    taken.push(best.box);
    return { ...reference, dx: best.dx, dy: best.dy };
  });
  return view.data("labels", placed).runAsync();
}

function references() {
  const narrow = document.documentElement.clientWidth < 560;
  return run.references.map((reference) => {
    const point = joined(run.points[reference.i]);
    const rate = `${number(point.offered)}/s at ${number(point.latency)} ms`;
    const title = narrow ? reference.name.split(/ (?=\()/) : [reference.name, rate];
    return { ...point, ...reference, title };
  }).filter((reference) => reference.latency > 0);
}

function datasets() {
  const points = run.points.map(joined);
  const curves = run.curves.flatMap((curve) =>
    curve.points.map((i) => ({ ...points[i], name: curve.name, look: curve.look })));
  return {
    points,
    curves,
    references: references(),
    labels: references().map((reference) => ({ ...reference, title: "", dx: 0, dy: 0 })), // placed once drawn
    batched: curves.filter((point) => point.rows !== null),
    padded: curves.filter((point) => point.padding !== null)
      .map((point) => ({ ...point, padded: 100 * point.padding })),
    front: run.fronts[state.percentile].map((i) => points[i]),
    distributions: run.distributions,
    promises: run.promises,
    waits: run.waits,
    progress: run.progress.filter((item) => item.sustainable !== null),
  };
}

const sources = { front: "references", load: "curves", percentiles: "distributions", rows: "batched", padding: "padded", waits: "waits", progress: "progress" };
const walked = { front: "points", load: "curves", percentiles: "distributions", rows: "batched", padding: "padded", progress: "progress" };

async function draw() {
  const data = datasets();
  const [lowest, highest] = scale();
  const words = {
    "{percentile}": percentile(state.percentile),
    "{nines}": run.nines,
    "{parts}": [...new Set(run.waits.map((item) => item.part))],
    "{bars}": 40 * Math.max(1, new Set(run.waits.map((item) => item.label)).size),
  };
  for (const place of document.querySelectorAll("[data-chart]")) {
    const id = place.dataset.chart;
    place.words = describe[id] || pointWords;
    const spec = filled(specs[id], namesOf(data[sources[id]]), words);
    const points = (data[walked[id]] || []).filter((item) => item.latency !== null).slice()
      .sort((a, b) => order(id, a) - order(id, b));
    const params = { ...reach(data), lowest, highest, limit: state.limit ?? 0, chosen: state.chosen };
    await embed(place, spec, data, params, points);
  }
  await nameContenders();
  views.front?.addSignalListener("width", () => setTimeout(nameContenders)); // not while it runs
  document.documentElement.dataset.drawn = "yes";
}

function order(id, item) {
  return { front: item.answered, percentiles: item.share, progress: item.trial }[id] ?? item.offered;
}

function update() {
  const [lowest, highest] = scale();
  for (const [id, view] of Object.entries(views)) {
    if (id !== "front" && id !== "load") continue;
    view.signal("lowest", lowest).signal("highest", highest);
    view.signal("limit", state.limit ?? 0).signal("chosen", state.chosen).runAsync().then(nameContenders);
  }
}

if (choice) {
  choice.addEventListener("input", answer);
  choice.addEventListener("submit", (event) => event.preventDefault());
  answer();
}
if (run.points.length) draw();
