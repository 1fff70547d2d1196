// The embedded dashboard in Chromium, fed by the example, whose suppliers do as the tests tell them.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { Server, card, launch, open } from "./support.mjs";

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser.close());

/** Runs a test on a page of a server of its own; the page may do nothing wrong meanwhile. */
async function visit(args, run, options = {}) {
  const server = await Server.start(...args);
  const { page, faults } = await open(browser.context, server.url, options);
  try {
    await page.locator("#link[data-link=live]").waitFor();
    await run(page, server);
    assert.deepEqual(faults, []);
  } finally {
    await page.close();
    await server.stop();
  }
}

const inState = (page, name, state) => card(page, name).and(page.locator(`[data-state="${state}"]`)).waitFor();

/** Without a reason it stops at the complaint. */
async function force(page, name, action, reason, seconds) {
  await card(page, name).locator(".name").click();
  await page.getByRole("button", { name: `${action} …` }).click();
  if (reason) await page.getByLabel("Reason").fill(reason);
  if (seconds) {
    // Nobody waits a minute here; the page passes on what is chosen.
    await page.locator("#action-expiry").evaluate((select, value) => {
      select.options[0].value = value;
      select.value = value;
    }, String(seconds));
  }
  await page.locator("#action-go").click();
  if (!reason) return;
  await page.locator("#action").waitFor({ state: "hidden" });
  await page.keyboard.press("Escape");
  await page.locator("#drawer").waitFor({ state: "hidden" });
}

