/** Parts of methods beside the packages that they come from, on the same numbers. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { must } from "../../src/errors.js";
import { projected } from "../../src/methods/galore/optimizer.js";
import { projectionOf } from "../../src/methods/galore/projection.js";
import { drawNormal } from "../../src/methods/initial.js";
import { adamw, adamwConfig } from "../../src/optim/adamw.js";
import { e4m3, e5m2, float8Code } from "../../src/storage/float8.js";
import { fourBitId } from "../../src/storage/four-bit.js";
import { layOutPlanes } from "../../src/storage/planes.js";
import { storageFormat } from "../../src/storage/registry.js";
import { largestDifference } from "../../src/testing/method-bench.js";
import { runOptimizer } from "../../src/testing/optimizer-run.js";
import type { Check, Context, Outcome } from "./check.js";
import { within } from "./check.js";

type Answer = Readonly<Record<string, string>>;

async function ask({ python, work }: Context, request: Readonly<Record<string, unknown>>): Promise<Answer> {
  const path = join(work, "methods-request.json");
  await writeFile(path, JSON.stringify(request));
  return (await python.run("torch_methods.py", path)) as Answer;
}

const text = (values: Float32Array): string =>
  Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString("base64");
const bytes = (encoded: string | undefined): Uint8Array =>
  new Uint8Array(Buffer.from(must(encoded, "answer"), "base64"));
const drawn = (name: string, count: number): Float32Array => Float32Array.from(drawNormal(3, name, count));

/** NF4 with double quantisation: every byte that bitsandbytes stores. */
export const nf4Codes: Check = {
  name: "nf4-codes",
  run: async (context) => {
    await context.python.require("torch", "bitsandbytes");
    const count = 576 * 1536;
    const values = drawn("weights", count);
    const format = storageFormat(fourBitId({ type: "nf4", blocksize: 64, double: true }));
    const packed = must(format.encode, "encoder")(values);
    const { offsets } = layOutPlanes(must(format.planes, "planes"), count);
    const answer = await ask(context, { kind: "nf4", values: text(values) });
    return ["codes", "absmax", "nested", "offset"].map((part, index): Outcome => {
      const theirs = bytes(answer[part]);
      const ours = packed.subarray(offsets[index], (offsets[index] ?? 0) + theirs.length);
      const different = theirs.reduce((sum, byte, place) => sum + (byte === ours[place] ? 0 : 1), 0);
      const compared = "a random 576 x 1536 matrix in bitsandbytes and in Thimble";
      return within(`nf4-${part}`, compared, different, 0, `of ${theirs.length} bytes differ`);
    });
  },
};

/** Ten steps of GaLore's AdamW under galore-torch, with one projector. */
export const galoreSteps: Check = {
  name: "galore-steps",
  run: async (context) => {
    await context.python.require("torch", "galore_torch");
    const outcomes: Outcome[] = [];
    for (const shape of [
      [24, 16],
      [16, 24],
    ]) {
      // The sign of a singular vector is free, and moments are kept in it: a renewed projector could not be compared.
      const [count, rank, gap, rate, decay] = [24 * 16, 4, 200, 0.01, 0.1];
      const start = drawn("start", count);
      const gradients = Array.from({ length: 10 }, (_, step) => drawn(`gradient ${step}`, count));
      const settings = { id: "adamw", epsilon: 1e-6, epsilon_place: "raw", weight_decay: decay } as const;
      const projection = projectionOf("std", rank, shape);
      const rules = [false, true].map((renew) =>
        projected(adamw(adamwConfig.parse(settings)), projection, 0.25, renew),
      );
      const { values } = runOptimizer(must(rules[0], "rule"), {
        start: [...start],
        gradients: gradients.map((gradient) => [...gradient]),
        rate,
        shape,
        ruleAt: (step) => must(rules[step % gap === 0 ? 1 : 0], "rule"),
      });
      const request = { kind: "galore", shape, rank, gap, rate, decay, start: text(start) };
      const answer = await ask(context, { ...request, gradients: gradients.map(text) });
      const theirs = new Float32Array(bytes(answer["value"]).buffer);
      const difference = largestDifference(must(values.at(-1), "value"), theirs);
      const name = `galore-${shape.join("x")}`;
      outcomes.push(
        within(name, "ten steps with the projector of the first gradient", difference, 1e-5, "largest difference"),
      );
    }
    return outcomes;
  },
};

/** FP8 codes beside PyTorch's casts, which do not saturate alike: values within range. */
export const float8Codes: Check = {
  name: "float8-codes",
  run: async (context) => {
    await context.python.require("torch");
    const values = Float32Array.from(drawn("values", 100_000), (value, place) => value * 2 ** ((place % 20) - 14));
    const answer = await ask(context, { kind: "float8", values: text(values) });
    return Object.entries({ e4m3, e5m2 }).map(([name, format]): Outcome => {
      const theirs = bytes(answer[name]);
      const different = values.reduce((sum, value, place) => {
        return sum + (Math.abs(value) > 440 || float8Code(format, value) === theirs[place] ? 0 : 1);
      }, 0);
      return within(
        `float8-${name}`,
        "100,000 values cast by PyTorch and coded by Thimble",
        different,
        0,
        "codes differ",
      );
    });
  },
};
