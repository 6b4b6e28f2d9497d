"use strict";
// Clips to listen to, one at a time, with a line that follows. State is told by data- attributes of #report.
(() => {
  const report = document.getElementById("report");
  const players = [...document.querySelectorAll(".clip audio")];
  for (const audio of players) {
    const clip = audio.closest(".clip"), chart = clip.querySelector(".chart"), cursor = clip.querySelector(".cursor");
    const seconds = Number(clip.dataset.seconds);
    const follow = () => {
      cursor.hidden = false;
      cursor.style.left = `${100 * Math.min(1, audio.currentTime / seconds)}%`;
      report.dataset.position = audio.currentTime.toFixed(3);
      if (!audio.paused) requestAnimationFrame(follow);
    };
    audio.addEventListener("play", () => {
      for (const other of players) if (other !== audio) other.pause();
      report.dataset.playing = clip.dataset.place;
      follow();
    });
    audio.addEventListener("pause", () => {
      if (report.dataset.playing === clip.dataset.place) report.dataset.playing = "";
    });
    audio.addEventListener("seeked", follow);
    // A pause before the first sample ends a promise to play, which is nothing to complain of.
    const play = () => audio.play().catch((error) => {
      if (error.name !== "AbortError") throw error;
    });
    chart.addEventListener("click", (event) => {
      // A press of a key has no place in the chart: it plays and pauses.
      if (event.detail === 0) return audio.paused ? play() : audio.pause();
      const { left, width } = chart.getBoundingClientRect();
      audio.currentTime = seconds * Math.min(1, Math.max(0, (event.clientX - left) / width));
      play();
    });
  }
})();
