"use strict";
/* Charts, and the choice of another promise. */

const run = JSON.parse(document.getElementById("run-data").textContent);
const specs = JSON.parse(document.getElementById("chart-specs").textContent);
const views = {};
const state = { percentile: run.percentile, limit: run.limit, chosen: -1 };

/* Words */

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 10000) return Number(value.toPrecision(3)).toLocaleString("en");
  if (size >= 100) return Math.round(value).toLocaleString("en");
  if (size >= 10) return value.toFixed(1);
  if (size === 0) return "0";
  return value.toFixed(size >= 1 ? 2 : 3);
}

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
    `${number(d.offered)}/s: ${number(d.queue)} ms queueing, ${number(d.rest)} ms for the rest`,
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

function datasets() {
  const points = run.points.map(joined);
  const curves = run.curves.flatMap((curve) =>
    curve.points.map((i) => ({ ...points[i], name: curve.name, look: curve.look })));
  const references = run.references.map((reference) => {
    const point = points[reference.i];
    const title = [reference.name, `${number(point.offered)}/s at ${number(point.latency)} ms`];
    return { ...point, ...reference, title };
  });
  return {
    points,
    curves,
    references,
    upper: references.filter((item) => item.above),
    lower: references.filter((item) => !item.above),
    batched: curves.filter((point) => point.rows !== null),
    front: run.fronts[state.percentile].map((i) => points[i]),
    distributions: run.distributions,
    promises: run.promises,
    waits: run.waits,
    progress: run.progress.filter((item) => item.sustainable !== null),
  };
}

/** Put what this run has in the places that a specification leaves open. */
function filled(value, names) {
  if (typeof value === "string") {
    if (value === "{names}") return names.map(([name]) => name);
    if (value === "{nines}") return run.nines;
    if (value === "{bars}") return 26 * (run.waits.length / 2);
    return value.replace("{percentile}", percentile(state.percentile));
  }
  if (Array.isArray(value)) return value.map((item) => filled(item, names));
  if (value === null || typeof value !== "object") return value;
  if (value.byLook) return names.map(([, look]) => value.byLook[look]);
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, filled(item, names)]));
}

function namesOf(data) {
  return [...new Map(data.map((item) => [item.name, item.look]))];
}

const sources = { front: "references", load: "curves", percentiles: "distributions", rows: "batched", waits: "waits", progress: "progress" };
const walked = { front: "points", load: "curves", percentiles: "distributions", rows: "batched", progress: "progress" };

async function draw() {
  const data = datasets();
  const [lowest, highest] = scale();
  for (const place of document.querySelectorAll("[data-chart]")) {
    const id = place.dataset.chart;
    const source = data[sources[id]];
    const open = filled(specs[id], namesOf(source));
    const spec = {
      ...open,
      layer: open.layer.filter((layer) => !layer.data.name || data[layer.data.name].length > 0),
      datasets: data,
      params: Object.entries({ ...reach(data), lowest, highest, limit: state.limit ?? 0, chosen: state.chosen, at: -1 })
        .map(([name, value]) => ({ name, value })),
    };
    views[id]?.finalize();
    const { view } = await vegaEmbed(place.querySelector(".drawing"), spec, {
      ast: true, renderer: "svg", actions: false, tooltip: tell(place),
    });
    views[id] = view;
    place.points = (data[walked[id]] || []).filter((item) => item.latency !== null).slice()
      .sort((a, b) => order(id, a) - order(id, b));
    place.at = -1;
  }
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
    view.signal("limit", state.limit ?? 0).signal("chosen", state.chosen).runAsync();
  }
}

/** What Vega calls while the pointer moves over a mark, or off it (without a value). */
function tell(place) {
  const tip = place.querySelector(".tip");
  return (_handler, event, _item, value) => {
    if (!value) {
      tip.hidden = true;
      return;
    }
    write(tip, place, value);
    const box = place.getBoundingClientRect();
    const x = event.clientX - box.left;
    tip.hidden = false;
    tip.style.left = `${Math.max(0, Math.min(x + 14, box.width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${event.clientY - box.top + 18}px`;
  };
}

function write(target, place, value) {
  const words = describe[place.dataset.chart] || pointWords;
  target.replaceChildren(...words(value).map((line) => {
    const element = document.createElement("span");
    element.textContent = line;
    return element;
  }));
}

for (const place of document.querySelectorAll("[data-chart]")) {
  place.addEventListener("keydown", (event) => {
    const count = place.points?.length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!count || !(event.key in steps) || !walked[place.dataset.chart]) return;
    place.at = Math.max(0, Math.min(count - 1, place.at + steps[event.key]));
    const point = place.points[place.at];
    write(place.querySelector(".readout"), place, point);
    views[place.dataset.chart].signal("at", point.i).runAsync();
    event.preventDefault();
  });
}

if (choice) {
  choice.addEventListener("input", answer);
  choice.addEventListener("submit", (event) => event.preventDefault());
  answer();
}
if (run.points.length) draw();
