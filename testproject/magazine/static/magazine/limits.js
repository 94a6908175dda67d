"use strict";

const answer = document.querySelector("[data-answer]");
const headers = document.querySelector("[data-headers]");
const SHOWN = ["RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "Retry-After"];

async function describe(response) {
  if (!response.ok) return (await response.text()).trim();
  const { articles } = await response.json();
  return `Answered: ${articles.length} ${articles.length === 1 ? "article" : "articles"}.`;
}

function showHeaders(response) {
  const sent = SHOWN.filter((name) => response.headers.has(name));
  const lines = sent.map((name) => `${name}: ${response.headers.get(name)}`);
  headers.textContent = [`HTTP ${response.status}`, ...lines].join("\n");
  headers.hidden = false;
  if (response.headers.has("RateLimit-Limit")) {
    const used = response.headers.get("RateLimit-Limit") - response.headers.get("RateLimit-Remaining");
    show({ used: String(used) });
  }
}

// Without JavaScript, the form leads to the response itself.
async function ask(event) {
  const form = event.target;
  if (!form.matches("[data-asks]")) return;
  event.preventDefault();
  try {
    const response = await fetch(`${form.action}?${new URLSearchParams(new FormData(form))}`);
    showHeaders(response);
    answer.textContent = await describe(response);
    answer.classList.toggle("refused", response.status === 429);
  } catch {
    answer.textContent = "The site did not answer.";
  }
}

document.addEventListener("submit", ask);
