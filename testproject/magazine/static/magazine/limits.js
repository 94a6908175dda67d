"use strict";

const answer = document.querySelector("[data-answer]");
const headers = document.querySelector("[data-headers]");
const LIMIT_HEADERS = /^(ratelimit|retry-after)/;

function describe(response, body) {
  const seconds = Number(response.headers.get("Retry-After"));
  if (response.status === 429) return `Refused. There is room for this request again in ${seconds} s.`;
  const found = body.articles.length;
  return `Answered: ${found} ${found === 1 ? "article" : "articles"}.`;
}

function showHeaders(response) {
  const lines = [...response.headers].filter(([name]) => LIMIT_HEADERS.test(name));
  headers.textContent = [`HTTP ${response.status}`, ...lines.map((line) => line.join(": "))].join("\n");
  headers.hidden = false;
}

// Without JavaScript, the form leads to the answer itself.
async function ask(event) {
  const form = event.target;
  if (!form.matches("[data-asks]")) return;
  event.preventDefault();
  try {
    const response = await fetch(`${form.action}?${new URLSearchParams(new FormData(form))}`);
    answer.textContent = describe(response, await response.json());
    answer.classList.toggle("refused", response.status === 429);
    showHeaders(response);
    const [limit, remaining] = ["Limit", "Remaining"].map((name) => response.headers.get(`RateLimit-${name}`));
    if (limit) show({ "api_used": String(limit - remaining) });
  } catch {
    answer.textContent = "The site did not answer.";
  }
}

document.addEventListener("submit", ask);
