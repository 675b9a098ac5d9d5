"use strict";

// The page shows what api/events sends. Texts of strangers arrive as text and are set as
// text: nothing here turns a string into markup, and the browser refuses that too
// (require-trusted-types-for).

const verdicts = ["pass", "defer", "reject", "hold", "error", "none", "shadow"];
const verdictWords = { none: "no say", shadow: "only watched" };

const state = {
  sources: [],       // {name, part, error}
  reasons: {},       // their meanings
  most: 200,         // records that are listed
  records: [],       // the newest first: {source, record, at, number, row}
  chosen: -1,        // source that is shown; -1 is all
  span: "hour",      // of the chart
  reasonsSpan: "hour",
  paused: false,
  version: "",
  taken: 0,          // records so far
  drawn: {},         // the data from which each part of the page was drawn
};

const byId = (id) => document.getElementById(id);

// el makes an element. Children are elements or texts.
function el(name, attributes, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === false) continue;
    if (key === "class") node.className = value;
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((c) => c !== undefined && c !== null && c !== ""));
  return node;
}

// table makes a table from the names of its columns and its rows.
function table(columns, rows) {
  return el("table", {}, el("thead", {}, el("tr", {}, ...columns.map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, ...rows));
}

function svg(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Control characters, marks that turn the direction of text, and characters without a
// shape are shown by their number.
const unseen = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202f\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff]|[\u{e0000}-\u{e0fff}]/gu;

function visible(text) {
  return String(text).replace(unseen, (c) => "\\u{" + c.codePointAt(0).toString(16) + "}");
}

// said returns an element with a text that a stranger may have written.
function said(text) { return el("bdi", {}, visible(text)); }

const count = (n) => Number(n).toLocaleString("en");

function seconds(s) {
  if (s === 0) return "0";
  if (s < 0.001) return round(s * 1e6) + " µs";
  if (s < 1) return round(s * 1e3) + " ms";
  if (s < 120) return round(s) + " s";
  if (s < 7200) return round(s / 60) + " min";
  if (s < 172800) return round(s / 3600) + " h";
  return round(s / 86400) + " d";
}

function round(n) { return n >= 100 ? String(Math.round(n)) : String(Number(n.toPrecision(2))); }

function clock(date) { return date.toTimeString().slice(0, 8); }

function word(verdict) { return verdictWords[verdict] || verdict; }

// verdictOf returns the verdict as which a record, a step or a count is shown.
function verdictOf(of) {
  if (of.mode === "shadow") return "shadow";
  return verdicts.includes(of.verdict) ? of.verdict : "none";
}

// changed reports whether a part of the page has to be drawn again. Otherwise the focus and
// open parts stay as they are.
function changed(part, of) {
  const text = JSON.stringify(of);
  if (state.drawn[part] === text) return false;
  state.drawn[part] = text;
  return true;
}

// shown returns the chosen sources that have answered.
function shown() {
  return state.sources.filter((s, i) => s.part && (state.chosen < 0 || state.chosen === i));
}

const many = () => state.sources.length > 1 && state.chosen < 0;

// label returns the name of a source.
function label(source) {
  return source.part ? source.part.status.daemon + " on " + source.part.status.host : source.name;
}

// ---- what runs

function drawSources() {
  const names = state.sources.map(label);
  if (!changed("sources", [names, state.chosen])) return;
  const nav = byId("sources");
  if (names.length < 2) { nav.replaceChildren(); return; }
  const had = document.activeElement && document.activeElement.dataset.source;
  nav.replaceChildren(...["All", ...names].map((name, i) => {
    const b = el("button", { type: "button", "aria-pressed": String(state.chosen === i - 1), "data-source": String(i - 1) }, visible(name));
    b.addEventListener("click", () => { state.chosen = i - 1; draw(); drawRows(); });
    return b;
  }));
  if (had !== undefined) nav.querySelector('[data-source="' + Number(had) + '"]')?.focus();
}

function drawDaemons() {
  const list = state.sources.filter((s, i) => state.chosen < 0 || state.chosen === i);
  const facts = list.map((s) => [s.name, s.error, s.part && [s.part.status.version, s.part.status.started, s.part.status.ready, s.part.status.conditions, s.part.status.settings, s.part.status.refused, s.part.status.error]]);
  if (changed("daemons", facts)) {
    const open = new Set([...document.querySelectorAll("#daemons details[open]")].map((d) => d.dataset.of));
    byId("daemons").replaceChildren(...list.map((s) => daemonCard(s, open)));
  }
  for (const node of document.querySelectorAll("[data-started]")) {
    node.textContent = ago(Date.now() - Date.parse(node.dataset.started));
  }
  for (const node of document.querySelectorAll("[data-value]")) {
    const source = state.sources[Number(node.dataset.of)];
    node.textContent = count(source?.part?.status.values[node.dataset.value] ?? 0);
  }
}

function ago(ms) {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s % 3600 / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s % 86400 / 3600) + " h";
}

