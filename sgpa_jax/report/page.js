"use strict";
// One explanation to look at and to listen to. Texts only ever become text nodes; state is told by data- attributes of #report.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const report = byId("report");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const recording = byId("recording");
  const chips = [], segments = [], rows = [];
  let output = 0;

  const make = (tag, className, parent, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    parent.append(element);
    return element;
  };
  const chosen = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

  // --- colours -------------------------------------------------------------------------------------------------------
  const palette = () => (dark.matches ? data.palette.dark : data.palette.light);
  const shade = (value) => {
    const { colours, inks } = palette();
    const i = Math.round(((value / data.limit + 1) / 2) * (colours.length - 1));
    return { background: colours[i], ink: inks[i] };
  };
  const along = (value) => (value - data.reach[0]) / (data.reach[1] - data.reach[0]);
  const percent = (share) => `${100 * share}%`;

  function paint() {
    data.players.forEach((player, p) => {
      const value = data.values[p][output], error = data.errors[p][output], text = data.texts[p][output];
      const { background, ink } = shade(value);
      chips[p].style.background = background;
      chips[p].style.color = ink;
      chips[p].lastChild.textContent = data.numbers[p][output];
      if (segments[p]) segments[p].style.color = ink;
      const { bar, whisker, amount } = rows[p];
      amount.textContent = text;
      bar.style.background = background;
      bar.style.left = percent(along(Math.min(value, 0)));
      bar.style.width = percent(along(Math.abs(value)) - along(0));
      whisker.hidden = error === 0;
      whisker.style.left = percent(along(value - error));
      whisker.style.width = percent(along(2 * error) - along(0));
    });
    byId("scale").style.background = `linear-gradient(to right, ${palette().colours.join(", ")})`;
    byId("finding").textContent = data.findings[output];
    byId("balance").textContent = data.balances[output];
    report.dataset.output = output;
    draw();
  }

  // --- the figure ----------------------------------------------------------------------------------------------------
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const AXIS = 28;

  function draw() {
    const canvas = byId("canvas"), box = canvas.getBoundingClientRect(), ratio = devicePixelRatio || 1;
    canvas.width = Math.round(box.width * ratio);
    canvas.height = Math.round(box.height * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const style = getComputedStyle(report), ink = style.color, width = box.width, height = box.height - AXIS;
    const at = (seconds) => (seconds / data.duration_s) * width;
    const split = Math.round(height * 0.46);
    data.players.forEach((player, p) => {
      if (player.text) return;
      pen.fillStyle = shade(data.values[p][output]).background;
      pen.fillRect(at(player.start_s) + 0.5, 0, at(player.end_s) - at(player.start_s) - 1, wave ? split : height);
      segments[p].classList.toggle("tight", segments[p].scrollWidth > segments[p].clientWidth);
    });
    if (wave) {
      drawWave(pen, ink, width, ratio, 30, split - 4);
      drawSpectrogram(pen, ink, width, split + 4, height);
      pen.fillStyle = style.getPropertyValue("--paper");
      for (const { start_s, end_s } of data.players.filter((player) => !player.text)) {
        for (const edge_s of [start_s, end_s]) pen.fillRect(at(edge_s) - 0.5, split, 1, height - split);
      }
    }
    pen.font = `14px ${style.fontFamily}`;
    pen.fillStyle = style.getPropertyValue("--quiet");
    const step = [0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60].find((s) => at(s) >= 56) || 300;
    for (let i = 0; i * step <= data.duration_s; i += 1) {
      const x = at(i * step), label = `${Number((i * step).toFixed(2))} s`, wide = pen.measureText(label).width;
      pen.fillRect(Math.min(x, width - 1), height, 1, 5);
      if (x + wide / 2 <= width || i === 0) pen.fillText(label, Math.max(0, x - wide / 2), height + 20);
    }
  }

  function drawWave(pen, ink, width, ratio, top, bottom) {
    const middle = (top + bottom) / 2, reach = (bottom - top) / 2, columns = Math.ceil(width * ratio);
    pen.fillStyle = ink;
    for (let x = 0; x < columns; x += 1) {
      const first = Math.floor((x / columns) * wave.length), last = Math.floor(((x + 1) / columns) * wave.length);
      let low = wave[first], high = wave[first];
      for (let i = first; i < last; i += 1) {
        if (wave[i] < low) low = wave[i];
        if (wave[i] > high) high = wave[i];
      }
      const from = middle - (high / peak) * reach, to = middle - (low / peak) * reach;
      pen.fillRect(x / ratio, from, 1 / ratio, Math.max(1 / ratio, to - from));
    }
  }

  function drawSpectrogram(pen, ink, width, top, bottom) {
    const { bins, frames } = data.spectrogram, image = new ImageData(frames, bins);
    const [red, green, blue] = ink.match(/\d+/g).map(Number);
    for (let bin = 0; bin < bins; bin += 1) {
      for (let frame = 0; frame < frames; frame += 1) {
        const level = levels[bin * frames + frame] / 255;
        image.data.set([red, green, blue, 235 * level * level], 4 * ((bins - 1 - bin) * frames + frame));
      }
    }
    const sheet = document.createElement("canvas");
    sheet.width = frames;
    sheet.height = bins;
    sheet.getContext("2d").putImageData(image, 0, 0);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(sheet, 0, top, width, bottom - top);
  }

  // --- playing -------------------------------------------------------------------------------------------------------
  // A take is a list of pieces [source, first, last]: samples of the recording, or what stands for it, in the order heard.
  function decoded(url) {
    const view = new DataView(bytes(url.slice(url.indexOf(",") + 1)).buffer), header = 44;
    return Float32Array.from({ length: (view.byteLength - header) / 2 }, (_, i) => view.getInt16(header + 2 * i, true) / 32768);
  }
  const wave = recording && decoded(recording.getAttribute("src"));
  const peak = wave && wave.reduce((most, sample) => Math.max(most, Math.abs(sample)), 1e-6);
  const levels = wave && bytes(data.spectrogram.data);
  const sources = wave && {
    recording: wave, silence: new Float32Array(wave.length), noise: data.noise && decoded(data.noise),
  };
  let context = null, playing = null;

  function piecesOf(mode, p) {
    const { first, last } = data.players[p];
    if (mode === "alone") return [["recording", first, last]];
    const absent = chosen("absence"), gap = absent === "delete" ? [] : [[absent, first, last]];
    return [["recording", 0, first], ...gap, ["recording", last, wave.length]].filter(([, from, to]) => to > from);
  }

  async function play(mode, p, pieces) {
    stop();
    const take = { mode, p, pieces };
    playing = take;
    context = context || new AudioContext();
    await context.resume();
    if (playing !== take) return;
    const length = pieces.reduce((sum, [, from, to]) => sum + to - from, 0);
    const buffer = context.createBuffer(1, length, data.rate_hz), samples = buffer.getChannelData(0);
    let filled = 0;
    for (const [source, from, to] of pieces) {
      samples.set(sources[source].subarray(from, to), filled);
      filled += to - from;
    }
    take.node = new AudioBufferSourceNode(context, { buffer });
    take.node.connect(context.destination);
    take.node.onended = () => playing === take && finish();
    report.dataset.playing = mode;
    report.dataset.word = p === null ? "" : p;
    report.dataset.pieces = JSON.stringify(pieces.map(([source, from, to]) => [source, from / data.rate_hz, to / data.rate_hz]));
    [chips, segments].forEach((list) => list.forEach((element, i) => element?.classList.toggle("absent", mode === "without" && i === p)));
    byId("play").setAttribute("aria-label", mode === "whole" ? "Pause" : "Play the recording");
    byId("status").textContent = told(mode, p);
    byId("cursor").hidden = false;
    take.node.start();
    take.started_s = context.currentTime;
    requestAnimationFrame(follow);
  }

  function told(mode, p) {
    if (mode === "whole") return "Playing the recording.";
    const name = data.players[p].label;
    return mode === "alone" ? `Playing “${name}” alone.` : `Playing all but “${name}”, which is ${data.absences[chosen("absence")]}.`;
  }

  function stop() {
    if (playing && playing.node) {
      playing.node.onended = null;
      playing.node.stop();
    }
    playing = null;
    report.dataset.playing = report.dataset.word = report.dataset.playingWord = "";
    byId("play").setAttribute("aria-label", "Play the recording");
    byId("status").textContent = "";
    byId("cursor").hidden = true;
    for (const element of document.querySelectorAll(".current, .absent")) element.classList.remove("current", "absent");
  }

  function finish() {
    stop();
    show(0);
  }

  function position() {
    const heard_s = context.currentTime - playing.started_s - (context.outputLatency || 0);
    let left = Math.max(0, heard_s * data.rate_hz);
    for (const [, from, to] of playing.pieces) {
      if (left < to - from) return (from + left) / data.rate_hz;
      left -= to - from;
    }
    return playing.pieces.at(-1)[2] / data.rate_hz;
  }

  function follow() {
    if (!playing) return;
    if (playing.node) {
      const seconds = position();
      show(seconds);
      const word = data.players.findIndex((player) => player.first <= seconds * data.rate_hz && seconds * data.rate_hz < player.last);
      if (String(word < 0 ? "" : word) !== report.dataset.playingWord) {
        report.dataset.playingWord = word < 0 ? "" : word;
        [chips, segments, rows.map((row) => row.item)].forEach((list) => list.forEach((element, p) => element?.classList.toggle("current", p === word)));
      }
    }
    requestAnimationFrame(follow);
  }

  function show(seconds) {
    report.dataset.position = seconds.toFixed(3);
    byId("seek").value = seconds;
    byId("seek").setAttribute("aria-valuetext", `${seconds.toFixed(1)} seconds`);
    byId("clock").textContent = `${seconds.toFixed(2)} / ${data.duration_s.toFixed(2)} s`;
    byId("cursor").style.left = percent(seconds / data.duration_s);
    const scroller = byId("scroller"), x = (seconds / data.duration_s) * byId("figure").clientWidth;
    if (playing && (x < scroller.scrollLeft || x > scroller.scrollLeft + scroller.clientWidth)) scroller.scrollLeft = x - 40;
  }

  const playFrom = (seconds) => {
    const first = Math.min(Math.max(0, Math.round(seconds * data.rate_hz)), wave.length - 1);
    return play("whole", null, [["recording", first, wave.length]]);
  };
  const playWord = (p) => play(chosen("mode"), p, piecesOf(chosen("mode"), p));

  // --- building ------------------------------------------------------------------------------------------------------
  function pill(parent, name, value, text, checked) {
    const label = make("label", "", parent), input = make("input", "", label);
    Object.assign(input, { type: "radio", name, value, checked });
    make("span", "", label, text);
    return input;
  }

  data.players.forEach((player, p) => {
    const chip = make("button", "chip", byId(player.text ? "prompt" : "transcript"));
    make("b", "", chip, player.chip);
    make("small", "", chip);
    // Text is no part of the recording: nothing to see there, and nothing to hear.
    const segment = player.text ? null : make("button", "segment", byId("segments"), player.chip);
    if (segment) {
      segment.tabIndex = -1;
      segment.style.left = percent(player.start_s / data.duration_s);
      segment.style.width = percent((player.end_s - player.start_s) / data.duration_s);
    }
    for (const button of segment ? [chip, segment] : [chip]) {
      button.type = "button";
      button.disabled = !wave || player.text;
      button.title = player.title;
      button.addEventListener("click", () => playWord(p));
    }
    chips.push(chip);
    segments.push(segment);
    const item = make("li", "", byId("values"));
    make("span", "label", item, player.label);
    make("span", "when", item, player.when);
    const track = make("div", "track", item);
    make("div", "zero", track).style.left = percent(along(0));
    rows.push({ item, bar: make("div", "bar", track), whisker: make("div", "error", track), amount: make("span", "amount", item) });
  });
  data.outputs.forEach((name, k) => {
    pill(byId("outputs"), "output", k, name, k === 0).addEventListener("change", () => {
      output = k;
      paint();
    });
  });
  byId("asked").hidden = !data.players.some((player) => player.text);
  byId("outputs").hidden = data.outputs.length < 2;
  byId("low").textContent = data.ends[0];
  byId("high").textContent = data.ends[1];
  byId("figure").style.minWidth = `${Math.round(data.duration_s * 90)}px`;

  if (wave) {
    for (const [name, text] of Object.entries(data.absences)) pill(byId("absences"), "absence", name, text, name === data.absence);
    for (const input of document.getElementsByName("mode")) {
      input.addEventListener("change", () => { byId("absences").hidden = chosen("mode") === "alone"; });
    }
    byId("seek").max = data.duration_s;
    byId("seek").addEventListener("input", () => {
      const seconds = Number(byId("seek").value), was = report.dataset.playing;
      stop();
      show(seconds);
      if (was === "whole") playFrom(seconds);
    });
    byId("play").addEventListener("click", () => {
      const seconds = Number(byId("seek").value);
      if (report.dataset.playing === "whole") stop();
      else playFrom(report.dataset.playing || seconds >= data.duration_s ? 0 : seconds);
    });
    document.querySelector(".choices").hidden = data.players.every((player) => player.text);
    recording.hidden = true;
    byId("controls").hidden = false;
    show(0);
  }
  dark.addEventListener("change", paint);
  new ResizeObserver(draw).observe(byId("figure"));
  paint();
})();