test("cards appear, follow an outage and its end, and say why and until when", () => visit([], async (page, server) => {
  const name = "payments.charge";
  await inState(page, name, "closed");
  assert.equal(await page.locator(".card").count(), 8);
  assert.equal(await page.locator("#alarm").isVisible(), false);
  await page.locator(".card .verge", { hasText: "opens at 50 %" }).first().waitFor();

  await server.tell(`fail ${name}`);
  await inState(page, name, "open");
  const alarm = page.locator("#sick li", { hasText: name });
  await alarm.locator(".why", { hasText: /The error rate reached 50 %; \d+ of \d+ calls went wrong \(.*\d+ failed/ }).waitFor();
  await alarm.locator(".remedy", { hasText: /next probe in (\d+ s|a moment).*fallbacks answer \d+\/s/ }).waitFor();
  await alarm.locator(".since", { hasText: /since \d\d:\d\d:\d\d, for \d+ s/ }).waitFor();
  assert.match(await page.title(), /^✕ 1 open/);
  await page.locator("#counts button[data-state=open]", { hasText: "✕ 1 open" }).waitFor();
  await page.locator("#announcer p", { hasText: `${name} is now open: the error rate reached 50 %` }).waitFor({ state: "attached" });
  await page.locator("#events li", { hasText: `${name}: Closed → Open` }).first().waitFor();

  // Without callers there is nobody to be the probe.
  await server.tell(`pause ${name}`);
  await inState(page, name, "half_open");
  await alarm.locator(".remedy", { hasText: "the next call is a probe and decides" }).waitFor();
  await server.tell(`heal ${name}`);
  await server.tell(`resume ${name}`);
  await inState(page, name, "closed");
  await page.locator("#alarm").waitFor({ state: "hidden" });
  assert.equal(await page.title(), "fusebox");
}));

test("a command's own page has its charts, its events with their reports, and where each setting is from", () => visit([], async (page, server) => {
  await server.tell("hang inventory.lookup");
  await inState(page, "inventory.lookup", "open");
  await card(page, "inventory.lookup").locator(".name").click();
  const drawer = page.locator("#drawer");
  await drawer.locator(".why", { hasText: /Opened at \d\d:\d\d:\d\d\..*timed out/ }).waitFor();
  assert.equal(await drawer.locator(".chart svg").count(), 5);
  for (const chart of await drawer.locator(".chart svg").all()) assert.notEqual(await chart.getAttribute("aria-label"), "");
  await drawer.locator("summary").first().click();
  await drawer.locator(".report dd", { hasText: /errors of \d/ }).first().waitFor();
  // What is unfolded stays so while the page is refreshed.
  await page.waitForTimeout(2500);
  assert.ok(await drawer.locator(".report dd", { hasText: /errors of \d/ }).first().isVisible());
  const row = drawer.locator("tr", { hasText: "breaker.open_for" });
  assert.deepEqual(await row.locator("th, td").allTextContents(), ["breaker.open_for", "4s", "5s", "set when built"]);
  await drawer.locator("tr", { hasText: "breaker.probes" }).locator("td", { hasText: "default" }).waitFor();
}));

test("of a keyed command the keys that are not well are named", () => visit(["--keyed"], async (page, server) => {
  const name = "partners.api";
  await inState(page, name, "closed");
  await server.tell("fail partner-b");
  const alarm = page.locator("#sick li", { hasText: name });
  await alarm.locator(".state", { hasText: "✕ 1 of 3 keys" }).waitFor();
  await alarm.locator(".why", { hasText: /partner-b: The error rate reached 50 %/ }).waitFor();
  await card(page, name).locator(".line", { hasText: "1 key not well: partner-b" }).waitFor();
  await card(page, name).locator(".state", { hasText: /^✕ 1 of 3 keys · \d+ s$/ }).waitFor();
  await page.locator("#announcer p", { hasText: `${name}: 1 key not well: partner-b (open)` }).waitFor({ state: "attached" });
  assert.equal(await page.locator(".card .name").first().textContent(), name);
  await page.locator("#events li", { hasText: `${name}[partner-b]: Closed → Open` }).first().waitFor();
  await server.tell("heal partner-b");
  await page.locator("#alarm").waitFor({ state: "hidden" });
}));

test("a keyed command's page lists its keys, worst first, and one of them can be acted on", () => visit(["--keyed"], async (page, server) => {
  const name = "partners.api";
  await card(page, name).locator(".verge", { hasText: "3 keys, each with its own circuit" }).waitFor();
  await card(page, name).locator(".rate", { hasText: /^[1-9]\d*\/s$/ }).waitFor();
  await server.tell("fail partner-b");
  await card(page, name).locator(".line", { hasText: "1 key not well" }).waitFor();
  await card(page, name).locator(".name").click();
  const rows = page.locator("#drawer [aria-label=Keys] tbody tr");
  const row = (key) => rows.filter({ has: page.getByRole("button", { name: key, exact: true }) });
  await row("partner-b").filter({ hasText: "probe in" }).waitFor();
  const [key, state, rate, errors, , flight, next] = await rows.first().locator("th, td").allTextContents();
  assert.deepEqual([key, state, flight], ["partner-b", "✕ Open", "0 / 32"]);
  assert.match(rate, /^\d+\/s$/);
  assert.match(errors, /^\d+ % \(\d+\)$/);
  assert.match(next, /^probe in (\d s|a moment)$/);
  assert.equal(await rows.count(), 3);
  await server.tell("heal partner-b");
  await row("partner-b").filter({ hasText: "✓ Closed" }).waitFor();

  await row("partner-c").getByRole("button").press("Enter");
  await page.locator("#drawer .buttons", { hasText: "Key partner-c:" }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "partner-c", "the focus stays");
  await page.getByRole("button", { name: "Force open …" }).click();
  await page.locator("#action-title", { hasText: `Force open: ${name}[partner-c]` }).waitFor();
  await page.getByLabel("Reason").fill("they asked for it");
  await page.locator("#action-go").click();
  await rows.first().filter({ hasText: /partner-c.*Forced open.*“they asked for it”, for 15 min/ }).waitFor();
  await page.locator("#drawer .log li", { hasText: "partner-c: Forced open by an operator until" }).waitFor();
  await page.getByRole("button", { name: "Lift the override …" }).click();
  await page.getByLabel("Reason").fill("they have it");
  await page.locator("#action-go").click();
  await row("partner-c").filter({ hasText: "✓ Closed" }).waitFor();
}));

test("a circuit is forced open with a reason, which everybody sees, and it ends by itself", () => visit([], async (page) => {
  const name = "pricing.quote";
  await inState(page, name, "closed");
  await force(page, name, "Force open", "");
  await page.locator("#action-error", { hasText: "A reason is needed" }).waitFor();
  assert.equal(await page.locator("#action-expiry").inputValue(), "900");
  await page.locator("#action-cancel").click();
  await page.keyboard.press("Escape");

  await force(page, name, "Force open", "vendor maintenance", 6);
  await inState(page, name, "forced_open");
  await card(page, name).locator(".hold", { hasText: "“vendor maintenance”" }).waitFor();
  await card(page, name).locator(".line", { hasText: "the hold ends in" }).waitFor();
  await page.locator("#events li", { hasText: "force_open: vendor maintenance" }).waitFor();
  await inState(page, name, "closed");

  await force(page, name, "Force closed", "it is only the check that fails");
  await inState(page, name, "forced_closed");
  await force(page, name, "Lift the override", "it was not");
  await inState(page, name, "closed");
}));

test("who has no right to act is told so, by the page and by the server", () => visit(["--viewer"], async (page) => {
  const name = "pricing.quote";
  await inState(page, name, "closed");
  await card(page, name).locator(".name").click();
  await page.locator("#drawer", { hasText: "You may look, but not act." }).waitFor();
  assert.ok(await page.getByRole("button", { name: "Force open …" }).isDisabled());
  const status = await page.evaluate(async (command) => {
    const headers = { "content-type": "application/json", "x-fusebox-action": "1" };
    const body = JSON.stringify({ command, action: "force_open", reason: "all the same" });
    return (await fetch("action", { method: "POST", headers, body })).status;
  }, name);
  assert.equal(status, 403);
  await page.waitForTimeout(1500);
  assert.equal(await card(page, name).getAttribute("data-state"), "closed");
}, { expectErrors: ["403"] }));

test("where actions are off there are none", () => visit(["--no-actions"], async (page) => {
  await inState(page, "pricing.quote", "closed");
  await card(page, "pricing.quote").locator(".name").click();
  await page.locator("#drawer h3", { hasText: "Configuration in force" }).waitFor();
  assert.equal(await page.getByRole("button", { name: "Force open …" }).count(), 0);
}));

test("O1: a reason with markup in it stays text", () => visit([], async (page) => {
  const name = "mail.send";
  const reason = "<img src=x onerror=alert(1)><script>alert(1)</script><svg onload=alert(1)>\u202e${alert(1)}";
  await inState(page, name, "closed");
  await force(page, name, "Force open", reason);
  await card(page, name).locator(".name").click();
  await page.locator("#drawer .why", { hasText: reason }).waitFor();
  await page.locator("#drawer .log .text", { hasText: reason }).first().waitFor();
  await page.keyboard.press("Escape");
  for (const place of [card(page, name).locator(".hold"), page.locator("#sick .why"), page.locator("#events li")]) {
    await place.filter({ hasText: reason }).first().waitFor();
  }
  assert.equal(await page.locator("img, body script, iframe, svg[onload]").count(), 0);
}));

test("the page finds its server again, also when it is another one", async () => {
  const first = await Server.start();
  const { page } = await open(browser.context, first.url, {});
  let second;
  try {
    await inState(page, "mail.send", "closed");
    await first.stop();
    await page.locator("#link-text", { hasText: "disconnected" }).waitFor();
    second = await Server.start("--port", String(first.port), "--more", "3");
    await page.locator("#link[data-link=live]").waitFor();
    await inState(page, "fleet.002", "closed");
    assert.equal(await page.locator(".card").count(), 11);
  } finally {
    await page.close();
    await first.stop();
    await second?.stop();
  }
});

test("a sixth page is told that there are too many, and shows figures all the same", async () => {
  const server = await Server.start();
  const pages = [];
  try {
    for (let n = 0; n < 6; n += 1) {
      pages.push((await open(browser.context, server.url, {})).page);
      if (n < 5) await pages[n].locator("#link[data-link=live]").waitFor();
    }
    await pages[5].locator("#link-text", { hasText: "too many pages are open" }).waitFor();
    await card(pages[5], "mail.send").waitFor();
    await pages.shift().close();
    await pages.at(-1).locator("#link[data-link=live]").waitFor();
  } finally {
    for (const page of pages) await page.close();
    await server.stop();
  }
});

test("search, filters and order narrow what is shown; a keyboard is enough", () => visit(["--more", "20"], async (page) => {
  await card(page, "fleet.019").waitFor();
  await page.keyboard.press("/");
  await page.keyboard.type("inventory");
  assert.deepEqual(await page.locator(".card .name").allTextContents(), ["inventory.lookup", "inventory.reserve"]);
  await page.getByLabel("Search").fill("");
  await page.getByLabel("Group").selectOption("catalogue");
  await page.getByLabel("Sort").selectOption("name");
  assert.deepEqual(await page.locator(".card .name").allTextContents(), ["pricing.quote", "recommendations.for_user", "search.products"]);
  await page.locator("#counts button[data-state=open]").click();
  await page.locator("#empty", { hasText: "No command matches" }).waitFor();
  await page.locator("#counts button[data-state=open]").press("Enter");

  await page.locator(".card .name").first().focus();
  await page.keyboard.press("Enter");
  await page.locator("#drawer h2", { hasText: "pricing.quote" }).waitFor();
  await page.keyboard.press("Escape");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "pricing.quote", "the focus is back");
}));