function daemonCard(source, open) {
  const at = state.sources.indexOf(source);
  const card = el("article", { class: "card daemon" });
  const s = source.part && source.part.status;
  const well = s && s.ready && !source.error;
  card.append(el("h2", {}, said(label(source)),
    el("span", { class: "pill " + (well ? "good" : "bad") }, !s || source.error ? "no answer" : s.ready ? "ready" : "not ready")));
  if (source.error) card.append(el("p", { class: "note" }, said(source.name), ": ", said(source.error)));
  if (!s) return card;
  const started = new Date(s.started);
  card.append(el("div", { class: "facts" },
    el("span", {}, "version ", el("b", {}, said(s.version))),
    el("span", { title: started.toString() }, "up ", el("b", { "data-started": s.started }, "")),
    el("span", {}, "connections ", el("b", { "data-value": "postern_connections", "data-of": String(at) }, "")),
    el("span", {}, "in hand ", el("b", { "data-value": "postern_requests_in_flight", "data-of": String(at) }, ""))));
  for (const c of s.conditions.filter((c) => !c.ok)) card.append(el("p", { class: "note" }, said(c.name), " fails", c.detail ? ": " : "", c.detail ? said(c.detail) : ""));
  if (s.refused) card.append(el("p", { class: "note" }, "The last reload was refused: ", said(s.refused)));
  if (s.error) card.append(el("p", { class: "note" }, "Some metrics could not be read: ", said(s.error)));
  const details = el("details", { "data-of": String(at), open: open.has(String(at)) },
    el("summary", {}, s.settings.length + (s.settings.length === 1 ? " setting differs" : " settings differ") + " from the default"));
  details.append(table(["Setting", "Value", "From"], s.settings.map((v) => el("tr", {}, el("th", { scope: "row" }, said(v.name)), el("td", { class: "mono" }, said(v.value),
    v.pending ? el("p", { class: "bad" }, "configured: ", said(v.pending), v.restart ? " (needs a restart)" : " (needs a reload)") : ""), el("td", {}, said(v.origin))))));
  card.append(details);
  return card;
}

// ---- decisions over time

// steps returns the sum of the series of all shown sources, which may end at different steps.
function steps(span) {
  const all = shown().map((s) => s.part.status[span]);
  if (all.length === 0) return null;
  const step = all[0].step_s, n = all[0].verdicts.length;
  const last = Math.max(...all.map((a) => Date.parse(a.end) / 1000));
  const sum = Array.from({ length: n }, () => ({}));
  for (const a of all) {
    const behind = Math.round((last - Date.parse(a.end) / 1000) / step);
    a.verdicts.forEach((of, i) => {
      const to = sum[i - behind];
      if (!to) return;
      for (const [v, k] of Object.entries(of)) {
        const verdict = verdicts.includes(v) ? v : "none";
        to[verdict] = (to[verdict] || 0) + k;
      }
    });
  }
  return { step, last, sum };
}

