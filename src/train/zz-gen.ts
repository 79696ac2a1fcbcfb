import { resolveConfig } from "../config/config.js";
import { generationSchema } from "../config/generation.js";
import { TextGenerator } from "./generate.js";
import { exportModel } from "./export/export.js";
import { evaluate } from "./evaluate.js";
const flags = JSON.parse(process.argv[3]!);
const config = resolveConfig({ flags });
if (process.argv[2] === "gen") {
  const g = await TextGenerator.open(config, {});
  const s = generationSchema.parse({ temperature: 0, maxTokens: 24 });
  const r = await g.generate("Call me Ishmael. Some years ago", s, (t) => process.stdout.write(t));
  console.log("\n", r.ids.join(" "), r.ended, r.tokensPerSecond, g.peak);
  const c = await g.chat([{role:"user",content:"What is the capital of France?"}], s, (t) => process.stdout.write(t));
  console.log("\n", c);
  g.close();
} else if (process.argv[2] === "eval") console.log(await evaluate(config, {compare: true}));
else console.log(await exportModel(config, { format: process.argv[2] as "gguf", out: process.argv[4]!, ...(process.argv[5] ? {type: process.argv[5] as "f32"} : {}) }));
