"use strict";
(async () => {
  const { volumes, levels, rates, start, colours, peak } = JSON.parse(document.getElementById("content").textContent);
  const element = (id) => document.getElementById(id);
  const [threshold, opacity, shown, mask, healed] = ["threshold", "opacity", "map", "mask", "healed"].map(element);
  const share = (rate) => `${(100 * rate).toPrecision(2)} %`;

  if (!element("slices").getContext("webgl2", { stencil: true })) {
    element("fault").hidden = false;
    return;
  }
  const view = new niivue.Niivue({
    logLevel: "error", loadingText: "", backColor: [0.063, 0.075, 0.094, 1], crosshairColor: [0.62, 0.78, 1, 0.5],
    crosshairWidthUnit: "percent", crosshairWidth: 0.4, crosshairGap: 6, showAllOrientationMarkers: true, fontColor: [0.9, 0.92, 0.94, 1], dragAndDropEnabled: false, isResizeCanvas: true, tileMargin: 8,
    multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
  });
  const [R, G, B] = colours;
  const I = R.map((_, code) => code);
  view.addColormap("anomaly", { R, G, B, A: I.map((code) => (code ? 255 : 0)), I });
  view.addColormap("mask", { R: [0, 64], G: [0, 199], B: [0, 242], A: [0, 255], I: [0, 255] });
  await view.attachToCanvas(element("slices"));
  const add = async (name, options) => {
    const image = await niivue.NVImage.loadFromBase64({ base64: volumes[name], name: `${name}.nii.gz`, ...options });
    view.addVolume(image);
    return image;
  };
  await add("scan", { colormap: "gray" });
  await add("healed", { colormap: "gray", opacity: 0 });
  const map = await add("map", { colormap: "anomaly", cal_min: start + 1, cal_max: 255 });
  map.colormapType = 2; // colours run from 0, and nothing is drawn below cal_min
  await add("mask", { colormap: "mask", opacity: 0, cal_min: 0, cal_max: 1 });

  const draw = () => {
    const level = Number(threshold.value);
    map.cal_min = level + 1; // codes count the thresholds below a value
    const opacities = [1, Number(healed.checked), shown.checked * opacity.value / 100, 0.5 * mask.checked];
    opacities.forEach((part, i) => { view.volumes[i].opacity = part; });
    element("rate").textContent = `${levels[level]}: at most ${share(rates[level])} of healthy voxels exceed it`;
    view.updateGLVolume();
  };
  const reset = () => { threshold.value = start; draw(); };
  view.onLocationChange = ({ mm, values }) => {
    const [scan, , code] = values.map(({ value }) => value);
    const at = Array.from(mm).slice(0, 3).map((side) => side.toFixed(1)).join(", ");
    const found = code ? `map above ${levels[code - 1]}, as in ${share(rates[code - 1])} of healthy voxels or fewer` : "map 0";
    element("place").textContent = `${at} mm: scan ${scan.toPrecision(3)}, ${found}`;
  };
  opacity.value = 70;
  reset();
  view.scene.crosshairPos = view.mm2frac(peak);
  view.drawScene();
  view.createOnLocationChange();

  [threshold, opacity, shown, mask, healed].forEach((control) => control.addEventListener("input", draw));
  element("reset").addEventListener("click", reset);
  window.addEventListener("keydown", (event) => {
    const box = { a: shown, m: mask, h: healed }[event.key.toLowerCase()];
    if (!box || event.ctrlKey || event.metaKey || event.altKey) return;
    event.stopPropagation(); // NiiVue has keys of its own
    box.checked = !box.checked;
    draw();
  }, true);
  document.body.dataset.ready = "true";
})();