function drawChart() {
  const s = steps(state.span);
  if (!s || !changed("chart", [s, state.span, byId("chart").clientWidth])) return;
  byId("flow-title").textContent = state.span === "hour" ? "Decisions a minute" : "Decisions a quarter of an hour";
  const total = {};
  for (const of of s.sum) for (const [v, k] of Object.entries(of)) total[v] = (total[v] || 0) + k;
  const used = verdicts.filter((v) => total[v]);
  byId("legend").replaceChildren(...(used.length ? used : ["pass"]).map((v) => el("li", { class: "v-" + v, "data-verdict": v }, el("span", { class: "swatch" }), word(v) + " ", el("b", {}, count(total[v] || 0)))));
  byId("chart").replaceChildren(barChart(s, used, total));
}

function barChart(s, used, total) {
  // One unit is a CSS pixel, so that texts have their size on every screen.
  const width = Math.max(byId("chart").clientWidth, 240), height = 190, left = 46, bottom = 20, top = 8;
  const n = s.sum.length, every = width < 600 ? 2 : 1, each = (width - left) / n;
  const highest = Math.max(1, ...s.sum.map((of) => used.reduce((k, v) => k + (of[v] || 0), 0)));
  const max = niceMax(highest);
  const y = (k) => top + (height - top - bottom) * (1 - k / max);
  const what = used.map((v) => word(v) + " " + (total[v] || 0)).join(", ") || "none";
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": (state.span === "hour" ? "Decisions of the last hour: " : "Decisions of the last day: ") + what });
  for (const k of new Set([0, max / 2, max].map((k) => Math.ceil(k)))) {
    chart.append(svg("line", { class: "grid", x1: left, x2: width, y1: y(k), y2: y(k) }));
    const t = svg("text", { x: left - 6, y: y(k) + 4, "text-anchor": "end" });
    t.textContent = count(k);
    chart.append(t);
  }
  s.sum.forEach((of, i) => {
    const x = left + i * each;
    const at = new Date((s.last - (n - i) * s.step) * 1000);
    const time = clock(at).slice(0, 5);
    const sum = used.reduce((k, v) => k + (of[v] || 0), 0);
    if (sum > 0) {
      const title = svg("title", {});
      title.textContent = time + " — " + used.filter((v) => of[v]).map((v) => word(v) + " " + of[v]).join(", ");
      const group = svg("g", {}, title);
      let from = 0;
      for (const v of used) {
        if (!of[v]) continue;
        const h = y(from) - y(from + of[v]);
        group.append(svg("rect", { class: "v-" + v, x: x + each * 0.1, width: each * 0.8, y: y(from + of[v]), height: Math.max(h, 0.8) }));
        from += of[v];
      }
      chart.append(group);
    }
    const marked = state.span === "hour" ? at.getMinutes() % (10 * every) === 0 : at.getMinutes() === 0 && at.getHours() % (3 * every) === 0;
    if (marked && x > left + 10 && x < width - 16) {
      const t = svg("text", { x: x + each / 2, y: height - 4, "text-anchor": "middle" });
      t.textContent = time;
      chart.append(t);
    }
  });
  return chart;
}

// niceMax is the end of an axis: 1, 2 or 5 times a power of ten.
function niceMax(n) {
  const ten = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((k) => k * ten).find((k) => k >= n) || n;
}

// ---- reasons

function reasonCounts() {
  const sum = new Map();
  for (const s of shown()) {
    const from = state.reasonsSpan === "start" ? s.part.status.decisions : s.part.status[state.reasonsSpan].reasons;
    for (const c of from) {
      const verdict = verdictOf(c);
      const key = c.reason + " " + verdict;
      const was = sum.get(key) || { reason: c.reason, verdict, count: 0 };
      was.count += c.count;
      sum.set(key, was);
    }
  }
  return [...sum.values()].sort((a, b) => b.count - a.count || (a.reason < b.reason ? -1 : 1));
}

