/** Trains as the settings in its first argument say, a line on stdout a step: what the kill tests kill. */
import { resolveConfig } from "../../config/config.js";
import { train } from "../train.js";

const flags = JSON.parse(process.argv[2] ?? "{}") as Record<string, unknown>;
await train(resolveConfig({ flags }), {
  onStep: ({ step }) => {
    process.stdout.write(`step ${step}\n`);
  },
});
process.stdout.write("done\n");
