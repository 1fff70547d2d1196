// The dashboard's page. It asks by relative addresses only, and whatever a server says reaches the document as text.
//
// In this order: words and numbers, elements, the model, cards, the list of what is not well, the log, the drawer,
// actions, the header, the connection.

const HISTORY = 120;
const DRAWER_PERIOD = 2000;
const REORDER_PERIOD = 5000;
const LOG_LENGTH = 300;

// ---- words and numbers ----

/** Worst first. The glyph and the word say what the colour says. */
const STATES = {
  open: { word: "Open", glyph: "✕" },
  forced_open: { word: "Forced open", glyph: "⊘" },
  half_open: { word: "Half-open", glyph: "◐" },
  forced_closed: { word: "Forced closed", glyph: "⊙" },
  closed: { word: "Closed", glyph: "✓" },
};
const RANK = Object.keys(STATES);
const OUTCOMES = {
  success: "succeeded", failure: "failed", timed_out: "timed out", panicked: "panicked", ignored: "ignored",
  cancelled: "cancelled", short_circuited: "refused by the circuit", rejected: "refused by the bulkhead",
  rate_limited: "refused by the rate limit", late: "late, decided nothing",
};
const ACTIONS = {
  force_open: { word: "Force open", what: "Every call is refused, and no probe is let out.", expires: true },
  force_closed: { word: "Force closed", what: "Every call is let through, whatever fails.", expires: true },
  clear: { word: "Lift the override", what: "The circuit decides by itself again.", expires: false },
  reset: { word: "Reset", what: "Closes the circuit and forgets what it has seen.", expires: false },
};

/** Every kind of event: a word for it, and where the server's text leaves something to wish for, a better one. */
const KINDS = {
  transition: { word: "circuit", text: (event) => `${STATES[event.from].word} → ${STATES[event.to].word}. ${explain(event)}` },
  override_set: { word: "override", text: ({ state, until, reason }) => `${STATES[state].word} by an operator${until === null ? "" : ` until ${clock(until)}`}: ${reason}` },
  override_cleared: { word: "override", text: ({ state, expired, reason }) => `${STATES[state].word} ${expired ? "ran out" : "was lifted"} (it was: ${reason})` },
  reconfigured: { word: "settings", text: ({ changes }) => changes.map(({ field, before, after }) => `${field} is ${after}, was ${before}`).join("; ") || "nothing changed" },
  reload_rejected: { word: "settings refused" },
  limit_adapted: { word: "limit" },
  timeout_adapted: { word: "timeout" },
  lease_expired: { word: "probe" },
  ramp_stage: { word: "recovery" },
  missed: { word: "log" },
  action: { word: "operator" },
};

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const number = (n) => (n < 10_000 ? whole.format(n) : compact.format(n));
const percent = (share) => (share === null ? "–" : `${(share * 100).toFixed(share < 0.0995 && share > 0 ? 1 : 0)} %`);
const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

function latency(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1000) return `${us} µs`;
  if (us < 9_950) return `${(us / 1000).toFixed(1)} ms`;
  if (us < 1_000_000) return `${Math.round(us / 1000)} ms`;
  return `${(us / 1_000_000).toFixed(us < 10_000_000 ? 1 : 0)} s`;
}

