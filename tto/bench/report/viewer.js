// Two decoded images on top of each other, with a divider, zoom, their difference, and where the bits went.

const ZOOMS = [["fit", 0], ["1×", 1], ["2×", 2], ["4×", 4], ["8×", 8]];
const view = { zoom: 0, split: 0.5 };
const part = (id) => document.getElementById(id);

function startViewer() {
  if (!report.examples.length) return;
  part("examples").hidden = false;
  report.examples.forEach((example, index) => part("image").append(new Option(example.image, index)));
  for (const [name, zoom] of ZOOMS) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => setZoom(zoom));
    part("zoom").append(button);
  }
  part("image").addEventListener("change", chooseImage);
  for (const id of ["rate", "left", "right", "mode"]) part(id).addEventListener("change", showViews);
  part("split").addEventListener("input", () => moveSplit(part("split").value / 100));
  part("viewer").addEventListener("scroll", placeSplit);
  part("handle").addEventListener("pointerdown", startSplitting);
  part("viewer").addEventListener("pointerdown", startPanning);
  chooseImage();
}

function example() {
  return report.examples[Number(part("image").value)];
}

function chooseImage() {
  const before = part("rate").options.length ? part("rate").selectedIndex : Math.floor((example().rates.length - 1) / 2);
  part("rate").replaceChildren(...example().rates.map((rate, index) => new Option(rate.name, index)));
  part("rate").value = String(Math.min(before, example().rates.length - 1));
  for (const side of ["left", "right"]) {
    const before = part(side).selectedOptions[0]?.textContent;
    const views = viewsAtRate();
    const wanted = views.findIndex((one) => one.label === (before ?? report[`${side}View`]));
    part(side).replaceChildren(...views.map((one, index) => new Option(one.label, index)));
    part(side).value = String(Math.max(0, wanted));
  }
  showViews();
  setZoom(view.zoom);
}

function viewsAtRate() {
  return example().rates[Number(part("rate").value)].views.map((index) => example().views[index]);
}

function showViews() {
  const mode = part("mode").value;
  const [left, right] = ["left", "right"].map((side) => viewsAtRate()[Number(part(side).value)]);
  const difference = !["slider", "bits"].includes(mode);
  part("left-image").src = left.source;
  part("right-image").src = right.source;
  part("left-image").alt = left.label;
  part("right-image").alt = right.label;
  part("right-image").style.mixBlendMode = difference ? "difference" : "";
  part("stage").style.filter = difference ? `brightness(${mode})` : "";
  part("bits-image").hidden = mode !== "bits" || !right.bits;
  if (right.bits) part("bits-image").src = right.bits;
  caption("left-caption", left);
  caption("right-caption", right);
  if (mode === "bits" && !right.bits) part("right-caption").textContent += " (no map of its bits)";
  part("handle").hidden = part("split").disabled = mode !== "slider";
  placeSplit();
}

// Says what is shown, and saves it.
function caption(id, one) {
  part(id).textContent = `${one.label}: ${one.note}`;
  part(id).href = one.source;
  part(id).download = `${example().image}-${one.label}.webp`;
}

function setZoom(zoom) {
  view.zoom = zoom;
  const { width, height } = example();
  // "fit" fills the section, and shows a whole portrait too.
  const room = Math.min(part("examples").clientWidth - 40, (innerHeight * 0.8 * width) / height);
  const shown = zoom ? width * zoom : Math.min(room, width * 1.5);
  part("stage").style.width = `${shown}px`;
  part("stage").style.height = `${(shown * height) / width}px`;
  part("viewer").style.maxWidth = `${shown}px`;
  part("stage").classList.toggle("pixelated", zoom >= 2);
  [...part("zoom").children].forEach((button, i) => button.setAttribute("aria-pressed", String(ZOOMS[i][1] === zoom)));
  placeSplit();
}

function moveSplit(fraction) {
  view.split = Math.min(1, Math.max(0, fraction));
  part("split").value = String(view.split * 100);
  placeSplit();
}

// The divider stays where it is on the screen while the image moves under it.
function placeSplit() {
  const viewer = part("viewer");
  const at = viewer.scrollLeft + view.split * viewer.clientWidth;
  part("handle").style.left = `${at}px`;
  part("right-image").style.clipPath = part("mode").value === "slider" ? `inset(0 0 0 ${at}px)` : "";
}

function startSplitting(event) {
  event.preventDefault();
  event.stopPropagation();
  const move = (moved) => {
    const frame = part("viewer").getBoundingClientRect();
    moveSplit((moved.clientX - frame.left) / frame.width);
  };
  drag(part("handle"), event, move);
}

function startPanning(event) {
  if (event.pointerType !== "mouse") return; // fingers scroll by themselves
  const viewer = part("viewer");
  const start = { x: event.clientX + viewer.scrollLeft, y: event.clientY + viewer.scrollTop };
  drag(viewer, event, (moved) => viewer.scrollTo(start.x - moved.clientX, start.y - moved.clientY));
}

function drag(target, event, move) {
  target.setPointerCapture(event.pointerId);
  target.addEventListener("pointermove", move);
  const stop = () => target.removeEventListener("pointermove", move);
  target.addEventListener("pointerup", stop, { once: true });
  target.addEventListener("pointercancel", stop, { once: true });
}

// --- start ------------------------------------------------------------------------------------

function startTheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => (root.dataset.theme = system.matches ? "dark" : "light");
  system.addEventListener("change", follow);
  follow();
  part("theme").addEventListener("click", () => (root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"));
}

startTheme();
startCharts();
drawLegend();
drawAll();
startTable();
startViewer();
let lastWidth = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === lastWidth) return; // a phone's address bar comes and goes
  lastWidth = innerWidth;
  drawAll();
  if (report.examples.length) setZoom(view.zoom);
});