function drawReasons() {
  const all = reasonCounts();
  if (!changed("reasons", [all, state.reasonsSpan])) return;
  const most = Math.max(1, ...all.map((c) => c.count));
  const had = document.activeElement && document.activeElement.closest("#bars li")?.dataset.key;
  byId("bars").replaceChildren(...all.slice(0, 14).map((c) => {
    const fill = el("i", {});
    fill.style.width = (100 * c.count / most) + "%";
    const b = el("button", { type: "button", title: visible(state.reasons[c.reason] || c.reason) },
      el("span", { class: "line" }, el("span", {}, visible(c.reason), " ", el("span", { class: "quiet" }, word(c.verdict))), el("b", {}, count(c.count))),
      el("span", { class: "bar v-" + c.verdict }, fill));
    b.addEventListener("click", () => { byId("reason").value = c.reason; byId("verdict").value = ""; connect(); byId("log").scrollIntoView({ block: "start" }); });
    return el("li", { "data-key": c.reason + " " + c.verdict, "data-count": String(c.count) }, b);
  }));
  if (all.length === 0) byId("bars").append(el("li", { class: "quiet" }, "No decision in this time."));
  if (had) [...document.querySelectorAll("#bars li")].find((li) => li.dataset.key === had)?.querySelector("button").focus();
}

// ---- health

function lampName(lamp) {
  const name = lamp.name.replace(/^postern_/, "").replace(/_(up|writes)$/, "").replaceAll("_", " ");
  const labels = Object.values(lamp.labels || {}).join(" ");
  return labels ? name + " " + labels : name;
}

function lampState(lamp) {
  if (/_up$/.test(lamp.name)) return lamp.good ? "up" : "down";
  if (/_writes$/.test(lamp.name)) return lamp.good ? "writes" : "no writes";
  return lamp.good ? "ok" : count(lamp.value);
}

function drawHealth() {
  const all = shown().map((s) => ({ of: many() ? label(s) : "", lamps: s.part.status.lamps }));
  if (!changed("health", all)) return;
  byId("lamps").replaceChildren(...all.flatMap(({ of, lamps }) => [
    of ? el("h3", {}, said(of)) : "",
    lamps.length === 0 ? el("p", { class: "quiet" }, "Nothing is measured.") : "",
    el("ul", { class: "lamps" }, ...lamps.filter((l) => !l.good).map((l) => lampItem(l, el("small", {}, said(l.help))))),
    el("ul", { class: "lamps well" }, ...lamps.filter((l) => l.good).map((l) => lampItem(l, ""))),
  ]).filter((n) => n !== ""));
}

function lampItem(lamp, help) {
  return el("li", { "data-metric": lamp.name, title: visible(lamp.help), class: lamp.good ? "good" : "bad" },
    el("span", { class: "state" }, lampState(lamp)), el("span", { class: "what" }, said(lampName(lamp))), help);
}

// ---- times

const firstTimes = ["greylist", "dns", "decision", "store"];

function drawTimes() {
  const all = shown().flatMap((s) => s.part.status.histograms.filter((h) => h.count > 0).map((h) => ({ h, of: many() ? label(s) : "" })));
  const rank = (h) => { const i = firstTimes.findIndex((w) => h.name.includes(w)); return i < 0 ? firstTimes.length : i; };
  all.sort((a, b) => rank(a.h) - rank(b.h) || b.h.count - a.h.count);
  byId("timings").hidden = all.length === 0;
  if (!changed("times", all)) return;
  byId("histograms").replaceChildren(...all.slice(0, 18).map(({ h, of }) => figure(h, of)));
}

function figure(h, of) {
  const title = h.name.replace(/^postern_/, "").replace(/_seconds$/, "").replaceAll("_", " ");
  const labels = Object.entries(h.labels || {}).map(([k, v]) => k + " " + v).join(", ");
  const unit = /_seconds$/.test(h.name) ? seconds : round;
  return el("figure", { "data-histogram": h.name, "data-count": String(h.count) },
    el("h3", {}, said(title), labels ? el("span", { class: "quiet" }, " ", said(labels)) : "", of ? el("span", { class: "quiet" }, " ", said(of)) : ""),
    histogram(h, unit),
    el("figcaption", {}, count(h.count) + " in all, half below " + unit(quantile(h, 0.5)) + ", 95 % below " + unit(quantile(h, 0.95)), el("br"), said(h.help)));
}