test("each order is by what it says", async () => {
  const server = await Server.start();
  const { page } = await open(browser.context, server.url, {});
  try {
    await server.tell("slow mail.send");
    await server.tell("fail payments.charge");
    await inState(page, "payments.charge", "open");
    // Nothing changes any more, so what is drawn is what was sorted by.
    await server.stop();
    await page.locator("#link-text", { hasText: "disconnected" }).waitFor();
    const sorted = async (order) => {
      await page.getByLabel("Sort").selectOption(order);
      return page.locator(".card").evaluateAll((cards) => cards.map((card) => {
        const facts = Object.fromEntries([...card.querySelectorAll(".facts > div")].map(({ children: [term, value] }) => [term.textContent, value.textContent]));
        const [p99, unit] = facts.p99.split(" ");
        const [now, limit] = facts["in flight"].split(" / ");
        return { name: card.querySelector(".name").textContent, p99: p99 === "–" ? -1 : p99 * { "µs": 1, ms: 1e3, s: 1e6 }[unit], share: now / limit };
      }));
    };
    const falls = (values) => values.every((value, at) => at === 0 || values[at - 1] >= value);
    assert.equal((await sorted("trouble"))[0].name, "payments.charge");
    const names = (await sorted("name")).map(({ name }) => name);
    assert.deepEqual(names, [...names].sort());
    const byLatency = await sorted("p99");
    assert.ok(byLatency.length === 8 && falls(byLatency.map(({ p99 }) => p99)), JSON.stringify(byLatency));
    assert.notEqual(byLatency[0].name, names[0]);
    const bySaturation = await sorted("saturation");
    assert.ok(falls(bySaturation.map(({ share }) => share)), JSON.stringify(bySaturation));
  } finally {
    await page.close();
    await server.stop();
  }
});

