"use strict";

const still = matchMedia("(prefers-reduced-motion: reduce)");
const followed = document.querySelector("[data-stream]");
let events, leaving;

function show(totals) {
  for (const [name, total] of Object.entries(totals)) {
    for (const place of document.querySelectorAll(`[data-total="${name}"]`)) {
      if (place.textContent === total) continue;
      place.textContent = total;
      if ("is" in place.dataset) place.dataset.is = total;
      if (!still.matches && !place.closest("[data-steady]")) place.animate({ color: ["var(--accent)", "currentcolor"], scale: [1.25, 1] }, 600);
    }
  }
}

// Without this, the form leads to the page that shows the new total.
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

function say(following) {
  followed.querySelector(".lamp").classList.toggle("on", following);
  followed.querySelector("[data-status]").textContent = following ? "Following" : "Not following";
}

function follow() {
  events = new EventSource(followed.dataset.stream);
  events.onopen = () => say(true);
  events.onerror = () => say(false);
  events.onmessage = (event) => show(JSON.parse(event.data));
}

// A browser has six connections to a site for all its tabs, and a stream takes one.
function letGo() {
  events.close();
  say(false);
}

function notice() {
  clearTimeout(leaving);
  if (document.hidden) leaving = setTimeout(letGo, 60_000);
  else if (events.readyState === EventSource.CLOSED) follow();
}

document.addEventListener("submit", count);
if (followed) {
  document.addEventListener("visibilitychange", notice);
  follow();
}
