/**
 * Bytes of a plan against the length of its rows, without weights or a compiler: `npx tsx bench/memory.ts --data DIR`.
 * DIR is the folder that the yardstick's prepare.py wrote. Writes bench/results/memory.json.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { parseArgs } from "node:util";
import { runSchema } from "../src/config/schema.js";
import { plan } from "../src/index.js";
import type { MemoryCurves } from "./side-by-side/curves.js";

const { values } = parseArgs({
  options: { data: { type: "string" }, out: { type: "string", default: "bench/results/memory.json" } },
});
if (values.data === undefined) {
  console.error("skipped: give --data (the folder that the yardstick's prepare.py wrote)");
  process.exit(2);
}
const lengths = [256, 512, 1024, 2048, 4096, 8192];
const variants = {
  default: {},
  "blocks computed again": { recompute: "block" },
  ...("memoryBudget" in runSchema.shape ? { "smallest budget": { memoryBudget: "min" } } : {}),
} as const;

const curves: MemoryCurves["curves"] = [];
for (const dtype of ["f32", "bf16"] as const) {
  for (const [variant, settings] of Object.entries(variants)) {
    const points: { seq: number; planBytes: number; boundBytes: number }[] = [];
    for (const seq of lengths) {
      const model = `file:${values.data}/smollm2`;
      const { report } = await plan({ model, method: "lora", dtype, batch: 1, seq, ...settings });
      points.push({ seq, planBytes: report.planBytes, boundBytes: report.boundBytes });
      console.error(`lora ${dtype} 1x${seq} ${variant}: ${(report.planBytes / 2 ** 20).toFixed(0)} MiB`);
    }
    curves.push({ method: "lora", dtype, batch: 1, variant, points });
  }
}
const result: MemoryCurves = { model: "SmolLM2-135M", curves };
mkdirSync(dirname(values.out), { recursive: true });
writeFileSync(values.out, `${JSON.stringify(result, undefined, 2)}\n`);
