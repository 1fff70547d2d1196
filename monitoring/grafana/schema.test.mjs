// fusebox.json is a dashboard to Grafana's own types, and each mistake that is planted in it is found.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import test, { after, before } from "node:test";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL("./", import.meta.url));
const dashboard = JSON.parse(await readFile(path.join(here, "fusebox.json"), "utf8"));
const panel = (dashboard, type) => dashboard.panels.find((panel) => panel.type === type);

/** Mistakes, each of which Grafana would pass over in silence and draw something else. */
const mistakes = {
  "a unit that is a number": (d) => (panel(d, "timeseries").fieldConfig.defaults.unit = 1),
  "a kind of panel that there is not": (d) => (panel(d, "stat").type = "singlestat"),
  "an option of another kind of panel": (d) => (panel(d, "stat").options.mergeValues = true),
  "a style of line that there is not": (d) => (panel(d, "timeseries").fieldConfig.defaults.custom.drawStyle = "lines"),
  "a misspelt option of a field": (d) => (panel(d, "timeseries").fieldConfig.defaults.custom.fillOpactiy = 1),
  "a heatmap without its colours": (d) => delete panel(d, "heatmap").options.color,
  "a query without an expression": (d) => delete panel(d, "state-timeline").targets[0].expr,
  "a format that there is not": (d) => (panel(d, "heatmap").targets[0].format = "heat"),
  "a mapping without its type": (d) => delete panel(d, "state-timeline").fieldConfig.defaults.mappings[0].type,
  "a threshold without a colour": (d) => delete panel(d, "stat").fieldConfig.defaults.thresholds.steps[0].color,
  "a panel without a place": (d) => delete panel(d, "table").gridPos,
  "a fixed data source": (d) => (panel(d, "table").datasource.uid = "prometheus-1"),
  "a variable of no type": (d) => delete d.templating.list[1].type,
  "an unknown time of refresh": (d) => (d.templating.list[1].refresh = 3),
  "an annotation without a colour": (d) => delete d.annotations.list[0].iconColor,
  "an annotation without an expression": (d) => delete d.annotations.list[0].expr,
  "a key that no dashboard has": (d) => (d.pannels = []),
  "no schema version": (d) => delete d.schemaVersion,
};

let folder;
let complaints;

// One run of the compiler for all: each dashboard is a file of its own, and what is said of it bears its name.
before(async () => {
  folder = await mkdtemp(path.join(here, "node_modules", "fusebox-"));
  const files = { "as it is": dashboard };
  for (const [name, plant] of Object.entries(mistakes)) plant((files[name] = structuredClone(dashboard)));
  const names = Object.keys(files);
  const paths = names.map((_, n) => path.join(folder, `dashboard-${n}.ts`));
  const text = (dashboard) =>
    `import type { Dashboard } from "../../schema";\nexport const dashboard: Dashboard = ${JSON.stringify(dashboard, null, 2)};\n`;
  await Promise.all(names.map((name, n) => writeFile(paths[n], text(files[name]))));
  const flags = ["--noEmit", "--strict", "--skipLibCheck", "--target", "esnext", "--module", "preserve", "--pretty", "false"];
  const said = await tsc([...flags, ...paths]);
  complaints = Object.fromEntries(names.map((name, n) => [name, said.filter((line) => line.includes(`dashboard-${n}.ts`))]));
  // Anything else that is said is about our types.
  assert.deepEqual(said.filter((line) => /\berror TS/.test(line) && !/dashboard-\d+\.ts/.test(line)), []);
});

after(() => rm(folder, { recursive: true }));

function tsc(args) {
  const compiler = path.join(here, "node_modules", ".bin", "tsc");
  return new Promise((resolve, reject) => {
    execFile(compiler, args, { cwd: here }, (error, stdout, stderr) => {
      // It exits with 1 or 2 if it found something.
      if (error && typeof error.code !== "number") reject(error);
      else resolve(`${stdout}${stderr}`.split("\n").filter(Boolean));
    });
  });
}

test("the dashboard is one to Grafana's types", () => {
  assert.deepEqual(complaints["as it is"], []);
});

for (const name of Object.keys(mistakes)) {
  test(`found: ${name}`, () => assert.notDeepEqual(complaints[name], []));
}

test("panels have ids of their own and do not overlap", () => {
  const ids = dashboard.panels.map((panel) => panel.id);
  assert.equal(new Set(ids).size, ids.length);
  const taken = new Map();
  for (const { title, gridPos: { x, y, w, h } } of dashboard.panels) {
    assert.ok(x + w <= 24, `${title} is too wide`);
    for (let cell = 0; cell < w * h; cell++) {
      const place = `${x + (cell % w)}, ${y + Math.floor(cell / w)}`;
      assert.equal(taken.get(place), undefined, `${title} lies at ${place} as well`);
      taken.set(place, title);
    }
  }
});
