// Hystrix's own dashboard page, fed by our stream in place of its Java proxy. Its files come from a package of the npm
// registry and are not ours to keep; where they cannot be had, this says so and checks nothing.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Server, Storefront, launch } from "./support.mjs";

const modules = fileURLToPath(new URL("node_modules/", import.meta.url));
/** `HYSTRIX_DASHBOARD` may name a folder that has `monitor/monitor.html`. */
const files = process.env.HYSTRIX_DASHBOARD ?? path.join(modules, "hystrix-dashboard", "webapp");
const underscore = path.join(modules, "underscore", "underscore-min.js");
const missing = [path.join(files, "monitor", "monitor.html"), underscore].filter((file) => !existsSync(file));
const skip = missing.length > 0 && `SKIPPED: HYSTRIX'S OWN DASHBOARD WAS NOT CHECKED, ${missing.join(" and ")} cannot be had`;
if (skip) console.error(`\n!! ${skip}\n`);

/** The page's own variables, which hold what it draws with. */
const TEMPLATES = ["hystrixTemplateCircuit", "hystrixTemplateCircuitContainer", "htmlTemplate", "htmlTemplateContainer"];
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".png": "image/png" };

/** Hystrix's page, as if it lay beside the stream of `origin`, which answers for itself. */
async function visit(context, origin) {
  const page = await context.newPage();
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.route(/\/(monitor|css|js|components)\//, async (route) => {
    const file = path.join(files, path.normalize(new URL(route.request().url()).pathname));
    await route.fulfill({ body: await readFile(file), contentType: TYPES[path.extname(file)] ?? "text/plain" });
  });
  await page.route("**/underscore-min.js", async (route) => route.fulfill({ body: await readFile(underscore), contentType: TYPES[".js"] }));
  // The page asks for its templates and for the stream in one breath, and fails on records that come first, from whatever
  // feeds it. That race is its own, so the stream waits here.
  await page.route(/\/proxy\.stream/, async (route) => {
    await page.waitForFunction((names) => names.every((name) => name in window), TEMPLATES);
    await route.continue();
  });
  await page.addInitScript(compare);
  await page.goto(`${origin}/monitor/monitor.html?stream=${encodeURIComponent(`${origin}/hystrix.stream`)}&title=shop`);
  return { page, faults };
}

/** In the page: holds what it has drawn against each record, at the moment at which it has just drawn it. */
function compare() {
  const seen = (window.seen = { circuits: {}, pools: {}, wrong: [] });
  const text = (card, part) => card.querySelector(part).textContent.replace(/\s+/g, " ").trim();
  const check = ({ data }) => {
    const record = JSON.parse(data);
    const isCircuit = record.type === "HystrixCommand";
    const card = document.getElementById(`${isCircuit ? "CIRCUIT" : "THREAD_POOL"}_${record.name}_0`);
    if (!card) return seen.wrong.push(`${record.name}: not drawn`);
    const expect = (what, drawn, said) => drawn === said || seen.wrong.push(`${record.name}: ${what} is ${said}, drawn as ${drawn}`);
    if (isCircuit) {
      const circuit = record.isCircuitBreakerOpen ? "Open" : "Closed";
      const forced = record.propertyValue_circuitBreakerForceClosed ? `[ Forced Closed ] Circuit ${circuit}` : `Circuit ${circuit}`;
      const state = record.propertyValue_circuitBreakerForceOpen ? "Circuit Forced Open" : forced;
      expect("its state", text(card, ".circuitStatus"), state);
      expect("its error percentage", Number(text(card, ".errorPercentage .value")), record.errorPercentage);
      expect("what succeeded", Number(text(card, ".line.success").replace(",", "")), record.rollingCountSuccess);
      const states = (seen.circuits[record.name] ??= {});
      states[state] = (states[state] ?? 0) + 1;
    } else {
      const facts = card.textContent.replace(/\s+/g, " ");
      for (const [word, value] of [["Active", record.currentActiveCount], ["Queued", record.currentQueueSize], ["Pool Size", record.currentPoolSize]]) {
        expect(word, Number(facts.match(new RegExp(`${word} (\\d+)`))?.[1]), value);
      }
      seen.pools[record.name] = (seen.pools[record.name] ?? 0) + 1;
    }
  };
  window.EventSource = class extends EventSource {
    constructor(url) {
      super(url);
      // After the listeners that the page adds in the same breath.
      queueMicrotask(() => this.addEventListener("message", check));
    }
  };
}

