// What the browser tests have in common: the example server, told what to do by lines of text, and Chromium.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import readline from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const root = fileURLToPath(new URL("../../", import.meta.url));
const target = process.env.CARGO_TARGET_DIR ?? path.join(root, "target");

/** The built examples. Whoever runs these tests builds them first; `.ci/run` does. */
const program = process.env.FUSEBOX_DASHBOARD ?? path.join(target, "release", "examples", "dashboard");
const storefront = process.env.FUSEBOX_STOREFRONT ?? path.join(target, "release", "examples", "storefront");

/** The example, running. */
export class Server {
  static async start(...args) {
    const child = spawn(program, args, { stdio: ["pipe", "pipe", "inherit"] });
    const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const server = new Server(child, lines);
    server.url = (await server.line()).trim();
    await server.line();
    return server;
  }

  constructor(child, lines) {
    Object.assign(this, { child, lines });
    this.ended = new Promise((resolve) => child.once("close", resolve));
  }

  get port() {
    return Number(new URL(this.url).port);
  }

  async line() {
    const { value, done } = await this.lines.next();
    if (done) throw new Error(`${program} ended; is it built?`);
    return value;
  }

  /** Tells it something, and waits until it is so. */
  async tell(order) {
    this.child.stdin.write(`${order}\n`);
    const answer = await this.line();
    if (answer !== `${order}: done`) throw new Error(answer);
  }

  async stop() {
    this.child.kill();
    await this.ended;
  }
}

/** The storefront, which plays its story once and then goes on serving. */
export class Storefront {
  static async start() {
    const child = spawn(storefront, ["--short", "--plain", "--keep"], { stdio: ["ignore", "pipe", "inherit"] });
    const store = new Storefront();
    store.ended = new Promise((resolve) => child.once("close", resolve));
    const lines = readline.createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const find = async (pattern) => {
      for (;;) {
        const { value, done } = await lines.next();
        if (done) throw new Error(`${storefront} ended; is it built?`);
        const found = value.match(pattern);
        if (found) return found[1];
      }
    };
    store.child = child;
    store.url = await find(/^dashboard: (\S+)/);
    store.toldTheStory = find(/(stay up until ctrl-c)/);
    return store;
  }

  async stop() {
    this.child.kill();
    await this.ended;
  }
}

/** A browser with an empty profile, that talks to nobody but the pages it is given. */
export async function launch() {
  const profile = await mkdtemp(path.join(tmpdir(), "fusebox-browser-"));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    viewport: { width: 1440, height: 900 },
    timezoneId: "UTC",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
  context.setDefaultTimeout(30_000);
  return { context, close: async () => { await context.close(); await rm(profile, { recursive: true, force: true }); } };
}

/** A page that must behave: any error of its own, any dialog and any request to elsewhere fails the test. */
export async function open(context, url, { expectErrors = [] } = {}) {
  const page = await context.newPage();
  const faults = [];
  const origin = new URL(url).origin;
  page.on("pageerror", (error) => faults.push(`error: ${error}`));
  page.on("dialog", (dialog) => { faults.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
  page.on("request", (request) => { if (!request.url().startsWith(origin)) faults.push(`request: ${request.url()}`); });
  page.on("console", (message) => {
    const isExpected = expectErrors.some((text) => message.text().includes(text));
    if (message.type() === "error" && !isExpected) faults.push(`console: ${message.text()} ${message.location().url}`);
  });
  await page.goto(url);
  return { page, faults };
}

export const card = (page, name) => page.locator(".card", { has: page.getByRole("button", { name, exact: true }) });
