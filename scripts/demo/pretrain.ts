/**
 * Pretrains the demo's base model from random weights with Thimble itself, and writes it as one GGUF file.
 *
 *   npx tsx scripts/demo/pretrain.ts MODEL TEXT OUT [--FLAG=VALUE ...]
 *
 * MODEL is the folder that init.ts and tokenizer.ts wrote. Settings come from pretrain.yaml; a flag of `thimble train`
 * replaces one of them (--threads=1, --resume=true). Ctrl-C, or a SIGTERM, ends the run at its next step with a checkpoint, from which
 * --resume=true goes on.
 */
import { fileURLToPath } from "node:url";
import { resolveConfig } from "../../src/config/config.js";
import { readConfigFile } from "../../src/config/file.js";
import { parseFlag, runFlags } from "../../src/config/flags.js";
import { must } from "../../src/errors.js";
import { train } from "../../src/train/train.js";
import type { TrainEvents } from "../../src/train/types.js";

const [, , model, text, out, ...rest] = process.argv;

function flagsOf(assignments: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(
    assignments.map((assignment) => {
      const [name = "", value = ""] = assignment.split("=");
      const spec = must(
        runFlags.find(({ flag }) => flag === name),
        `the flag ${name}`,
      );
      return [spec.key, parseFlag(spec, value)];
    }),
  );
}

const say = (line: string): void => {
  process.stdout.write(`${line}\n`);
};

const events: TrainEvents = {
  onPhase: (phase) => {
    say(phase);
  },
  onNotice: ({ message }) => {
    say(message);
  },
  onPlan: ({ planBytes }, { trainableParameters, compileSeconds }) => {
    say(`${trainableParameters} parameters, ${planBytes} bytes planned, compiled in ${compileSeconds.toFixed(1)} s`);
  },
  onStep: ({ step, loss, rate, seconds, gradientNorm = 0 }) => {
    say(`${step} loss ${loss.toFixed(4)} norm ${gradientNorm.toFixed(2)} rate ${rate} ${seconds.toFixed(2)} s`);
  },
  onEvaluate: ({ step, loss, perplexity }) => {
    say(`${step} held-out loss ${loss.toFixed(4)} perplexity ${perplexity.toFixed(1)}`);
  },
};

const stop = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    stop.abort();
  });
}
const file = await readConfigFile(fileURLToPath(new URL("pretrain.yaml", import.meta.url)));
const flags = {
  model: `file:${must(model, "the model's folder")}`,
  data: [must(text, "the text")],
  out: must(out, "the folder for the run"),
};
const result = await train(resolveConfig({ file, flags: { ...flags, ...flagsOf(rest) } }), events, stop.signal);
say(result.result === undefined ? `stopped after step ${result.step}` : `model in ${result.result}`);