function histogram(h, unit) {
  let first = h.counts.findIndex((k) => k > 0), last = h.counts.length - 1;
  while (last > first && h.counts[last] === 0) last--;
  first = Math.max(0, Math.min(first, last - 1));
  last = Math.max(last, Math.min(first + 4, h.bounds.length - 1)); // one bar alone shows nothing
  const buckets = h.counts.slice(first, last + 1);
  const width = 300, height = 92, bottom = 16, each = width / buckets.length, most = Math.max(...buckets, 1);
  const below = (i) => first + i < h.bounds.length ? unit(h.bounds[first + i]) : "more";
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": buckets.map((k, i) => k + " below " + below(i)).join(", ") });
  const every = Math.ceil(buckets.length / 7);
  buckets.forEach((k, i) => {
    const tall = (height - bottom - 4) * k / most;
    const title = svg("title", {});
    title.textContent = below(i) === "more" ? k + " above" : k + " up to " + below(i);
    chart.append(svg("g", {}, title, svg("rect", { x: i * each + 1, width: Math.max(each - 2, 1), y: height - bottom - tall, height: k > 0 ? Math.max(tall, 1) : 0, class: "v-pass" })));
    if (i % every === 0 || buckets.length < 8) {
      const t = svg("text", { x: i * each + each / 2, y: height - 3, "text-anchor": "middle" });
      t.textContent = below(i);
      chart.append(t);
    }
  });
  chart.append(svg("line", { class: "grid", x1: 0, x2: width, y1: height - bottom, y2: height - bottom }));
  return chart;
}

// quantile goes through a bucket in a straight line, as Prometheus does.
function quantile(h, q) {
  let rank = q * h.count, from = 0;
  for (let i = 0; i < h.counts.length; i++) {
    const to = i < h.bounds.length ? h.bounds[i] : h.bounds[h.bounds.length - 1];
    if (rank <= h.counts[i] && h.counts[i] > 0) return from + (to - from) * rank / h.counts[i];
    rank -= h.counts[i];
    from = to;
  }
  return from;
}

// ---- limits and keys

function drawLimits() {
  const all = shown().filter((s) => s.part.status.limits).map((s) => ({ limits: s.part.status.limits, of: many() ? label(s) : "" }));
  byId("limits").hidden = all.length === 0;
  if (!changed("limits", all)) return;
  byId("uses").replaceChildren(...all.flatMap(({ limits, of }) => [
    of ? el("h3", {}, said(of)) : "",
    limits.down ? el("p", { class: "note" }, "The store does not answer: ", said(limits.down)) : "",
    ...limits.blocks.map((b) => el("p", { class: "note" }, said(b.login), " is blocked", b.until ? " until " + new Date(b.until).toLocaleString() : "")),
    limits.uses.length === 0 ? el("p", { class: "quiet" }, "No one has used any limit.") : table(["Who", "Limit", "Used"], limits.uses.map(useRow)),
  ]).filter((n) => n !== ""));
}

function useRow(u) {
  const fill = el("i", {});
  fill.style.width = Math.min(100, Math.max(0, u.percent)) + "%";
  const verdict = u.percent >= 100 ? "reject" : u.percent >= 80 ? "defer" : "pass";
  return el("tr", { "data-who": u.value }, el("th", { scope: "row" }, said(u.value)), el("td", { class: "mono" }, said(u.limit)),
    el("td", {}, `${count(u.used)} of ${count(u.count)} (${u.percent} %)`, el("span", { class: "bar v-" + verdict }, fill)));
}

