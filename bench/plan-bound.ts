/**
 * How near every plan is to what is alive at its peak, which no placement can go below:
 * `npx tsx bench/plan-bound.ts [words]` plans the cases whose description has all the words, without weights, and
 * prints those farthest from the bound; `--json FILE` writes all. Fails if a plan exceeds the bound by more than 2 %.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { planOnly } from "../src/session/open.js";
import { describeCase, optionsOf, planCases, publishedModels, tinyModels } from "../src/testing/plan-cases.js";

const { values, positionals } = parseArgs({
  options: { json: { type: "string" }, show: { type: "string", default: "20" } },
  allowPositionals: true,
});
const goal = 1.02;

interface Row {
  readonly name: string;
  readonly planBytes: number;
  readonly boundBytes: number;
  /** Plan over bound, and the same for the largest program alone, without what lives on between steps. */
  readonly ratio: number;
  readonly transientRatio: number;
  /** The step at which most is alive. */
  readonly peak: string;
}

function measure(entry: Parameters<typeof optionsOf>[0]): Row {
  const { report, plans } = planOnly(optionsOf(entry));
  const { planBytes, boundBytes } = report;
  const largest = plans.reduce((best, plan) => (plan.extent > best.extent ? plan : best));
  const program = report.programs.find(({ name }) => name === largest.name);
  return {
    name: describeCase(entry),
    planBytes,
    boundBytes,
    ratio: planBytes / boundBytes,
    transientRatio: largest.bound === 0 ? 1 : largest.extent / largest.bound,
    peak: program?.peak.label ?? "",
  };
}

const rows = planCases([...tinyModels, ...publishedModels])
  .filter((entry) => positionals.every((word) => describeCase(entry).split(" ").includes(word)))
  .map((entry) => {
    const row = measure(entry);
    if (row.ratio > goal) process.stderr.write(`${row.name}: ${row.ratio.toFixed(4)}\n`);
    return row;
  })
  .sort((a, b) => b.transientRatio - a.transientRatio);

for (const { name, planBytes, ratio, transientRatio, peak } of rows.slice(0, Number(values.show))) {
  const size = `${(planBytes / 2 ** 20).toFixed(1)} MiB`;
  console.log(`${ratio.toFixed(4)}  ${transientRatio.toFixed(4)}  ${size.padStart(13)}  ${name}  (${peak})`);
}
const over = rows.filter(({ ratio }) => ratio > goal).length;
const worst = rows.reduce((most, { ratio }) => Math.max(most, ratio), 0);
console.log(`${rows.length} plans; the worst takes ${worst.toFixed(4)} times its bound; ${over} more than ${goal}`);
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(rows, undefined, 1)}\n`);
process.exitCode = over > 0 ? 1 : 0;
