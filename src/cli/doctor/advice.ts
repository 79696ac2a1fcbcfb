import { availableParallelism } from "node:os";
import { bytes } from "../format.js";
import type { MachineReport } from "./types.js";

const little = 2 * 2 ** 30;

/** What a person can do to make this machine faster, or to make it work at all; a sentence each. */
export function adviseMachine(facts: Omit<MachineReport, "advice">): string[] {
  const { targets, extensions, threads, memoryFree, cache } = facts;
  const c = targets.find(({ name }) => name === "c");
  const unused = extensions.filter(({ processor, compiler }) => processor === true && !compiler);
  const has = (name: string): boolean => extensions.some((one) => one.name === name && one.compiler);
  const x86 = extensions.some(({ name }) => name === "AVX2");
  const cores = availableParallelism();
  const when: readonly (readonly [boolean, string])[] = [
    [c?.works === false, c?.fix ?? "Install a C compiler."],
    [!cache.usable, `The cache folder ${cache.folder} cannot be used: set THIMBLE_CACHE to a folder of yours.`],
    [
      c?.works === true && unused.length > 0,
      `The compiler does not use ${unused.map(({ name }) => name).join(", ")}, which the processor has: a newer gcc or clang (set CC) makes products faster.`,
    ],
    [
      c?.works === true && x86 && !has("AVX2"),
      "The processor has no AVX2: products run on 4 values at once. A machine from 2014 or later is several times faster.",
    ],
    [
      c?.works === true && x86 && has("AVX2") && !has("AVX-512"),
      "The processor has no AVX-512; one that has it multiplies up to twice as fast.",
    ],
    [
      c?.works === true && x86 && has("AVX-512") && !has("AVX-512 BF16"),
      "The processor multiplies no bf16 by itself: --dtype bf16 saves memory here, not time.",
    ],
    [threads < cores, `A limit on this process leaves it ${threads} of ${cores} cores.`],
    [
      memoryFree < little,
      `Only ${bytes(memoryFree)} of memory is free; close other programs, or plan for less with thimble plan.`,
    ],
  ];
  return when.filter(([applies]) => applies).map(([, advice]) => advice);
}
