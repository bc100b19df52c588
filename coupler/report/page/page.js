"use strict";
// A slider shows one moment of all fields of a run; Play goes through them once.
for (const film of document.querySelectorAll(".film")) {
  const moments = JSON.parse(film.dataset.moments);
  const strips = [...film.querySelectorAll(".layers")].map((strip) => [...strip.children]);
  const slider = film.querySelector("input"), label = film.querySelector("output"), button = film.querySelector("button");
  let timer = 0;
  const show = (moment) => {
    for (const layers of strips) layers.forEach((layer, index) => layer.classList.toggle("on", index === moment));
    slider.value = moment;
    label.textContent = moments[moment];
  };
  const stop = () => { clearInterval(timer); timer = 0; button.textContent = "Play"; };
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  button.addEventListener("click", () => {
    if (timer) { stop(); return; }
    let moment = Number(slider.value) + 1 < moments.length ? Number(slider.value) : -1;
    button.textContent = "Pause";
    timer = setInterval(() => {
      moment += 1;
      show(moment);
      if (moment + 1 >= moments.length) stop();
    }, 150);
  });
}
