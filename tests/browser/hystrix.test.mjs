// Hystrix's own dashboard page, fed by our stream in place of its Java proxy. Its files come from a package of the npm
// registry and are not ours to keep; where they cannot be had, this says so and checks nothing.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { Server, launch } from "./support.mjs";

const modules = fileURLToPath(new URL("node_modules/", import.meta.url));
/** `HYSTRIX_DASHBOARD` may name a folder that has `monitor/monitor.html`. */
const files = process.env.HYSTRIX_DASHBOARD ?? path.join(modules, "hystrix-dashboard", "webapp");
const underscore = path.join(modules, "underscore", "underscore-min.js");
const missing = [path.join(files, "monitor", "monitor.html"), underscore].filter((file) => !existsSync(file));
const skip = missing.length > 0 && `SKIPPED: HYSTRIX'S OWN DASHBOARD WAS NOT CHECKED, ${missing.join(" and ")} cannot be had`;
if (skip) console.error(`\n!! ${skip}\n`);

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".png": "image/png" };

test("ST12: Hystrix's own page draws every circuit and every pool with its state", { skip }, async () => {
  const server = await Server.start();
  const { context, close } = await launch();
  try {
    const origin = new URL(server.url).origin;
    const page = await context.newPage();
    const faults = [];
    // Records that come before the page has its templates are an error of its own, with whatever feeds it.
    page.on("pageerror", (error) => error.message.includes("htmlTemplateContainer") || faults.push(String(error)));
    // The page and its parts are served as if they lay beside our stream, which answers for itself.
    await page.route(/\/(monitor|css|js|components)\//, async (route) => {
      const file = path.join(files, path.normalize(new URL(route.request().url()).pathname));
      await route.fulfill({ body: await readFile(file), contentType: TYPES[path.extname(file)] ?? "text/plain" });
    });
    await page.route("**/underscore-min.js", async (route) => route.fulfill({ body: await readFile(underscore), contentType: TYPES[".js"] }));
    await page.goto(`${origin}/monitor/monitor.html?stream=${encodeURIComponent(`${origin}/hystrix.stream`)}&title=shop`);

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
