"use strict";
/* Several runs' fronts in one chart. */

const page = JSON.parse(document.getElementById("run-data").textContent);
const specs = JSON.parse(document.getElementById("chart-specs").textContent);

function words(point) {
  const lines = [
    point.name, point.label,
    `${number(point.offered)}/s offered, ${number(point.answered)}/s answered`,
    `${page.percentile} ${number(point.latency)} ms`,
  ];
  if (point.rows !== null) lines.push(`${number(point.rows)} rows per batch`);
  const standing = { true: "keeps the SLO", false: "misses the SLO" }[point.keeps] || "undecided";
  lines.push(`${standing}; trial ${point.trial}`);
  return lines;
}

async function drawFronts() {
  const latencies = page.points.map((point) => point.latency);
  const limit = page.limit || 0;
  const most = Math.max(1.35 * Math.max(...latencies), 1.6 * limit);
  const params = {
    lowest: Math.min(limit || Infinity, ...latencies) / 1.5,
    highest: limit ? Math.min(most, 6 * limit) : most,
    limit,
  };
  for (const place of document.querySelectorAll("[data-chart]")) {
    place.words = words;
    const spec = filled(specs.fronts, namesOf(page.points), { "{percentile}": page.percentile });
    await embed(place, spec, { points: page.points }, params, page.points);
  }
  document.documentElement.dataset.drawn = "yes";
}

document.documentElement.classList.add("js");
drawFronts();