function drawKeys() {
  const all = shown().flatMap((s) => (s.part.status.keys || []).map((key) => ({ key, of: many() ? label(s) : "" })));
  byId("keys").hidden = all.length === 0;
  if (!changed("keys", all)) return;
  byId("keylist").replaceChildren(table(["Key", "State", "DNS"], all.map(({ key, of }) => key.error
    ? el("tr", {}, el("td", { colspan: "3", class: "bad" }, said(key.error)))
    : el("tr", {},
      el("th", { scope: "row" }, said(key.selector + "._domainkey." + key.domain), el("p", { class: "quiet" }, said(key.algorithm + (key.bits ? " " + key.bits + " bits" : "") + (of ? ", " + of : "")))),
      el("td", { class: key.signs ? "good" : "bad" }, key.signs ? "signs" : "left out"),
      el("td", {}, said(key.dns || "not watched"))))));
}

// ---- who sends as our domains

function drawSenders() {
  const all = shown().filter((s) => s.part.status.senders).map((s) => ({ senders: s.part.status.senders, of: many() ? label(s) : "" }));
  byId("senders").hidden = all.length === 0;
  if (!changed("senders", all)) return;
  const shut = new Set([...document.querySelectorAll("#senderlist details:not([open])")].map((d) => d.dataset.of));
  byId("senderlist").replaceChildren(...all.flatMap(({ senders, of }) => [
    all.length > 1 ? el("h3", {}, said(of)) : "",
    senders.error ? el("p", { class: "note" }, "The received reports cannot be read: ", said(senders.error)) : "",
    senders.domains.length > 0 ? el("p", { class: "quiet" }, "As receivers have reported it in their DMARC reports since " + senders.since + ". The newest were added " + new Date(senders.changed).toLocaleString() + ". Anyone can send a report: trust those whose mail you have verified.")
      : senders.error ? "" : el("p", { class: "quiet" }, "There are no DMARC reports since " + senders.since + " in ", said(senders.file), ". Run postern dmarc read --store with this file and the mailbox of your reports, once a day."),
    ...senders.domains.map((d) => senderDomain(d, of, shut)),
    senders.more ? el("p", { class: "quiet" }, count(senders.more) + " more domains are not shown.") : "",
  ]).filter((n) => n !== ""));
}

function senderDomain(d, of, shut) {
  const key = of + " " + d.domain;
  const rest = [d.messages - d.passed && count(d.messages - d.passed) + " failed", d.quarantined && count(d.quarantined) + " quarantined", d.rejected && count(d.rejected) + " rejected"].filter(Boolean).join(", ");
  return el("details", { "data-of": key, "data-domain": d.domain, open: !shut.has(key) },
    el("summary", {}, said(d.domain), ": " + count(d.messages) + " mails, " + share(d.passed, d.messages) + " pass DMARC" + (rest ? "; " + rest : "")),
    el("p", { class: "quiet" }, said(d.policy), "; reported by ", ...(d.reporters || []).flatMap((name, i) => [i ? ", " : "", said(name)])),
    table(["Source", "Mails", "DKIM", "SPF", "Failed"], d.sources.map(senderRow)),
    d.more ? el("p", { class: "quiet" }, count(d.more) + " smaller sources are not shown.") : "");
}

function senderRow(s) {
  const failed = s.messages - s.passed;
  const facts = [s.hosts > 1 ? count(s.hosts) + " hosts" : s.name ? s.address : "", s.spf_record, "last " + s.last].filter(Boolean).join("; ");
  return el("tr", {}, el("th", { scope: "row" }, said(s.name || s.address || "other hosts"), el("p", { class: "quiet" }, said(facts)), ...(s.why || []).map((why) => el("p", { class: "quiet why" }, said(why)))),
    el("td", {}, count(s.messages)), el("td", {}, share(s.dkim, s.messages)), el("td", {}, share(s.spf, s.messages)), el("td", { class: failed ? "bad" : "" }, count(failed)));
}

// share returns a part in percent. It is 100 % only for the whole.
function share(part, all) {
  if (!all) return "0\u00a0%";
  return part === all ? "100\u00a0%" : Math.min(99.9, Math.round(1000 * part / all) / 10) + "\u00a0%";
}

// ---- the last decisions

function take(source, log) {
  for (const record of log.records) state.records.push({ source, record, at: Date.parse(record.ts), number: ++state.taken });
  state.records.sort((a, b) => b.at - a.at || b.number - a.number);
  state.records.length = Math.min(state.records.length, state.most);
}