test("ST12: Hystrix's own page draws every circuit and every pool with its state", { skip }, async () => {
  const server = await Server.start();
  const { context, close } = await launch();
  try {
    const { page, faults } = await visit(context, new URL(server.url).origin);

    const circuit = (name) => page.locator("#dependencies_0 .monitor", { hasText: name });
    const status = (name, text) => circuit(name).locator(".circuitStatus", { hasText: text }).waitFor();
    await status("payments.charge", "Closed");
    await page.waitForFunction(() => document.querySelectorAll("#dependencies_0 .monitor").length === 8);
    await page.waitForFunction(() => document.querySelectorAll("#dependencyThreadPools_0 .monitor").length === 8);
    assert.equal(await page.locator(".loading").count(), 0, "nothing is still loading");

    await server.tell("fail payments.charge");
    await status("payments.charge", "Open");
    await status("inventory.lookup", "Closed");
    assert.ok(Number(await circuit("payments.charge").locator(".errorPercentage .value").textContent()) >= 50);
    const force = { command: "mail.send", action: "force_open", reason: "a drill" };
    const headers = { "content-type": "application/json", "x-fusebox-action": "1" };
    assert.ok((await fetch(`${server.url}action`, { method: "POST", headers, body: JSON.stringify(force) })).ok);
    await status("mail.send", "Forced Open");
    await server.tell("heal payments.charge");
    await status("payments.charge", "Closed");
    const rate = await circuit("inventory.lookup").locator(".ratePerSecond").textContent();
    assert.ok(Number(rate) > 10, `a rate of ${rate}/s`);
    assert.deepEqual(faults, []);
  } finally {
    await close();
    await server.stop();
  }
});

test("ST12: through the storefront's story the page is never wrong about a circuit or a pool", { skip }, async (t) => {
  const CIRCUITS = ["prices", "recommendations", "stock[1]", "stock[2]", "stock[3]", "stock[4]"];
  const store = await Storefront.start();
  const { context, close } = await launch();
  try {
    const { page, faults } = await visit(context, new URL(store.url).origin);
    await store.toldTheStory;
    const force = async (action, command, key) => {
      const headers = { "content-type": "application/json", "x-fusebox-action": "1" };
      const body = JSON.stringify({ command, key, action, reason: "a drill" });
      assert.ok((await fetch(`${store.url}action`, { method: "POST", headers, body })).ok);
    };
    await force("force_open", "stock", "2");
    await force("force_closed", "prices", null);
    await page.waitForFunction(() => window.seen.circuits["stock[2]"]?.["Circuit Forced Open"] && window.seen.circuits.prices?.["[ Forced Closed ] Circuit Closed"]);

    const { circuits, pools, wrong } = await page.evaluate(() => window.seen);
    for (const [name, states] of Object.entries(circuits)) t.diagnostic(`${name}: ${JSON.stringify(states)}`);
    assert.deepEqual(wrong, []);
    assert.deepEqual(Object.keys(circuits).sort(), [...CIRCUITS, "stock[*]"].sort());
    assert.deepEqual(Object.keys(pools).sort(), Object.keys(circuits).sort());
    for (const name of CIRCUITS) {
      assert.ok(circuits[name]["Circuit Open"] && circuits[name]["Circuit Closed"], `${name} was seen open and closed`);
    }
    assert.deepEqual(faults, []);
  } finally {
    await close();
    await store.stop();
  }
});
