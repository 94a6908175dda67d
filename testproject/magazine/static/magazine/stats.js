"use strict";

const live = document.getElementById("live");
const part = (name) => live.querySelector(`[data-${name}]`);
const trace = live.querySelector("polyline");
const whole = new Intl.NumberFormat("en-GB");
const roundTrips = [];

function inUnits(bytes) {
  const power = bytes < 1024 ? 0 : bytes < 1024 ** 2 ? 1 : bytes < 1024 ** 3 ? 2 : 3;
  const amount = bytes / 1024 ** power;
  return `${amount.toFixed(power && amount < 100 ? 1 : 0)} ${["bytes", "KB", "MB", "GB"][power]}`;
}

function show(stats) {
  const asked = stats.hits + stats.misses;
  const figures = {
    ...stats,
    rtt: (stats.rtt * 1000).toFixed(2),
    entries: whole.format(stats.entries),
    bytes: inUnits(stats.bytes),
    hits: whole.format(stats.hits),
    misses: whole.format(stats.misses),
    rate: asked ? `${Math.round((100 * stats.hits) / asked)} %` : "–",
  };
  for (const place of live.querySelectorAll("[data-stat]")) {
    place.textContent = figures[place.dataset.stat];
  }
  roundTrips.push(stats.rtt);
  if (roundTrips.length > 60) roundTrips.shift();
  const highest = Math.max(...roundTrips) || 1;
  const points = roundTrips.map((rtt, i) => `${i * (120 / 59)},${28 - 26 * (rtt / highest)}`);
  trace.setAttribute("points", points.join(" "));
}

function showState(connected, problem) {
  live.querySelector(".lamp").classList.toggle("on", connected);
  const status = connected ? "Connected" : "Not connected";
  // A screen reader speaks the status whenever it is written, so only write what is new.
  if (part("status").textContent !== status) part("status").textContent = status;
  part("problem").hidden = !problem;
  part("figures").hidden = Boolean(problem);
  part("where").hidden = Boolean(problem);
  part("reason").textContent = problem ?? "";
}

async function refresh() {
  try {
    const response = await fetch(live.dataset.url);
    const stats = await response.json();
    if (response.ok) show(stats);
    showState(response.ok && stats.connected, response.ok ? null : stats.problem);
  } catch {
    showState(false, "The site itself does not answer.");
  }
  setTimeout(refresh, 1000);
}

refresh();
