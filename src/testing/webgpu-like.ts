import { must } from "../errors.js";
import type { Range } from "../plan/bindings.js";
import { rangesOf } from "../plan/bindings.js";
import type { Address, Buffer, PlannedStep, ProgramPlan, TargetFacts, TargetLimits } from "../plan/plan.js";
import { interpretFacts } from "../targets/interpret/execute.js";
import type { ReadBytes } from "../targets/interpret/memory.js";

/** WebGPU's default limits: `maxBufferSize`, `maxStorageBufferBindingSize`, `maxStorageBuffersPerShaderStage`. */
export const webgpuLimits: TargetLimits = { largestShard: 256 * 2 ** 20, largestBinding: 128 * 2 ** 20, bindings: 8 };

/** A target that allocates and binds like WebGPU and computes like the interpreter. */
export function webgpuLikeFacts(limits: TargetLimits = webgpuLimits): TargetFacts {
  // minStorageBufferOffsetAlignment
  return { ...interpretFacts, alignment: 256, limits };
}

/** Memory in as many allocations as a plan has shards. */
export class ShardedMemory {
  readonly #shards: readonly ArrayBuffer[];

  constructor(sizes: readonly number[]) {
    this.#shards = sizes.map((size) => new ArrayBuffer(size));
  }

  readonly bytes: ReadBytes = (offset, length, shard) =>
    new Uint8Array(must(this.#shards[shard], "shard"), offset, length);

  of({ shard, offset, bytes }: Buffer): Uint8Array {
    return this.bytes(offset, bytes, shard);
  }
}

/** What a plan does that its target would refuse; empty for a good plan. */
export function checkBindings(plan: ProgramPlan, facts: TargetFacts): string[] {
  const faults = plan.shards.flatMap((size, shard) =>
    size > facts.limits.largestShard ? [`shard ${shard} has ${size} bytes`] : [],
  );
  plan.steps.forEach((step, index) => {
    for (const fault of [...bindingFaults(step, plan, facts), ...sharingFaults(step, facts), ...copyFaults(step)]) {
      faults.push(`step ${index} (${step.step.kernel.outputs[0]?.op.name ?? ""}): ${fault}`);
    }
  });
  return faults;
}

const endOf = ({ offset, bytes }: Range): number => offset + bytes;
const sameShard = (a: Address, b: Address): boolean => a.tier === b.tier && a.shard === b.shard;
const overlaps = (a: Range, b: Range): boolean => sameShard(a, b) && a.offset < endOf(b) && b.offset < endOf(a);
const equal = (a: Range, b: Range): boolean => sameShard(a, b) && a.offset === b.offset && a.bytes === b.bytes;
const holds = (a: Range, b: Range): boolean => sameShard(a, b) && a.offset <= b.offset && endOf(b) <= endOf(a);
const text = ({ shard, offset, bytes }: Range): string => `${shard}:${offset}+${bytes}`;

/** Every range is bound for reading and writing, so no two ranges of a step may overlap. */
function bindingFaults(step: PlannedStep, plan: ProgramPlan, facts: TargetFacts): string[] {
  const { alignment, limits } = facts;
  const ranges = rangesOf(step, facts);
  const faults: string[] = [];
  if (ranges.length > limits.bindings) faults.push(`${ranges.length} bindings`);
  for (const range of ranges) {
    const number = limits.bindings === Infinity && range.bytes === 4;
    if (!number && range.offset % alignment !== 0) faults.push(`${text(range)} is not aligned`);
    if (range.bytes > limits.largestBinding) faults.push(`${text(range)} is too large to bind`);
    if (endOf(range) > (plan.shards[range.shard] ?? 0)) faults.push(`${text(range)} leaves its shard`);
  }
  ranges.forEach((a, place) => {
    for (const b of ranges.slice(place + 1)) if (overlaps(a, b)) faults.push(`${text(a)} and ${text(b)} overlap`);
  });
  for (const buffer of buffersOf(step)) {
    if (!ranges.some((range) => holds(range, buffer))) faults.push(`${buffer.name} is not bound`);
  }
  return faults;
}

/** What is written is apart from everything else that the kernel reaches, or takes over the memory of one input. */
function sharingFaults({ step, inputs, outputs, workspace }: PlannedStep, facts: TargetFacts): string[] {
  const faults: string[] = [];
  outputs.forEach((output, place) => {
    const node = must(step.kernel.outputs[place], "output");
    const allowed = facts.inPlace(step.kernel, node);
    inputs.forEach((input, at) => {
      if (!overlaps(output, input)) return;
      const inPlace = equal(output, input) && allowed.includes(must(step.kernel.inputs[at], "input"));
      if (!inPlace) faults.push(`${output.name} overwrites ${input.name}`);
    });
    const rest = [...outputs.slice(place + 1), ...(workspace === undefined ? [] : [workspace])];
    for (const other of rest) if (overlaps(output, other)) faults.push(`${output.name} and ${other.name} collide`);
  });
  if (workspace !== undefined && inputs.some((input) => overlaps(workspace, input)))
    faults.push("scratch is not its own");
  return faults;
}

function copyFaults({ copies }: PlannedStep): string[] {
  return copies.flatMap(([from, to]) => (overlaps(from, to) ? [`a copy of ${from.name} onto itself`] : []));
}

function buffersOf({ inputs, outputs, workspace }: PlannedStep): Buffer[] {
  return [...inputs, ...outputs, ...(workspace === undefined ? [] : [workspace])];
}
