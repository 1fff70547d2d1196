// Takes the pictures of the docs: node screenshots.mjs. They are looked at before they are kept.

import path from "node:path";
import { fileURLToPath } from "node:url";
import { Server, card, launch, open } from "./support.mjs";

const folder = fileURLToPath(new URL("../../examples/dashboard/", import.meta.url));
const server = await Server.start();
const { context, close } = await launch();
const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
try {
  const { page } = await open(context, server.url);
  await page.setViewportSize({ width: 1440, height: 960 });
  await card(page, "mail.send").waitFor();
  await pause(100);
  await page.evaluate(async () => {
    const body = JSON.stringify({ command: "mail.send", action: "force_open", reason: "provider is under maintenance until 04:00, ticket 4711", expires_in_seconds: 3600 });
    await fetch("action", { method: "POST", headers: { "content-type": "application/json", "x-fusebox-action": "1" }, body });
  });
  await server.tell("slow search.products");
  await pause(3);
  await server.tell("fail payments.charge");
  await pause(18);
  const shoot = (name) => page.screenshot({ path: path.join(folder, `${name}.png`) });
  await page.emulateMedia({ colorScheme: "light" });
  await shoot("light");
  await page.emulateMedia({ colorScheme: "dark" });
  await shoot("dark");
  await card(page, "payments.charge").locator(".name").click();
  await page.locator("#drawer table").waitFor();
  await pause(1);
  await shoot("command");
  await page.keyboard.press("Escape");
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "light" });
  await page.evaluate(() => document.activeElement.blur());
  await pause(2);
  await shoot("narrow");
} finally {
  await close();
  await server.stop();
}
