"use strict";

const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const followed = document.querySelector("[data-stream]");
let events, hiddenTimer;

function show(totals) {
  for (const [name, total] of Object.entries(totals)) {
    for (const meter of document.querySelectorAll(`[data-level="${name}"]`)) meter.value = total;
    for (const place of document.querySelectorAll(`[data-total="${name}"]`)) {
      if (place.textContent === total) continue;
      place.textContent = total;
      if ("is" in place.dataset) place.dataset.is = total;
      if (!reducedMotion.matches && !place.closest("[data-steady]")) place.animate({ color: ["var(--accent)", "currentcolor"], scale: [1.25, 1] }, 600);
    }
  }
}

// Without JavaScript, the form leads to the page that shows the new total.
async function count(event) {
  const form = event.target;
  if (!form.matches("[data-counts]")) return;
  event.preventDefault();
  const headers = { Accept: "application/json" };
  try {
    const response = await fetch(form.action, { method: "POST", body: new FormData(form), headers });
    show(await response.json());
  } catch {
    show({ problem: "The site did not answer." });
  }
}

function showState(following) {
  followed.querySelector(".lamp").classList.toggle("on", following);
  followed.querySelector("[data-status]").textContent = following ? "Following" : "Not following";
}

function follow() {
  events = new EventSource(followed.dataset.stream);
  events.onopen = () => showState(true);
  events.onerror = () => showState(false);
  events.onmessage = (event) => show(JSON.parse(event.data));
}

// A browser opens at most six connections to a site for all its tabs, and a stream takes one.
function disconnect() {
  events.close();
  showState(false);
}

function onVisibilityChange() {
  clearTimeout(hiddenTimer);
  if (document.hidden) hiddenTimer = setTimeout(disconnect, 60_000);
  else if (events.readyState === EventSource.CLOSED) follow();
}

document.addEventListener("submit", count);
if (followed) {
  document.addEventListener("visibilitychange", onVisibilityChange);
  follow();
}