for (const scheme of ["light", "dark"]) {
  test(`axe finds nothing, ${scheme}: cards, a command's page, the question before an action, keys`, () => visit(["--keyed"], async (page, server) => {
    await page.emulateMedia({ colorScheme: scheme });
    await server.tell("fail payments.charge");
    await server.tell("slow search.products");
    await inState(page, "payments.charge", "open");
    await force(page, "pricing.quote", "Force open", "a drill");
    await force(page, "mail.send", "Force closed", "a drill");
    await inState(page, "mail.send", "forced_closed");
    await inState(page, "search.products", "open");
    await page.evaluate(axe);
    const check = async (place) => {
      const violations = await page.evaluate(async () => (await globalThis.axe.run()).violations);
      const told = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.target} ${node.failureSummary}`).join("; ")}`);
      assert.deepEqual(told, [], place);
    };
    await check("cards");
    await card(page, "payments.charge").locator(".name").click();
    await page.locator("#drawer table").waitFor();
    await page.locator("#drawer summary").first().click();
    await check("drawer");
    await page.getByRole("button", { name: "Force open …" }).click();
    await check("question");
    await page.locator("#action-cancel").click();
    await page.keyboard.press("Escape");
    await server.tell("fail partner-b");
    await card(page, "partners.api").locator(".state", { hasText: "1 of 3 keys" }).waitFor();
    await card(page, "partners.api").locator(".name").click();
    await page.locator("#drawer [aria-label=Keys] button").first().click();
    await page.locator("#drawer .buttons", { hasText: "Key partner-b:" }).waitFor();
    await check("keys");
  }));
}

test("it fits a phone, and stands still for those who want that", () => visit([], async (page, server) => {
  await page.setViewportSize({ width: 360, height: 740 });
  await page.emulateMedia({ reducedMotion: "reduce" });
  await server.tell("fail payments.charge");
  await inState(page, "payments.charge", "open");
  const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok((await overflow()) <= 0, "nothing beyond the edge");
  assert.equal(await page.locator(".card .disc").first().evaluate((disc) => getComputedStyle(disc).transitionDuration), "0s");
  await card(page, "payments.charge").locator(".name").click();
  await page.locator("#drawer table").waitFor();
  assert.ok((await overflow()) <= 0, "nor on a command's page");
}));

test("500 commands stay smooth", (t) => visit(["--more", "492"], async (page) => {
  await page.waitForFunction(() => document.querySelectorAll(".card").length === 500);
  const frames = async (scrolls) => {
    const times = await page.evaluate(async (scrolls) => {
      const times = [];
      const began = performance.now();
      let last = began;
      while (last - began < 6000) {
        // Scrolling brings cards into sight that have to be made and drawn.
        if (scrolls) scrollTo(0, ((last - began) / 6000) * 30_000);
        const now = await new Promise((resolve) => requestAnimationFrame(resolve));
        times.push(now - last);
        last = now;
      }
      return times.sort((a, b) => a - b);
    }, scrolls);
    const at = (share) => times[Math.min(times.length - 1, Math.floor(times.length * share))];
    t.diagnostic(`${scrolls ? "scrolling" : "at rest"}: ${times.length} frames in 6 s, median ${at(0.5).toFixed(1)} ms, p95 ${at(0.95).toFixed(1)} ms, worst ${at(1).toFixed(1)} ms`);
    return { median: at(0.5), p95: at(0.95), worst: at(1) };
  };
  // Generous: all is drawn in software here, on processors that others use as well. A page that lays all cards out once a
  // second stands still for longer than that.
  const rest = await frames(false);
  assert.ok(rest.median < 50 && rest.p95 < 200 && rest.worst < 1500);
  const scrolling = await frames(true);
  assert.ok(scrolling.median < 250 && scrolling.p95 < 1000 && scrolling.worst < 2000);
}));
