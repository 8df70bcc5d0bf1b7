"use strict";

const byId = (id) => document.getElementById(id);
const elements = Object.fromEntries(
  ["form", "drop", "drop-hint", "file", "camera", "style", "strength", "strength-text", "size",
    "colours", "start", "status", "pictures", "before", "after", "after-figure", "download",
    "before-figure", "camera-label", "webcam", "viewfinder", "video", "shoot", "cancel",
  ].map((id) => [id, byId(id)]),
);
const SETTLE_MS = 350; // After the last move of the slider, so that not every step is sent.
const RETRIES = 3;

let photo = null;
let running = null; // The request in progress; a newer one replaces it.
let settling = 0;
let maxUpload = Infinity;

function say(text, fault = false) {
  elements.status.textContent = text;
  elements.status.classList.toggle("fault", fault);
}

function show(image, blob, address = URL.createObjectURL(blob)) {
  if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
  image.src = address;
  return address;
}

function take(file) {
  if (!file) return;
  if (file.size > maxUpload) {
    say(`This file has ${(file.size / 1e6).toFixed(0)} MB; at most ` +
      `${(maxUpload / 1e6).toFixed(0)} MB are taken.`, true);
    return;
  }
  photo = file;
  elements["drop-hint"].textContent = `${file.name || "Pasted photo"}. For another, drop it here, or`;
  elements["before-figure"].hidden = false;
  show(elements.before, file);
  elements.pictures.hidden = false;
  elements["after-figure"].hidden = true;
  elements.start.disabled = elements.style.options.length === 0;
  stylize();
}

function resultName(format) {
  const stem = (photo.name || "photo").replace(/\.[^.]*$/, "");
  return `${stem}_${elements.style.selectedOptions[0].dataset.style}.${format}`;
}

function order() {
  const chosen = elements.style.selectedOptions[0].dataset;
  const data = new FormData();
  data.append("image", photo, "photo");
  data.append("model", chosen.model);
  data.append("style", chosen.style);
  data.append("strength", String(Number(elements.strength.value) / 100));
  data.append("preserve_color", String(elements.colours.checked));
  if (elements.size.value) data.append("max_size", elements.size.value);
  data.append("format", photo.type === "image/png" ? "png" : "jpg"); // What every browser shows.
  return data;
}

const pause = (seconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, seconds * 1000);
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    reject(new DOMException("replaced", "AbortError"));
  });
});

async function send(data, signal) {
  for (let attempt = 0; ; attempt += 1) {
    const answer = await fetch("v1/stylize", { method: "POST", body: data, signal });
    if (answer.ok) return answer.blob();
    const told = await answer.json().catch(() => ({}));
    if (answer.status !== 503 || attempt >= RETRIES) {
      throw new Error(told.error?.replace(/^image: /, "") || `the server answered ${answer.status}`);
    }
    const seconds = Number(answer.headers.get("Retry-After")) || 2;
    say(`The server is busy; trying again in ${seconds} s.`);
    await pause(seconds, signal);
  }
}

async function stylize() {
  clearTimeout(settling);
  if (!photo || elements.style.options.length === 0) return;
  if (running) running.abort();
  const mine = new AbortController();
  running = mine;
  elements.pictures.setAttribute("aria-busy", "true");
  say("Stylizing…");
  const began = performance.now();
  const data = order();
  const name = resultName(data.get("format"));
  // Now, because they may be changed while the server works.
  const style = elements.style.selectedOptions[0].textContent;
  const strength = elements.strength.value;
  try {
    const result = await send(data, mine.signal);
    if (running !== mine) return;
    const address = show(elements.after, result);
    elements.after.alt = `Your photo in the style ${style}, strength ${strength} %`;
    elements.download.href = address;
    elements.download.download = name;
    const isFirst = elements["after-figure"].hidden;
    elements["after-figure"].hidden = false;
    if (isFirst) await bringIntoView(elements.after);
    say(`Done in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
  } catch (error) {
    if (error.name === "AbortError") return;
    const unreachable = error instanceof TypeError;
    say(unreachable ? "The server cannot be reached." : `It did not work: ${error.message}.`, true);
  } finally {
    if (running === mine) {
      running = null;
      elements.pictures.removeAttribute("aria-busy");
    }
  }
}

async function bringIntoView(image) {
  await image.decode().catch(() => {});
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  image.scrollIntoView({ block: "nearest", behavior: isCalm ? "auto" : "smooth" });
}

function stylizeSoon() {
  clearTimeout(settling);
  settling = setTimeout(stylize, SETTLE_MS);
}

// Phones have a camera of their own behind the file field; elsewhere the page shows the picture.
async function openCamera() {
  elements.webcam.disabled = true; // A second stream would have nobody to stop it.
  try {
    elements.video.srcObject =
      await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 } } });
    elements.viewfinder.showModal();
  } catch (error) {
    closeCamera(); // It may be on, but not shown.
    say(`The camera cannot be used: ${error.message}.`, true);
  } finally {
    elements.webcam.disabled = false;
  }
}

function closeCamera() {
  for (const track of elements.video.srcObject?.getTracks() ?? []) track.stop();
  elements.video.srcObject = null;
}

function shoot() {
  const canvas = document.createElement("canvas");
  canvas.width = elements.video.videoWidth;
  canvas.height = elements.video.videoHeight;
  if (!canvas.width) return; // Its first frame is not there yet.
  canvas.getContext("2d").drawImage(elements.video, 0, 0);
  canvas.toBlob((blob) => {
    elements.viewfinder.close();
    take(new File([blob], "camera.jpg", { type: blob.type }));
  }, "image/jpeg", 0.95);
}

async function loadModels() {
  try {
    const told = await (await fetch("v1/models")).json();
    maxUpload = told.limits.max_upload_bytes;
    for (const model of told.models) {
      for (const style of model.styles) {
        const text = model.styles.length > 1 ? `${model.name}: ${style}` : model.name;
        const option = new Option(text);
        Object.assign(option.dataset, { model: model.name, style });
        elements.style.add(option);
      }
    }
    elements.start.disabled = photo === null;
    stylize();
  } catch {
    say("The server cannot be reached; reload this page.", true);
  }
}

elements.form.addEventListener("submit", (event) => {
  event.preventDefault();
  stylize();
});
for (const source of [elements.file, elements.camera]) {
  source.addEventListener("change", () => {
    take(source.files[0]);
    source.value = ""; // So that the same file can be chosen again.
  });
}
if (navigator.mediaDevices?.getUserMedia && !matchMedia("(pointer: coarse)").matches) {
  elements.webcam.hidden = false;
  elements.camera.hidden = true;
  elements["camera-label"].hidden = true;
}
elements.before.addEventListener("error", () => {
  elements["before-figure"].hidden = true; // A kind that this browser does not show, or no picture.
});
elements.webcam.addEventListener("click", openCamera);
elements.shoot.addEventListener("click", shoot);
elements.cancel.addEventListener("click", () => elements.viewfinder.close());
elements.viewfinder.addEventListener("close", closeCamera);
elements.strength.addEventListener("input", () => {
  const text = `${elements.strength.value} %`;
  elements["strength-text"].textContent = text;
  elements.strength.setAttribute("aria-valuetext", text);
  stylizeSoon();
});
for (const choice of [elements.style, elements.size, elements.colours]) {
  choice.addEventListener("change", stylizeSoon);
}
for (const name of ["dragover", "dragleave", "drop"]) {
  // Everywhere: a photo that misses the field would replace the page.
  document.addEventListener(name, (event) => {
    event.preventDefault();
    elements.drop.classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files[0]);
});
loadModels();
