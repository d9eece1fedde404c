"use strict";
// Asks /state.json once a second and draws it. Everything is set as text, nothing as markup.

const REFRESH_MS = 1000, PATIENCE_MS = 8000, UNKNOWN = "unknown";
const FINE_MISSED = 0.01, OLD_LINK_S = 10;
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let heardAt = null;

// ---- numbers as a person reads them -------------------------------------------------------------
const known = (value) => value !== null && value !== undefined;
const digits = (value) => (value === 0 ? "0" : value >= 100 ? value.toFixed(0)
  : value >= 10 ? value.toFixed(1) : value >= 0.1 ? value.toFixed(2) : value.toPrecision(2));
const with_ = (value, unit) => (value === "beyond" ? "off the scale"
  : known(value) ? `${digits(value)} ${unit}` : UNKNOWN);
const ms = (value) => with_(value, "ms");
const mbps = (value) => with_(value, "Mbit/s");
const percent = (share) => (known(share) ? `${(100 * share).toFixed(share < 0.0995 && share > 0 ? 1 : 0)} %` : UNKNOWN);
const span = (seconds) => (!known(seconds) ? UNKNOWN : seconds < 1 ? "less than 1 s" : seconds < 90 ? `${seconds.toFixed(0)} s`
  : seconds < 5400 ? `${Math.round(seconds / 60)} min` : seconds < 172800 ? `${digits(seconds / 3600)} h`
  : `${Math.round(seconds / 86400)} days`);

// ---- small builders -----------------------------------------------------------------------------
function text(id, value) {
  const element = byId(id);
  if (element.textContent !== value) element.textContent = value;
  element.classList.toggle("none", value === UNKNOWN);
}
function tile(id, value) {
  const [number, ...unit] = value.split(" ");
  if (value === UNKNOWN || !Number.isFinite(Number(number))) return text(id, value);
  byId(id).replaceChildren(`${number} `, make("span", unit.join(" ")));
  return byId(id).classList.remove("none");
}
function make(tag, content, className) {
  const element = document.createElement(tag);
  element.textContent = content;
  if (className) element.className = className;
  return element;
}
function facts(id, rows, nothing) {
  byId(id).replaceChildren(...(rows.length ? rows : [[nothing, ""]]).flatMap(([name, value]) => {
    const pair = [make("dt", name), make("dd", value)];
    if (!byId(id).classList.contains("wide")) return pair;
    const block = document.createElement("div");
    block.append(...pair);
    return [block];
  }));
}
function line(cells, tag = "td") {
  const row = document.createElement("tr");
  row.append(...cells.map(([content, className]) => make(tag, content, className)));
  return row;
}

