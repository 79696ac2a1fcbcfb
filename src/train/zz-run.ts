import { resolveConfig } from "/work/main/src/config/config.js";
import { train } from "/work/main/src/train/train.js";
import { planRun } from "/work/main/src/train/prepare.js";
const flags = JSON.parse(process.argv[2]!);
const config = resolveConfig({ flags });
if (process.argv[3] === "plan") {
  const p = await planRun(config);
  console.log(p.report.planBytes, p.report.composition, p.trainableParameters);
  process.exit(0);
}
const r = await train(config, {
  onNotice: (n) => console.error(n.code, n.message),
  onPhase: (p) => console.error(p),
  onStep: (e) => console.error(e.step, e.loss, e.seconds),
  onEvaluate: (e) => console.error(e),
  onPlan: (r, f) => console.error(r.planBytes, f),
  onDamaged: (e) => console.error(e.describe()),
});
const { losses, ...rest } = r.summary;
console.log(
  JSON.stringify({ losses: losses.slice(0, 8), ...rest, stepSeconds: rest.stepSeconds.slice(0, 3) }),
  r.result,
);
