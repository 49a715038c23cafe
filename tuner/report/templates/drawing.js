"use strict";
/* What every chart needs: numbers in words, a specification filled in, hovering, arrow keys. */

const views = {};

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 10000) return Number(value.toPrecision(3)).toLocaleString("en");
  if (size >= 100) return Math.round(value).toLocaleString("en");
  if (size >= 10) return value.toFixed(1);
  if (size === 0) return "0";
  return value.toFixed(size >= 1 ? 2 : 3);
}

/** Put what a page has in the places that a specification leaves open: words in braces. */
function filled(value, names, words) {
  if (typeof value === "string") {
    if (value === "{names}") return names.map(([name]) => name);
    if (Object.hasOwn(words, value)) return words[value];
    return value.replace("{percentile}", words["{percentile}"]);
  }
  if (Array.isArray(value)) return value.map((item) => filled(item, names, words));
  if (value === null || typeof value !== "object") return value;
  if (value.byPart) return words["{parts}"].map((part) => value.byPart[part]);
  if (value.byLook) return names.map(([, look]) => value.byLook[look]);
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key, filled(item, names, words)]));
}

function namesOf(data) {
  return [...new Map(data.map((item) => [item.name, item.look]))];
}

/** Draw a specification in its place; `points` are what the arrow keys walk through, in order. */
async function embed(place, spec, data, params, points) {
  const id = place.dataset.chart;
  views[id]?.finalize();
  const { view } = await vegaEmbed(place.querySelector(".drawing"), {
    ...spec,
    layer: spec.layer.filter((layer) => !layer.data.name || data[layer.data.name].length > 0),
    datasets: data,
    params: Object.entries({ ...params, at: -1 }).map(([name, value]) => ({ name, value })),
  }, { ast: true, renderer: "svg", actions: false, tooltip: tell(place) });
  await settled(view);
  view.addSignalListener("width", () => setTimeout(() => settled(view))); // not while it runs
  views[id] = view;
  place.points = points;
  place.at = -1;
}

/** Give a chart the height it needs: how many lines its legend takes follows from its width. */
function settled(view) {
  return view.resize().runAsync();
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
  const words = place.words;
  target.replaceChildren(...words(value).map((line) => {
    const element = document.createElement("span");
    element.textContent = line;
    return element;
  }));
}

/* Paper: a chart as wide as the page, or two beside each other, in type of their usual size */

const PAPER = { whole: 660, half: 316, share: 0.6, bars: 0.8 };
const heights = new Map();
addEventListener("beforeprint", () => {
  for (const [id, view] of Object.entries(views)) {
    const figure = document.querySelector(`[data-chart="${id}"]`).closest("figure");
    const half = figure.matches(".charts *") && getComputedStyle(figure).gridColumnStart === "auto";
    heights.set(view, view.height());
    view.width(half ? PAPER.half : PAPER.whole)
      .height((id === "waits" ? PAPER.bars : PAPER.share) * view.height())
      .runAsync().then(() => settled(view));
  }
});
addEventListener("afterprint", () => {
  for (const [view, height] of heights) view.height(height).runAsync();
  heights.clear();
  dispatchEvent(new Event("resize"));
});

for (const place of document.querySelectorAll("[data-chart]")) {
  place.addEventListener("keydown", (event) => {
    const count = place.points?.length;
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!count || !(event.key in steps)) return;
    place.at = Math.max(0, Math.min(count - 1, place.at + steps[event.key]));
    const point = place.points[place.at];
    write(place.querySelector(".readout"), place, point);
    views[place.dataset.chart].signal("at", point.i).runAsync();
    event.preventDefault();
  });
}
