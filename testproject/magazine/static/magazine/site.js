"use strict";

// A page that all readers share cannot hold one reader's CSRF token; the reader's cookie does.
for (const form of document.querySelectorAll("form[data-csrf-from-cookie]")) {
  form.addEventListener("submit", () => {
    const cookie = document.cookie.match(/(?:^|; )csrftoken=([^;]*)/);
    const field = document.createElement("input");
    Object.assign(field, { type: "hidden", name: "csrfmiddlewaretoken", value: cookie?.[1] ?? "" });
    form.append(field);
  });
}

function showAges() {
  for (const place of document.querySelectorAll("[data-age-of]")) {
    const moment = Date.parse(document.getElementById(place.dataset.ageOf).dateTime);
    const seconds = Math.max(0, Math.floor((Date.now() - moment) / 1000));
    place.textContent = seconds < 3 ? ", just now" : `, ${seconds} seconds ago`;
  }
}

showAges();
setInterval(showAges, 1000);