// ---- curves -------------------------------------------------------------------------------------
function draw(tag, attributes, content) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (content !== undefined) element.textContent = content;
  return element;
}
function niceTop(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return power * [1, 2, 2.5, 5, 10].find((step) => step * power >= most * 0.999);
}
function chart(id, curves, series, { least, level }) {
  const svg = byId(id), width = svg.clientWidth, height = svg.clientHeight;
  const left = 36, right = 6, top = 8, bottom = 20;
  const numbers = series.flatMap(({ name }) => curves[name]).filter((v) => typeof v === "number");
  const most = niceTop(Math.max(least, level || 0, ...numbers));
  const x = (age) => left + (1 - age / curves.span_s) * (width - left - right);
  const y = (value) => top + (1 - Math.min(value, most) / most) * (height - top - bottom);
  const parts = [0, most / 2, most].flatMap((tick) => [
    draw("line", { class: "rule", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
    draw("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, String(+tick.toPrecision(3))),
  ]);
  for (let age = 0; age <= curves.span_s; age += 60) parts.push(draw("text", {
    x: x(age), y: height - 5, "text-anchor": age ? "middle" : "end",
  }, age ? `−${age / 60} min` : "now"));
  if (level) parts.push(draw("line", { class: "promised-line", x1: left, x2: width - right, y1: y(level), y2: y(level) }));
  for (const { name, color, area } of series) parts.push(...curve(curves, name, color, area, x, y));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("aria-label", numbers.length ? `${id.slice(6)}: last five minutes, 0 to ${most}` : `${id.slice(6)}: ${UNKNOWN}`);
  if (!numbers.length) parts.push(draw("text", { x: (left + width) / 2, y: y(most * 0.75) + 4, "text-anchor": "middle" }, UNKNOWN));
  svg.replaceChildren(...parts);
}
function curve(curves, name, color, area, x, y) {
  const runs = [[]];  // parted where nobody knew the value
  curves[name].forEach((value, index) => {
    if (value === "beyond") value = Infinity;
    if (known(value)) runs[runs.length - 1].push([x(curves.age_s[index]), y(value)]);
    else if (runs[runs.length - 1].length) runs.push([]);
  });
  const drawn = [];
  for (const run of runs.filter((one) => one.length)) {
    const path = "M" + run.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join("L");
    const begin = run[0][0].toFixed(1), end = run[run.length - 1][0].toFixed(1);
    if (area) drawn.push(draw("path", { class: "area", d: `${path}L${end},${y(0)}L${begin},${y(0)}Z` }));
    drawn.push(draw("path", { class: `curve ${color}`, d: run.length > 1 ? path : `${path}h0.1` }));
  }
  return drawn;
}
function drawCurves(curves, promised) {
  chart("chart-uplink", curves, [{ name: "uplink_mbps", color: "c0", area: true }, { name: "used_mbps", color: "c1" }], { least: 0.1 });
  chart("chart-rtt", curves, [{ name: "rtt_ms", color: "c0", area: true }], { least: 10 });
  chart("chart-latency", curves, [{ name: "p50_ms", color: "c1" }, { name: "p95_ms", color: "c0" }], { least: 10, level: promised });
  const missed = { ...curves, missed: curves.missed.map((share) => (known(share) ? 100 * share : null)) };
  chart("chart-missed", missed, [{ name: "missed", color: "bad" }], { least: 10 });
}

// ---- the parts of the page ----------------------------------------------------------------------
function drawTiles(told) {
  const { link, frames, latency, battery } = told;
  tile("uplink", mbps(link.uplink_mbps));
  text("uplink-note", link.obstacle ? `nothing is sent: ${link.obstacle}` : `used ${mbps(link.used_mbps)}`);
  tile("rtt", ms(link.rtt_ms));
  text("rtt-note", known(link.heard_s) ? `heard ${span(link.heard_s)} ago; server wait ${ms(link.server_wait_ms)}` : "nothing heard yet");
  tile("on-time", percent(frames.on_time));
  text("on-time-note", `late ${percent(frames.missed)}, never started ${percent(frames.dropped)}; ${digits(frames.per_s)} frames/s`);
  tile("latency", ms(latency.p95_ms));
  text("latency-note", `p50 ${ms(latency.p50_ms)}; promised ${ms(latency.promised_ms)}`);
  tile("by-server", percent(frames.answered_by.server));
  text("by-server-note", `device ${percent(frames.answered_by.device)}, nobody ${percent(frames.answered_by.nobody)}`);
  tile("battery", percent(battery.soc));
  text("battery-note", battery.power.map(({ watts, provenance }) => `${digits(watts)} W (${provenance})`).join(", ") || `power ${UNKNOWN}`);
}
function drawDecisions(decisions) {
  const table = byId("decisions"), unique = (name) => [...new Set(decisions.map((one) => one[name]))].sort((a, b) => a - b);
  if (!decisions.length) { table.replaceChildren(line([["none in the last seconds"]])); return; }
  const widths = unique("bits"), head = line([["split"], ...widths.map((bits) => [bits ? `${bits} bit${bits > 1 ? "s" : ""}` : "local"])], "th");
  const rows = unique("split_point").map((split) => {
    const row = line([[String(split)]], "th");
    for (const bits of widths) {
      const found = decisions.find((one) => one.split_point === split && one.bits === bits);
      const cell = make("td", found ? (100 * found.share).toFixed(1) : "");
      if (found) cell.style.backgroundColor = `rgba(var(--tint), ${(0.1 + 0.5 * found.share).toFixed(2)})`;
      row.append(cell);
    }
    return row;
  });
  table.replaceChildren(head, ...rows);
}
function drawDevice(told) {
  facts("fallbacks", told.fallbacks.map(({ reason, per_s }) => [reason, `${digits(per_s)} per second`]), "no reason: it answered what it was asked");
  facts("process", [
    ["frames", `${told.frames.total} since its start, ${told.frames.open ?? UNKNOWN} under way`],
    ["deciding, p95", ms(told.latency.deciding_p95_ms)],
    ["memory", with_(told.process.memory_mb, "MB")],
    ["processor", percent(told.process.processor)],
  ]);
}
function drawServer(server) {
  byId("server").hidden = !server;
  if (!server) return;
  const { told, problem } = server;
  text("server-name", `Server ${server.address}` + (problem ? ", silent" : told ? ` (${told.info.bundle ?? UNKNOWN})` : ""));
  facts("server-facts", !told ? [["silent", problem]] : [
    ["answered", `${digits(told.answered_per_s)} per second`],
    ["refused", told.refusals.map(({ reason, per_s }) => `${reason} ${digits(per_s)}/s`).join(", ") || "nothing"],
    ["load", percent(told.load)],
    ["waiting now", String(told.waiting)],
    ["in the queue, p95", ms(told.queue_p95_ms)],
    ["computing, p95", ms(told.compute_p95_ms)],
    ["batch", known(told.batch) ? `${digits(told.batch)} on average` : UNKNOWN],
    ["devices", String(told.devices ?? UNKNOWN)],
  ]);
}
function drawRecords(records) {
  byId("records").hidden = !records;
  if (!records) return;
  text("records-note", records.problem ? `${records.file}: ${records.problem}` : records.frames.length ? records.file : `${records.file}: no frame yet`);
  const number = "number", head = line([["frame", number], ["answer"], ["confidence", number], ["latency", number], ["on time"], ["answered by"], ["split, bits"], ["sent", number], ["reason"]], "th");
  const rows = records.frames.map((frame) => line([
    [String(frame.frame_index), number],
    [frame.answer ?? "none"],
    [known(frame.confidence) ? `${(100 * frame.confidence).toFixed(0)} %` : "–", number],
    [known(frame.latency_ms) ? ms(frame.latency_ms) : "–", number],
    frame.on_time ? ["yes", "good"] : ["no", "bad"],
    [frame.answered_by ? frame.answered_by + (known(frame.exit_index) ? `, exit ${frame.exit_index}` : "") : "nobody"],
    [known(frame.split_point) ? `${frame.split_point}, ${frame.bits || "local"}` : "–"],
    [frame.payload_bytes ? `${frame.payload_bytes} B` : "–", number],
    [frame.fallback_reason || "–"],
  ]));
  byId("frames").replaceChildren(...(rows.length ? [head, ...rows] : []));
}
function drawState(device) {
  const { told, problem, silent_s } = device, pill = byId("state");
  const missed = told && known(told.frames.on_time) ? 1 - told.frames.on_time : 0;
  const [word, mood] = problem ? [told ? "gone" : "waiting", "bad"]
    : told.link.obstacle ? ["on its own", "warn"]
    : missed > FINE_MISSED ? ["missing frames", "warn"]
    : !known(told.frames.on_time) ? ["idle", ""]
    : !known(told.link.heard_s) || told.link.heard_s > OLD_LINK_S ? ["link not heard", "warn"] : ["fine", "good"];
  pill.textContent = word;
  pill.className = `pill ${mood}`;
  document.body.classList.toggle("old", Boolean(problem));
  banner(problem ? (told ? `Silent for ${span(silent_s)}; below is what it said last. ` : "") + problem : "");
}
function banner(message) {
  byId("banner").hidden = !message;
  text("banner", message);
}

// ---- the loop -----------------------------------------------------------------------------------
function show(state) {
  const { told, address } = state.device;
  drawState(state.device);
  text("name", `Device ${address}`);
  if (told) {
    const { bundle, controller, version } = told.info;
    text("what", `${bundle ?? UNKNOWN}, ${controller ?? UNKNOWN} decides; up ${span(told.uptime_s)}; version ${version ?? UNKNOWN}`);
    text("footer", `Numbers without a span are of the last ${span(told.window_s)}; curves of the last five minutes.`);
    drawTiles(told);
    drawDecisions(told.decisions);
    drawDevice(told);
  }
  drawCurves(state.curves, told ? told.latency.promised_ms : null);
  drawServer(state.server);
  drawRecords(state.records);
}
async function tick() {
  try {
    const reply = await fetch("state.json", { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!reply.ok) throw new Error(`status ${reply.status}`);
    show(await reply.json());
    heardAt = Date.now();
  } catch (error) {
    const ago = heardAt === null ? "" : ` for ${span((Date.now() - heardAt) / 1000)}`;
    document.body.classList.add("old");
    byId("state").textContent = "page lost";
    byId("state").className = "pill bad";
    banner(`This page's own command has not answered${ago} (${error.message}); is "adaptive-split dash" still running?`);
  }
  setTimeout(tick, REFRESH_MS);
}
tick();
