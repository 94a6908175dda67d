"use strict";

function showAges() {
  for (const place of document.querySelectorAll("[data-age-of]")) {
    const moment = Date.parse(document.getElementById(place.dataset.ageOf).dateTime);
    const seconds = Math.max(0, Math.floor((Date.now() - moment) / 1000));
    place.textContent = seconds < 3 ? ", just now" : `, ${seconds} seconds ago`;
  }
}

showAges();
setInterval(showAges, 1000);