function drawRows() {
  const body = byId("rows");
  const list = state.records.filter((r) => state.chosen < 0 || r.source === state.chosen);
  const keep = new Set(list.map((r) => r.row).filter(Boolean));
  for (const row of [...body.children]) if (!keep.has(row)) row.remove();
  let before = body.firstChild;
  for (const r of list) {
    r.row = r.row || recordRow(r);
    if (before === r.row) before = before.nextSibling;
    else body.insertBefore(r.row, before);
  }
  byId("none").hidden = list.length > 0;
  byId("none").textContent = filtered() ? "No decision that is remembered matches." : "No decision yet.";
  byId("shown").textContent = list.length ? count(list.length) + (filtered() ? " that match" : " shown") : "";
  byId("records").hidden = list.length === 0;
}

function cell(text, name) {
  return text ? el("td", { "data-name": name, title: visible(text).slice(0, 500) }, said(text)) : el("td", {});
}

function recordRow(r) {
  const record = r.record, verdict = verdictOf(record), at = new Date(r.at);
  const open = el("button", { type: "button", title: at.toString() }, clock(at));
  const row = el("tr", { class: "v-" + verdict },
    el("td", {}, open),
    el("td", {}, el("span", { class: "verdict" }, el("span", { class: "swatch" }), word(verdict))),
    cell(record.reason, "reason"), cell(record.sender, "from"), cell(record.recipient || record.message_id, record.recipient ? "to" : "id"),
    cell([record.client_address || record.peer, record.client_name === "unknown" ? "" : record.client_name].filter(Boolean).join(" "), "client"), cell(record.sasl_username, "login"));
  row.addEventListener("click", () => showDetail(r));
  return row;
}

// ---- one decision

function showDetail(r) {
  const record = r.record, verdict = verdictOf(record);
  const body = byId("detail-body");
  const parts = [el("p", { class: "reason v-" + verdict }, el("b", {}, word(verdict)), record.check ? " by " : "", record.check ? said(record.check) : "", ": ", el("b", {}, said(record.reason || "none")), el("br"), said(state.reasons[record.reason] || "")), members(record, ["steps"])];
  if (Array.isArray(record.steps) && record.steps.length > 0) {
    parts.push(el("h3", { class: "steps" }, "Steps"), el("ol", { class: "steps" }, ...record.steps.filter((step) => step && typeof step === "object").map(stepItem)));
  }
  if (state.sources.length > 1) parts.push(el("p", { class: "quiet" }, "From ", said(label(state.sources[r.source]))));
  body.replaceChildren(...parts);
  const dialog = byId("detail");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

// members lists the keys and values of a record or a step, except some.
function members(of, without) {
  const list = el("dl", { class: "all" });
  for (const [key, value] of Object.entries(of)) {
    if (without.includes(key)) continue;
    list.append(el("dt", {}, visible(key)), el("dd", {}, said(typeof value === "object" ? JSON.stringify(value) : value)));
  }
  return list;
}

function stepItem(step) {
  const verdict = verdictOf(step);
  const item = el("li", { class: "v-" + verdict }, el("span", { class: "verdict" }, el("span", { class: "swatch" }), el("b", {}, said(step.check || ""))), " ", word(verdict), " ", said(step.reason || ""));
  if (state.reasons[step.reason]) item.append(el("p", { class: "quiet" }, said(state.reasons[step.reason])));
  const rest = members(step, ["check", "verdict", "reason"]);
  if (rest.children.length > 0) item.append(rest);
  return item;
}

// ---- the way of the data

function draw() {
  drawSources();
  drawDaemons();
  drawChart();
  drawReasons();
  drawHealth();
  drawTimes();
  drawLimits();
  drawKeys();
  drawSenders();
}

let events = null;
let waiting = null;

function filtered() { return byId("q").value.trim() || byId("verdict").value || byId("reason").value; }

function live(text, bad) {
  const node = byId("live");
  if (node.textContent !== text) node.textContent = text;
  node.classList.toggle("bad", Boolean(bad));
}

// connect asks for the events again, because the filter is part of the request.
function connect() {
  clearTimeout(waiting);
  if (events) events.close();
  const question = new URLSearchParams();
  for (const [name, id] of [["q", "q"], ["verdict", "verdict"], ["reason", "reason"]]) {
    if (byId(id).value.trim()) question.set(name, byId(id).value.trim());
  }
  state.records = [];
  drawRows();
  events = new EventSource("api/events?" + question);
  events.addEventListener("hello", (e) => {
    const hello = JSON.parse(e.data);
    if (state.version && state.version !== hello.version) { location.reload(); return; }
    state.version = hello.version;
    state.reasons = hello.reasons;
    state.most = hello.most;
    state.records = [];
    if (state.sources.length !== hello.sources.length) state.sources = hello.sources.map((name) => ({ name }));
    fillReasons();
  });
  events.addEventListener("news", (e) => {
    const news = JSON.parse(e.data);
    const source = state.sources[news.source];
    if (!source) return;
    source.error = news.error;
    if (news.log) {
      source.part = { status: news.status };
      take(news.source, news.log);
    }
    live(state.paused ? "paused" : "live, " + clock(new Date()));
    if (state.paused) return;
    draw();
    drawRows();
  });
  events.addEventListener("error", () => {
    live("no connection to the daemon; trying again", true);
    if (events.readyState === EventSource.CLOSED) waiting = setTimeout(connect, 5000);
  });
}

function fillReasons() {
  const select = byId("reason");
  if (select.options.length > 1) return;
  for (const name of Object.keys(state.reasons).sort()) select.append(el("option", {}, name));
}

function choose(group, act) {
  group.addEventListener("click", (e) => {
    const b = e.target.closest("button");
    if (!b) return;
    for (const other of group.querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === b));
    act(b.dataset.span);
    draw();
  });
}