function span(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return s % 60 && s < 600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 60)} min`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");

/** Why a circuit opened, from the report of the transition. */
function explain(event) {
  const { report, cause_text: cause } = event;
  const parts = [cause.charAt(0).toUpperCase() + cause.slice(1)];
  if (report.total > 0 && event.from !== "half_open") {
    const kinds = ["timed_out", "failure", "panicked"].filter((kind) => report.window[kind]);
    const detail = kinds.map((kind) => `${number(report.window[kind])} ${OUTCOMES[kind]}`).join(", ");
    const share = `${number(report.errors)} of ${plural(report.total, "call")} went wrong`;
    parts.push(detail ? `${share} (${detail})` : share);
    if (report.slow > 0) parts.push(`${number(report.slow)} were slow`);
  }
  if (report.p99_us !== null) parts.push(`p50 ${latency(report.p50_us)}, p99 ${latency(report.p99_us)}`);
  if (report.oldest_ms !== null && report.oldest_ms >= 1000) parts.push(`oldest in flight ${span(report.oldest_ms)}`);
  return parts.join("; ");
}

/** Of a keyed command the circuits of some keys may be unwell while the one that keys share is closed. */
const isWell = (data) => data.state === "closed" && data.keys_unwell === 0;
const rank = (data) => (isWell(data) ? RANK.length : RANK.indexOf(data.state));
const unwellKeys = ({ keys, keys_unwell: n }) => {
  const named = keys.map(({ key, state }) => `${key} (${STATES[state].word.toLowerCase()})`).join(", ");
  return n === 0 ? "" : `${plural(n, "key")} not well: ${named}${n > keys.length ? " and others" : ""}`;
};

/** Where the circuit that keys share is closed, and those of some keys are not. */
const unwellCount = ({ state, keys_total: all, keys_unwell: n }) => (state !== "closed" || n === 0 ? "" : `✕ ${number(n)} of ${plural(Math.max(n, all), "key")}`);

/** When trouble began: reopenings after failed probes are the same trouble still. */
function began({ state, opening, hold, since, keys }) {
  if (state === "closed" && keys.length > 0) return Math.min(...keys.map((key) => key.since));
  return opening && !hold ? opening.at : since;
}

const recovery = ({ number, of, share }) => `coming back, stage ${number} of ${of}: ${percent(share)} of calls`;

/** What is being done about a command that is not well. */
function remedy(command) {
  const { second, hold, state, ramp } = command;
  const parts = [];
  if (hold) parts.push(hold.expires_in_ms === null ? "held until it is lifted" : `the hold ends in ${span(hold.expires_in_ms)}`);
  if (state === "open") {
    const wait = command.retry_after_ms;
    parts.push(wait === null ? "waiting" : `next probe in ${wait < 1000 ? "a moment" : span(wait)}`);
  }
  if (state === "half_open") parts.push(ramp ? recovery(ramp) : "the next call is a probe and decides");
  if (command.reopenings > 0) parts.push(`probes have failed ${plural(command.reopenings, "time")}`);
  if (second.refused > 0) parts.push(`${number(second.refused)}/s refused`);
  if (second.served > 0) parts.push(`fallbacks answer ${number(second.served)}/s`);
  else if (second.refused > 0) parts.push("no fallback answers");
  return parts.join(" · ");
}

/** How near a closed circuit is to opening. */
function verge(command) {
  const { health, keys_total: keys } = command;
  if (command.state !== "closed") return "";
  if (keys !== null) return keys === 0 ? "no keys yet, each will have its own circuit" : `${plural(keys, "key")}, each with its own circuit`;
  if (health.threshold === null) {
    return health.consecutive_failures === null ? "never opens by itself" : `opens after ${plural(health.consecutive_failures, "error")} in a row`;
  }
  const opens = `opens at ${percent(health.threshold)}`;
  if (health.total < health.min_calls) return `${health.total} of ${plural(health.min_calls, "call")}: ${opens}`;
  return `${percent(health.errors / health.total)} of ${plural(health.total, "call")}: ${opens}`;
}

// ---- elements ----

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}
const el = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

/** Writes only what has changed: the rest of the document stays as it was laid out. */
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
function mark(node, name, value) {
  if (value === null) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** The outline of a stack of bars: one path, from the values below to those above. */
function bars(below, above, scale, width, height) {
  const step = width / HISTORY;
  const start = width - above.length * step;
  const y = (value) => (height - value * scale).toFixed(1);
  let over = "";
  let under = "";
  for (let i = 0; i < above.length; i += 1) {
    const [from, to] = [(start + i * step).toFixed(1), (start + (i + 1) * step).toFixed(1)];
    over += `L${from} ${y(above[i])}L${to} ${y(above[i])}`;
    under = `L${to} ${y(below[i])}L${from} ${y(below[i])}${under}`;
  }
  return over ? `M${over.slice(1)}${under}Z` : "";
}

// ---- the model ----

/** Everything that the server has told. */
const model = {
  instance: null, tick: 0, skew: 0, actions: "off", commands: new Map(), events: [], lastEvent: 0, heard: 0,
};
const view = { search: "", group: "", state: "", sort: "trouble", reordered: 0, drawer: null };

const serverNow = () => Date.now() + model.skew;

function adopt(snapshot) {
  if (model.instance !== snapshot.instance) {
    for (const command of model.commands.values()) command.card.root.remove();
    Object.assign(model, { instance: snapshot.instance, commands: new Map(), events: [], lastEvent: 0 });
    $("events").replaceChildren();
  }
  model.actions = snapshot.actions;
  follow(snapshot, true);
}

function follow(message, isSnapshot) {
  if (message.instance !== model.instance) return;
  const isNext = isSnapshot || message.tick > model.tick;
  Object.assign(model, { tick: Math.max(model.tick, message.tick), skew: message.now - Date.now(), heard: Date.now() });
  const alive = new Set();
  for (const data of message.commands) {
    alive.add(data.id);
    let command = model.commands.get(data.id);
    if (!command) {
      command = { id: data.id, recent: { ok: [], failed: [], refused: [] }, visible: false };
      command.card = newCard(command, data);
      model.commands.set(data.id, command);
    }
    const before = command.data;
    command.data = data;
    if (data.recent) command.recent = data.recent;
    else if (isNext) {
      for (const kind of ["ok", "failed", "refused"]) {
        command.recent[kind].push(data.second[kind]);
        if (command.recent[kind].length > HISTORY) command.recent[kind].shift();
      }
    }
    if (!before || rank(before) !== rank(data)) {
      view.reordered = 0;
      if (before && !isSnapshot) announce(data);
    }
  }
  for (const [id, command] of model.commands) {
    if (alive.has(id)) continue;
    command.card.root.remove();
    model.commands.delete(id);
  }
  const news = message.events.filter((event) => event.id > model.lastEvent);
  if (news.length > 0) {
    model.lastEvent = news[news.length - 1].id;
    model.events.push(...news);
    model.events.splice(0, Math.max(0, model.events.length - LOG_LENGTH));
    logEvents(news);
  }
  schedule();
}

function announce(data) {
  const reason = data.state === "open" && data.opening ? `: ${data.opening.cause_text}` : "";
  const ofKeys = unwellCount(data) === "" ? "" : unwellKeys(data);
  $("announcer").append(el("p", { text: `${data.name}${ofKeys ? `: ${ofKeys}` : ` is now ${STATES[data.state].word.toLowerCase()}${reason}`}` }));
  while ($("announcer").childElementCount > 5) $("announcer").firstElementChild.remove();
}

let scheduled = false;
function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    drawHeader();
    drawSick();
    drawOrder();
    for (const command of model.commands.values()) if (command.visible) drawCard(command);
  });
}

// ---- cards ----

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const command = model.commands.get(Number(target.dataset.id));
    if (!command) continue;
    command.visible = isIntersecting;
    if (isIntersecting) drawCard(command);
  }
}, { rootMargin: "200px" });

/** The shell of a card; the rest is made when it first comes into sight. */
function newCard(command, data) {
  const name = el("button", { type: "button", class: "name", text: data.name, onclick: () => openDrawer(command.id) });
  const state = el("span", { class: "state" });
  const root = el("li", { class: "card", "data-id": data.id }, el("div", { class: "card-head" },
    el("div", { class: "title" }, el("span", { class: "group", text: data.group ?? "" }), el("h3", {}, name)), state));
  watcher.observe(root);
  return { root, state, parts: null };
}

function cardParts(root) {
  const parts = {
    disc: svg("circle", { class: "disc", cx: 44, cy: 44, r: 8 }),
    used: svg("circle", { class: "used", cx: 44, cy: 44, r: 40, pathLength: 100, "stroke-dasharray": "0 100" }),
    rate: el("span", { class: "rate" }),
    spark: svg("svg", { class: "spark", viewBox: "0 0 240 56", preserveAspectRatio: "none", role: "img", "aria-label": "" }),
    ok: svg("path", { class: "ok" }),
    failed: svg("path", { class: "failed" }),
    refused: svg("path", { class: "refused" }),
    verge: el("p", { class: "verge" }),
    line: el("p", { class: "line" }),
    hold: el("p", { class: "hold" }),
    p50: el("dd"), p95: el("dd"), p99: el("dd"), flight: el("dd"), errors: el("dd"),
  };
  parts.spark.append(parts.ok, parts.failed, parts.refused);
  const fact = (term, value) => el("div", {}, el("dt", { text: term }), value);
  root.append(
    el("div", { class: "picture" },
      el("div", { class: "round" },
        svg("svg", { viewBox: "0 0 88 88", "aria-hidden": "true" }, svg("circle", { class: "track", cx: 44, cy: 44, r: 40 }), parts.used, parts.disc),
        parts.rate),
      el("div", { class: "trace" }, parts.spark, el("div", { class: "axis faint", "aria-hidden": "true" }, el("span", { text: "2 min ago" }), el("span", { text: "now" })))),
    parts.hold, parts.line, parts.verge,
    el("dl", { class: "facts" }, fact("errors", parts.errors), fact("p50", parts.p50), fact("p95", parts.p95), fact("p99", parts.p99), fact("in flight", parts.flight)));
  return parts;
}

const inFlight = (now, limit, queued) => `${number(now)} / ${limit === null ? "∞" : number(limit)}${queued ? ` + ${number(queued)} waiting` : ""}`;
const sum = (list) => list.reduce((total, n) => total + n, 0);

function drawCard(command) {
  const { data, recent, card } = command;
  card.parts ??= cardParts(card.root);
  const { parts } = card;
  const { glyph, word } = STATES[data.state];
  mark(card.root, "data-state", data.state);
  mark(card.root, "data-keys", unwellCount(data) === "" ? null : "unwell");
  write(card.state, isWell(data) ? `${glyph} ${word}` : `${unwellCount(data) || `${glyph} ${word}`} · ${span(serverNow() - began(data))}`);

  const perSecond = data.rate ?? data.second.ok + data.second.failed + data.second.refused;
  write(parts.rate, `${number(Math.round(perSecond))}/s`);
  // The area grows with the logarithm of the volume: one call a second and a thousand must both be seen.
  mark(parts.disc, "r", (8 + Math.min(26, Math.log10(1 + perSecond) * 8)).toFixed(1));
  const saturation = data.limit ? Math.min(1, data.in_flight / data.limit) : 0;
  mark(parts.used, "stroke-dasharray", `${(saturation * 100).toFixed(1)} 100`);
  mark(parts.used, "data-full", saturation >= 0.9 ? "true" : null);

  const zero = recent.ok.map(() => 0);
  const failed = recent.ok.map((ok, i) => ok + recent.failed[i]);
  const all = failed.map((n, i) => n + recent.refused[i]);
  const scale = 54 / Math.max(1, ...all);
  mark(parts.ok, "d", bars(zero, recent.ok, scale, 240, 56));
  mark(parts.failed, "d", bars(recent.ok, failed, scale, 240, 56));
  mark(parts.refused, "d", bars(failed, all, scale, 240, 56));
  mark(parts.spark, "aria-label",
    `Last two minutes: ${plural(sum(recent.ok), "success", "successes")}, ${plural(sum(recent.failed), "error")}, ${number(sum(recent.refused))} refused`);

  write(parts.hold, data.hold ? `“${data.hold.reason}”` : "");
  write(parts.line, [data.state === "closed" ? "" : remedy(data), unwellKeys(data)].filter(Boolean).join(" · "));
  write(parts.verge, data.state === "closed" ? verge(data) : "");
  write(parts.errors, percent(data.error_rate));
  mark(parts.errors, "class", data.error_rate > 0 ? "bad" : null);
  for (const p of ["p50", "p95", "p99"]) write(parts[p], latency(data.latency[`${p}_us`]));
  write(parts.flight, inFlight(data.in_flight, data.limit, data.queued));
}

const trouble = ({ data, recent }) => {
  const last = (list) => sum(list.slice(-10));
  return (last(recent.failed) + last(recent.refused)) * ((data.error_rate ?? 0) + 0.01);
};
const ORDERS = {
  trouble: (a, b) => rank(a.data) - rank(b.data) || trouble(b) - trouble(a) || byName(a, b),
  name: (a, b) => byName(a, b),
  p99: (a, b) => (b.data.latency.p99_us ?? -1) - (a.data.latency.p99_us ?? -1) || byName(a, b),
  saturation: (a, b) => saturation(b) - saturation(a) || byName(a, b),
};
const byName = (a, b) => (a.data.name < b.data.name ? -1 : a.data.name > b.data.name ? 1 : a.id - b.id);
const saturation = ({ data }) => (data.limit ? data.in_flight / data.limit : 0);

function matches({ data }) {
  const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
  const text = `${data.name} ${data.group ?? ""} ${data.state}`.toLowerCase();
  const state = view.state === "" || view.state === data.state;
  return state && (view.group === "" || view.group === (data.group ?? "")) && words.every((word) => text.includes(word));
}

/** Sorts the cards, but never under somebody's hands. */
function drawOrder(now = false) {
  const list = $("cards");
  const busy = list.matches(":hover") || list.contains(document.activeElement);
  const isDue = view.reordered === 0 || (Date.now() - view.reordered > REORDER_PERIOD && !busy);
  const shown = [...model.commands.values()].filter(matches);
  const isSame = shown.length === list.childElementCount && shown.every((command) => command.card.root.parentNode === list);
  if (!now && !isDue && isSame) return;
  view.reordered = Date.now();
  shown.sort(ORDERS[view.sort]);
  const keep = new Set(shown.map((command) => command.card.root));
  for (const root of [...list.children]) if (!keep.has(root)) root.remove();
  shown.forEach(({ card }, at) => {
    if (list.children[at] !== card.root) list.insertBefore(card.root, list.children[at] ?? null);
  });
  const total = model.commands.size;
  write($("shown"), shown.length === total ? "" : `${shown.length} of ${total}`);
  $("empty").hidden = shown.length > 0;
  write($("empty"), total === 0 ? "There are no commands yet. They appear as the service builds them." : "No command matches the search and the filters.");
}

// ---- what is not well ----

const MOST_SICK = 6;

function drawSick() {
  const sick = [...model.commands.values()].filter(({ data }) => !isWell(data));
  sick.sort((a, b) => rank(a.data) - rank(b.data) || began(a.data) - began(b.data) || byName(a, b));
  $("alarm").hidden = sick.length === 0;
  const list = $("sick");
  sick.slice(0, MOST_SICK).forEach((command, at) => {
    const item = list.children[at] ?? list.appendChild(sickItem());
    drawSickItem(item, command.data);
  });
  const more = sick.length - MOST_SICK;
  while (list.childElementCount > Math.min(sick.length, MOST_SICK)) list.lastElementChild.remove();
  write($("alarm-title"), more > 0 ? `Not well: ${sick.length}, the worst ${MOST_SICK} first` : "Not well");
  const bad = sick.filter(({ data }) => data.state === "open" || data.state === "forced_open").length;
  const title = bad > 0 ? `✕ ${bad} open – fusebox` : sick.length > 0 ? `◐ ${sick.length} not well – fusebox` : "fusebox";
  if (document.title !== title) document.title = title;
}

function sickItem() {
  const item = el("li", {});
  item.append(
    el("div", { class: "sick-head" },
      el("span", { class: "state" }), el("button", { type: "button", class: "name", onclick: () => openDrawer(Number(item.dataset.id)) }), el("span", { class: "since" })),
    el("p", { class: "why" }), el("p", { class: "remedy" }));
  return item;
}

function drawSickItem(item, data) {
  const [state, name, since] = item.firstElementChild.children;
  const [, why, doing] = item.children;
  mark(item, "data-id", data.id);
  mark(item, "data-state", data.state === "closed" ? "open" : data.state);
  const ofKeys = data.state === "closed";
  write(state, ofKeys ? unwellCount(data) : `${STATES[data.state].glyph} ${STATES[data.state].word}`);
  write(name, data.name);
  write(since, `since ${clock(began(data))}, for ${span(serverNow() - began(data))}`);
  if (ofKeys) {
    write(why, data.keys.map(({ key, cause }) => `${key}: ${explain(cause)}`).join(" · "));
    write(doing, unwellKeys(data));
    return;
  }
  write(why, data.hold ? `An operator: “${data.hold.reason}”` : data.opening ? explain(data.opening) : "It was so before this page's server began to watch.");
  write(doing, remedy(data));
}

// ---- the log ----

function eventItem(event, withName = true) {
  const state = event.to ?? event.state ?? "";
  const { word, text: tell } = KINDS[event.kind];
  const subject = `${event.command}${event.key === null ? "" : `[${event.key}]`}: `;
  const told = tell ? `${subject}${tell(event)}` : event.text;
  // On a command's own page its name is known, but not which key.
  const text = withName || !told.startsWith(subject) ? told : `${event.key === null ? "" : `${event.key}: `}${told.slice(subject.length)}`;
  const glyph = event.kind === "action" ? "☞" : STATES[state]?.glyph ?? "·";
  const line = [
    el("time", { datetime: new Date(event.at).toISOString(), text: clock(event.at) }), el("span", { class: "glyph", "aria-hidden": "true", text: glyph }),
    el("span", { class: "kind", text: word }), el("span", { class: "text", text }),
  ];
  if (!event.report) return el("li", { "data-state": state, class: "entry" }, ...line);
  return el("li", { "data-state": state, class: "entry" },
    el("details", { "data-event": event.id }, el("summary", {}, ...line), reportTable(event)));
}

function reportTable({ report, lasted_ms: lasted, from, cause_text: cause }) {
  const rows = [
    ["Cause", cause],
    ["State before", `${STATES[from].word}, for ${span(lasted)}`],
    ["Judged by", report.total > 0 ? `${number(report.errors)} errors of ${plural(report.total, "call")} (${percent(report.errors / report.total)}), ${number(report.slow)} slow` : "no calls"],
    [`Window of ${span(report.span_ms)}`, Object.entries(report.window).map(([outcome, n]) => `${number(n)} ${OUTCOMES[outcome] ?? outcome}`).join(", ") || "empty"],
    ["Latency", `p50 ${latency(report.p50_us)}, p99 ${latency(report.p99_us)}`],
    ["Oldest in flight", report.oldest_ms === null ? "none known" : span(report.oldest_ms)],
    ["Refuses for", report.wait_ms === null ? "–" : span(report.wait_ms)],
  ];
  return el("dl", { class: "report" }, ...rows.map(([term, value]) => el("div", {}, el("dt", { text: term }), el("dd", { text: value }))));
}

function logEvents(news) {
  $("no-events").hidden = true;
  $("events").prepend(...news.map((event) => eventItem(event)).reverse());
  while ($("events").childElementCount > LOG_LENGTH) $("events").lastElementChild.remove();
}

// ---- the drawer ----

const drawer = $("drawer");

async function openDrawer(id) {
  view.drawer = { id, parts: null, timer: null };
  drawer.replaceChildren(el("p", { class: "faint", text: "Reading …" }));
  if (!drawer.open) drawer.showModal();
  await refreshDrawer();
}

drawer.addEventListener("close", () => {
  clearTimeout(view.drawer?.timer);
  view.drawer = null;
});
drawer.addEventListener("click", (event) => {
  if (event.target === drawer) drawer.close();
});

async function refreshDrawer() {
  const mine = view.drawer;
  if (!mine) return;
  try {
    const response = await fetch(`command.json?id=${mine.id}`);
    if (view.drawer !== mine) return;
    if (response.ok) drawDrawer(mine, await response.json());
    else if (response.status === 404) closeBecause(mine, "This command is gone.");
  } catch {
    // The header says that the server does not answer.
  }
  clearTimeout(mine.timer);
  if (view.drawer === mine) mine.timer = setTimeout(refreshDrawer, DRAWER_PERIOD);
}

function closeBecause(mine, text) {
  mine.parts = null;
  drawer.replaceChildren(el("p", { text }), el("button", { type: "button", text: "Close", onclick: () => drawer.close() }));
}

function drawerParts(command) {
  const part = (title, ...content) => el("section", {}, el("h3", { text: title }), ...content);
  const parts = {
    state: el("span", { class: "state" }), since: el("span", { class: "since" }), why: el("p", { class: "why" }), remedy: el("p", { class: "remedy" }),
    actions: el("div", { class: "buttons" }), keys: el("tbody"), moreKeys: el("p", { class: "faint" }), calls: el("div", { class: "chart" }), latency: el("div", { class: "chart" }), flight: el("div", { class: "chart" }),
    timeline: el("div", { class: "chart" }), histogram: el("div", { class: "chart" }), lifetime: el("dl", { class: "report" }),
    config: el("tbody"), events: el("ol", { class: "log" }), noEvents: el("p", { class: "empty", text: "None since this page's server began to watch." }),
  };
  const header = (...titles) => el("thead", {}, el("tr", {}, ...titles.map((text) => el("th", { scope: "col", text }))));
  const table = (label, titles, body) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, el("table", {}, header(...titles), body));
  drawer.replaceChildren(
    el("div", { class: "drawer-head" },
      el("div", {}, el("span", { class: "group", text: command.group ?? "" }), el("h2", { id: "drawer-title", text: command.name })),
      el("button", { type: "button", class: "quiet", "aria-label": "Close", text: "✕", onclick: () => drawer.close() })),
    el("p", {}, parts.state, " ", parts.since), parts.why, parts.remedy, parts.actions,
    ...(command.keys_total === null ? [] : [part("Keys, worst first", table("Keys", KEY_COLUMNS, parts.keys), parts.moreKeys)]),
    part("State", parts.timeline), part("Calls per second", parts.calls), part("Latency", parts.latency), part("In flight", parts.flight),
    part("How long calls take now", parts.histogram), part("Events", parts.noEvents, parts.events),
    part("Configuration in force", table("Configuration", ["Setting", "Value", "Default", "Source"], parts.config)),
    part("Since the command was built", parts.lifetime));
  return parts;
}

function drawDrawer(mine, detail) {
  const { command, history } = detail;
  mine.parts ??= drawerParts(command);
  const { parts } = mine;
  mark(drawer, "data-state", command.state);
  mark(drawer, "data-keys", unwellCount(command) === "" ? null : "unwell");
  write(parts.state, unwellCount(command) || `${STATES[command.state].glyph} ${STATES[command.state].word}`);
  write(parts.since, `since ${clock(began(command))}, for ${span(detail.now - began(command))}`);
  write(parts.why, command.hold ? `An operator: “${command.hold.reason}”` : command.opening ? `Opened at ${clock(command.opening.at)}. ${explain(command.opening)}.` : unwellKeys(command));
  write(parts.remedy, command.state === "closed" ? verge(command) : remedy(command));
  drawActions(parts.actions, mine, detail);
  drawKeys(parts, mine, detail);

  const seconds = reach(history.ok);
  parts.timeline.replaceChildren(timelineChart(detail, seconds), ago(seconds));
  const calls = history.ok.map((ok, i) => ok + history.failed[i] + history.refused[i]);
  parts.calls.replaceChildren(
    chart([["area refused", calls], ["area failed", history.ok.map((ok, i) => ok + history.failed[i])], ["area ok", history.ok]], (n) => `${number(n)}/s`),
    key([["ok", "succeeded"], ["failed", "failed"], ["refused", "refused"]]));
  if (history.p99_us.every((us) => us === 0)) parts.latency.replaceChildren(el("p", { class: "empty", text: "None was measured." }));
  else parts.latency.replaceChildren(
    chart([["curve p99", history.p99_us], ["curve p50", history.p50_us]], latency, command.timeout_ms === null ? null : command.timeout_ms * 1000),
    key([["p99", "p99"], ["p50", "p50"], ...(command.timeout_ms === null ? [] : [["limit", `timeout ${latency(command.timeout_ms * 1000)}`]])]));
  parts.flight.replaceChildren(
    chart([["area ok", history.in_flight]], number, command.limit),
    key([["ok", "in flight"], ...(command.limit === null ? [] : [["limit", `limit ${number(command.limit)}`]])]));
  parts.histogram.replaceChildren(...histogram(detail.histogram));

  parts.noEvents.hidden = detail.events.length > 0;
  const unfolded = new Set([...parts.events.querySelectorAll("details[open]")].map((node) => node.dataset.event));
  if (parts.events.dataset.newest !== String(detail.events.at(-1)?.id)) {
    parts.events.replaceChildren(...detail.events.map((event) => eventItem(event, false)).reverse());
    parts.events.dataset.newest = String(detail.events.at(-1)?.id);
    for (const node of parts.events.querySelectorAll("details")) node.open = unfolded.has(node.dataset.event);
  }
  parts.config.replaceChildren(...detail.config.map((setting) => el("tr", { class: setting.value === setting.default ? "" : "differs" },
    el("th", { scope: "row", text: setting.field }), el("td", { text: setting.value }), el("td", { text: setting.default }),
    el("td", { text: setting.changed_at === null ? setting.source : `${setting.source}, ${clock(setting.changed_at)}` }))));
  parts.lifetime.replaceChildren(...Object.entries(detail.lifetime).map(([outcome, n]) =>
    el("div", {}, el("dt", { text: OUTCOMES[outcome] ?? outcome }), el("dd", { text: whole.format(n) }))));
}

const KEY_COLUMNS = ["Key", "State", "Calls", "Errors", "p99", "In flight", "What next"];

/** The circuits of a keyed command. With the right to act, a key can be chosen to act on. */
function drawKeys(parts, mine, { command, keys }) {
  const focused = parts.keys.contains(document.activeElement) ? document.activeElement.textContent : null;
  parts.keys.replaceChildren(...keys.map((circuit) => el("tr", { "data-state": circuit.state }, el("th", { scope: "row" }, keyName(mine, circuit.key)),
    ...keyFacts(circuit).map((text, at) => el("td", { class: at === 0 ? "state" : null, text })))));
  if (focused !== null) [...parts.keys.querySelectorAll("button")].find((button) => button.textContent === focused)?.focus();
  const more = command.keys_total - keys.length;
  write(parts.moreKeys, command.keys_total === 0 ? "None has been used yet." : more > 0 ? `And ${plural(more, "key")} that ${more === 1 ? "is" : "are"} no worse.` : "");
}

function keyName(mine, key) {
  if (model.actions !== "allowed") return key;
  const choose = () => {
    mine.key = mine.key === key ? null : key;
    refreshDrawer();
  };
  return el("button", { type: "button", class: "name", "aria-pressed": String(mine.key === key), title: "Act on this key", text: key, onclick: choose });
}

function keyFacts({ state, rate, calls, errors, error_rate: share, p99_us: p99, in_flight: flight, limit, queued, retry_after_ms: wait, ramp, hold }) {
  const next = {
    open: wait === null ? "waiting" : `probe in ${wait < 1000 ? "a moment" : span(wait)}`,
    half_open: ramp ? recovery(ramp) : "the next call is a probe",
  }[state] ?? (hold ? `“${hold.reason}”${hold.expires_in_ms === null ? "" : `, for ${span(hold.expires_in_ms)}`}` : "");
  return [
    `${STATES[state].glyph} ${STATES[state].word}`, rate === null ? number(calls) : `${number(Math.round(rate))}/s`,
    errors === 0 ? percent(share) : `${percent(share)} (${number(errors)})`, latency(p99), inFlight(flight, limit, queued), next,
  ];
}

const [WIDE, HIGH, SECONDS] = [600, 90, 600];
/** A service that has just begun fills its charts with what there is, from a minute on. */
const reach = (values) => Math.max(60, Math.min(SECONDS, values.length));
const ago = (seconds) => caption([`${span(seconds * 1000)} ago`, "now"]);
const caption = ([left, right]) => el("div", { class: "axis faint", "aria-hidden": "true" }, el("span", { text: left }), el("span", { text: right }));
const key = (entries) => el("p", { class: "key" }, ...entries.map(([kind, text]) => el("span", {}, el("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), text)));

/** One or more series over one scale; the newest second is at the right. */
function chart(series, format, limit = null) {
  const peak = Math.max(1, ...series.flatMap(([, values]) => values));
  // A limit that is far away would flatten what there is to see.
  const showsLimit = limit !== null && limit <= peak * 4;
  const top = showsLimit ? Math.max(peak, limit) : peak;
  const y = (value) => (HIGH - (value / top) * (HIGH - 4)).toFixed(1);
  const seconds = reach(series[0][1]);
  const paths = series.map(([kind, values]) => {
    const x = (i) => (WIDE - ((values.length - 1 - i) * WIDE) / (seconds - 1)).toFixed(1);
    const points = values.map((value, i) => `${x(i)} ${y(value)}`);
    if (points.length === 0) return svg("path", {});
    const line = `M${points.join("L")}`;
    return svg("path", { class: kind, d: kind.startsWith("area") ? `${line}L${WIDE} ${HIGH}L${x(0)} ${HIGH}Z` : line });
  });
  if (showsLimit) paths.push(svg("path", { class: "limit", d: `M0 ${y(limit)}L${WIDE} ${y(limit)}` }));
  const label = `The last ${span(seconds * 1000)}: at most ${format(peak)}, now ${series.map(([kind, values]) => `${kind.split(" ")[1]} ${format(values.at(-1) ?? 0)}`).join(", ")}`;
  return el("div", {}, el("div", { class: "axis faint" }, el("span", { text: `max ${format(peak)}` })),
    svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, ...paths),
    ago(seconds));
}

function timelineChart({ timeline, now, command }, seconds) {
  const start = now - seconds * 1000;
  const x = (ms) => ((ms - start) / (seconds * 1000)) * WIDE;
  const steps = timeline.length > 0 ? timeline : [{ at: command.since, state: command.state }];
  const bands = steps.map(({ at, state }, i) => {
    const from = Math.max(start, at);
    const to = Math.min(now, steps[i + 1]?.at ?? now);
    // Half a second of trouble must be seen as well.
    return to <= start ? null : svg("rect", { class: "band", "data-state": state, x: x(from).toFixed(1), y: state === "closed" ? 18 : 2, width: Math.max(1.5, x(to) - x(from)).toFixed(1), height: state === "closed" ? 6 : 22 });
  });
  const words = steps.slice(-4).map(({ at, state }) => `${STATES[state].word} from ${clock(at)}`).join(", ");
  return svg("svg", { class: "timeline", viewBox: `0 0 ${WIDE} 26`, preserveAspectRatio: "none", role: "img", "aria-label": words }, ...bands.filter(Boolean));
}

function histogram(buckets) {
  if (buckets.length === 0) return [el("p", { class: "empty", text: "No call has ended in the latency window." })];
  // On a logarithmic scale, in which all but the first few buckets are of one width.
  const log = (us) => Math.log2(Math.max(16, us));
  const from = Math.floor(log(buckets[0].from_us));
  const to = Math.ceil(log(Math.min(buckets.at(-1).to_us, 256e6)));
  const most = Math.max(...buckets.map(({ calls }) => calls));
  const x = (us) => ((log(us) - from) / Math.max(1, to - from)) * WIDE;
  const columns = buckets.map(({ from_us, to_us, calls }) => {
    const height = Math.max(1, (calls / most) * (HIGH - 4));
    return svg("rect", { class: "column", x: x(from_us).toFixed(1), width: Math.max(1, x(Math.min(to_us, 256e6)) - x(from_us) - 0.5).toFixed(1), y: (HIGH - height).toFixed(1), height: height.toFixed(1) });
  });
  const total = sum(buckets.map(({ calls }) => calls));
  return [svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, preserveAspectRatio: "none", role: "img", "aria-label": `Latencies of ${plural(total, "call")}, from ${latency(buckets[0].from_us)} to ${latency(buckets.at(-1).to_us)}` }, ...columns),
    caption([latency(2 ** from), latency(2 ** to)])];
}

// ---- actions ----

function drawActions(node, { key = null }, { command, keys }) {
  const circuit = key === null ? command : keys.find((circuit) => circuit.key === key);
  const possible = circuit?.hold ? ["clear", "force_open", "force_closed", "reset"] : ["force_open", "force_closed", "reset"];
  const wanted = model.actions === "off" ? "" : `${model.actions} ${possible} ${key}`;
  if (node.dataset.drawn === wanted) return;
  node.dataset.drawn = wanted;
  node.replaceChildren();
  if (wanted === "") return;
  if (command.keys_total !== null) node.append(el("span", { class: "faint", text: key === null ? "The circuit of keys without room:" : `Key ${key}:` }));
  for (const action of possible) {
    node.append(el("button", { type: "button", class: "quiet", text: `${ACTIONS[action].word} …`, disabled: model.actions !== "allowed", onclick: () => ask(action, command, key) }));
  }
  if (model.actions !== "allowed") node.append(el("span", { class: "faint", text: "You may look, but not act." }));
}

const dialog = $("action");
let asked = null;

function ask(action, { id, name }, key) {
  asked = { action, id, name, key };
  const { word, what, expires } = ACTIONS[action];
  $("action-title").textContent = `${word}: ${name}${key === null ? "" : `[${key}]`}`;
  $("action-what").textContent = what;
  $("action-go").textContent = word;
  $("action-expiry-row").hidden = !expires;
  $("action-expiry").value = "900";
  $("action-reason").value = "";
  $("action-error").textContent = "";
  dialog.showModal();
  $("action-reason").focus();
}

async function act() {
  const reason = $("action-reason").value.trim();
  if (reason === "") {
    $("action-error").textContent = "A reason is needed: whoever looks next will want to know.";
    $("action-reason").focus();
    return;
  }
  const { action, id, name, key } = asked;
  const order = { action, id, command: name, key, reason };
  if (ACTIONS[action].expires) order.expires_in_seconds = Number($("action-expiry").value);
  $("action-go").disabled = true;
  try {
    const response = await fetch("action", {
      method: "POST", headers: { "content-type": "application/json", "x-fusebox-action": "1" }, body: JSON.stringify(order),
    });
    if (response.ok) dialog.close();
    else {
      const text = await response.text();
      let error = text;
      try {
        error = JSON.parse(text).error;
      } catch {
        // It is plain text then.
      }
      $("action-error").textContent = `Refused: ${error}`;
    }
  } catch {
    $("action-error").textContent = "The server does not answer.";
  } finally {
    $("action-go").disabled = false;
  }
  await refreshDrawer();
}

$("action-form").addEventListener("submit", (event) => {
  event.preventDefault();
  act();
});
$("action-cancel").addEventListener("click", () => dialog.close());

// ---- the header ----

function drawHeader() {
  const counts = Object.fromEntries(RANK.map((state) => [state, 0]));
  const groups = new Set();
  for (const { data } of model.commands.values()) {
    counts[data.state] += 1;
    if (data.group) groups.add(data.group);
  }
  for (const state of RANK) {
    let button = $("counts").querySelector(`[data-state="${state}"]`);
    button ??= $("counts").appendChild(el("button", { type: "button", "data-state": state, onclick: () => filterBy(state) }));
    write(button, `${STATES[state].glyph} ${counts[state]} ${STATES[state].word.toLowerCase()}`);
    mark(button, "aria-pressed", view.state === state);
    mark(button, "data-none", counts[state] === 0 ? "true" : null);
  }
  const names = [...groups].sort();
  const select = $("group");
  if (select.dataset.groups !== names.join("\n")) {
    select.dataset.groups = names.join("\n");
    select.replaceChildren(el("option", { value: "", text: "all" }), ...names.map((name) => el("option", { value: name, text: name })));
    select.value = names.includes(view.group) ? view.group : "";
    view.group = select.value;
  }
}

function filterBy(state) {
  view.state = view.state === state ? "" : state;
  redraw();
}

function redraw() {
  drawHeader();
  drawOrder(true);
}

$("search").addEventListener("input", (event) => {
  view.search = event.target.value;
  redraw();
});
$("group").addEventListener("change", (event) => {
  view.group = event.target.value;
  redraw();
});
$("sort").addEventListener("change", (event) => {
  view.sort = event.target.value;
  redraw();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input, textarea, select, dialog")) return;
  event.preventDefault();
  $("search").focus();
});

const THEMES = ["auto", "light", "dark"];
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").textContent = `Theme: ${theme}`;
}
const stored = (() => {
  try {
    return localStorage.getItem("fusebox-theme");
  } catch {
    return null;
  }
})();
setTheme(THEMES.includes(stored) ? stored : "auto");
$("theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  setTheme(next);
  try {
    localStorage.setItem("fusebox-theme", next);
  } catch {
    // It is for this page alone then.
  }
});

// ---- the connection ----

let attempts = 0;

function say(state, text) {
  mark($("link"), "data-link", state);
  write($("link-text"), text);
}

async function readSnapshot() {
  const response = await fetch("snapshot.json");
  if (!response.ok) throw new Error(`${response.status}: ${(await response.text()).trim()}`);
  adopt(await response.json());
}

function connect() {
  const source = new EventSource("stream");
  source.addEventListener("open", async () => {
    try {
      await readSnapshot();
      attempts = 0;
      say("live", "live");
    } catch (error) {
      lose(source, error.message);
    }
  });
  source.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    // Another process answers than the one whose snapshot this page has.
    if (model.instance !== null && message.instance !== model.instance) readSnapshot().catch(() => lose(source, ""));
    else follow(message, false);
  });
  source.addEventListener("error", () => lose(source, ""));
}

/** Gives up a connection, and tries again after a while that grows to ten seconds. */
async function lose(source, why) {
  if (source.lost) return;
  source.lost = true;
  source.close();
  attempts += 1;
  const wait = Math.min(10, 2 ** (attempts - 1));
  say("lost", `disconnected${why ? ` (${why})` : ""}, trying again`);
  if (why === "") {
    // What a stream was refused for, an event source does not tell. If the rest is there, it is the cap on streams.
    try {
      await readSnapshot();
      say("lost", `too many pages are open; figures every ${wait} s`);
    } catch (error) {
      if (!(error instanceof TypeError)) say("lost", error.message);
    }
  }
  setTimeout(connect, wait * 1000);
}

/** A connection may be dead without saying so. */
setInterval(() => {
  const silent = Date.now() - model.heard;
  if ($("link").dataset.link === "live" && silent > 5000) say("silent", `no news for ${span(silent)}`);
  else if ($("link").dataset.link === "silent" && silent <= 5000) say("live", "live");
}, 1000);

$("unstyled").hidden = true;
connect();
