"use strict";
/* What the page does without any chart: copying and tabs. */

document.documentElement.classList.add("js");

/* Copying */

async function copy(button) {
  const text = document.getElementById(button.dataset.copy).textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = "Copied";
  document.getElementById("copied").textContent = `${button.getAttribute("aria-label")}: done`;
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy]");
  if (button) copy(button);
});

/* Tabs */

for (const list of document.querySelectorAll("[data-tabs]")) {
  const tabs = [...list.querySelectorAll("button")];
  const show = (chosen) => {
    for (const tab of tabs) {
      const on = tab === chosen;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).classList.toggle("shown", on);
    }
  };
  list.hidden = false;
  list.setAttribute("role", "tablist");
  for (const tab of tabs) {
    tab.setAttribute("role", "tab");
    const panel = document.getElementById(tab.getAttribute("aria-controls"));
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    tab.addEventListener("click", () => show(tab));
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const at = tabs.indexOf(document.activeElement);
    const next = tabs[(at + step + tabs.length) % tabs.length];
    next.focus();
    show(next);
    event.preventDefault();
  });
  show(tabs[0]);
}

/* Paper: what is folded is opened, but for texts within tables */

const folded = document.querySelectorAll("details:not(td details)");
addEventListener("beforeprint", () => {
  for (const part of folded) {
    part.dataset.open = part.open ? "yes" : "";
    part.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const part of folded) part.open = part.dataset.open === "yes";
});