function pause() {
  state.paused = !state.paused;
  byId("pause").setAttribute("aria-pressed", String(state.paused));
  live(state.paused ? "paused" : "live");
  if (!state.paused) { draw(); drawRows(); }
}

function dark() {
  const set = document.documentElement.dataset.theme;
  return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function nameTheme() { byId("theme").textContent = dark() ? "Light" : "Dark"; }

function move(by) {
  const buttons = [...document.querySelectorAll("#rows button")];
  const at = buttons.indexOf(document.activeElement);
  buttons[Math.min(buttons.length - 1, Math.max(0, at + by))]?.focus();
}

function listen() {
  choose(byId("span"), (span) => { state.span = span; });
  choose(byId("reasons-span"), (span) => { state.reasonsSpan = span; });
  byId("pause").addEventListener("click", pause);
  byId("theme").addEventListener("click", () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; nameTheme(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", nameTheme);
  byId("close").addEventListener("click", () => byId("detail").close());
  byId("detail").addEventListener("click", (e) => { if (e.target === byId("detail")) byId("detail").close(); });
  byId("filter").addEventListener("submit", (e) => { e.preventDefault(); connect(); });
  let typing = null;
  byId("q").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(connect, 400); });
  for (const id of ["verdict", "reason"]) byId(id).addEventListener("change", connect);
  byId("clear").addEventListener("click", () => { for (const id of ["q", "verdict", "reason"]) byId(id).value = ""; connect(); });
  document.addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.altKey || e.metaKey || byId("detail").open || e.target.closest("input, select")) return;
    if (e.key === "/") { e.preventDefault(); byId("q").focus(); }
    else if (e.key === "p") pause();
    else if (e.key === "j" || e.key === "k") move(e.key === "j" ? 1 : -1);
    else if ((e.key === "ArrowDown" || e.key === "ArrowUp") && document.activeElement.closest("#rows")) { e.preventDefault(); move(e.key === "ArrowDown" ? 1 : -1); }
  });
}

new ResizeObserver(() => drawChart()).observe(byId("chart"));
listen();
nameTheme();
connect();
