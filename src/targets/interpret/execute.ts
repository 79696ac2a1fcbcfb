import { must } from "../../errors.js";
import type { Node } from "../../ir/node.js";
import type { Tensor } from "../../ir/tensor.js";
import type { Buffer, PlannedStep, PlannedTransfer, ProgramPlan, TargetFacts } from "../../plan/plan.js";
import { unlimited } from "../../plan/plan.js";
import { evaluate } from "./evaluate.js";
import type { ReadBytes } from "./memory.js";
import { tensorFromBytes, tensorToBytes } from "./memory.js";

/** All outputs of a kernel are computed before any is written, so any input may be overwritten. */
export const interpretFacts: TargetFacts = {
  alignment: 64,
  limits: unlimited,
  workspaceBytes: () => 0,
  inPlace: (kernel) => (kernel.kind === "loops" ? kernel.inputs : []),
};

/** NaN as f32 and as bf16; index buffers get zeros instead, so that a wrong read is wrong and not a crash. */
export const poisonPattern = 0x7fc07fc0;

export interface ExecuteOptions {
  readonly poison?: boolean;
  /** Moves bytes between a place on disk and memory, at once. */
  readonly transfer?: (transfer: PlannedTransfer, memory: Uint8Array) => void;
}

/**
 * Runs a planned program inside its arena by the meaning of its kernels. Reads are made when they are asked for and
 * writes when they must be done: if their memory were used by something else in between, the results would show it.
 */
export function executePlan(plan: ProgramPlan, bytes: ReadBytes, options: ExecuteOptions = {}): void {
  if (options.poison === true) for (const buffer of plan.buffers) poison(buffer, bytes);
  const transfers = transfersByStep(plan);
  const move = (index: number): void => {
    for (const transfer of transfers.get(index) ?? []) {
      const { offset, shard } = transfer.memory;
      must(options.transfer, "a way to read and write files")(transfer, bytes(offset, transfer.stored.bytes, shard));
    }
  };
  plan.steps.forEach((step, index) => {
    move(index);
    executeStep(step, bytes);
    if (options.poison === true) {
      for (const buffer of plan.buffers) if (buffer.end === index) poison(buffer, bytes);
    }
  });
  move(plan.steps.length);
}

/** Before which step each transfer is made; a write no later than the next read of the same bytes. */
function transfersByStep({ transfers }: ProgramPlan): Map<number, PlannedTransfer[]> {
  const byStep = new Map<number, PlannedTransfer[]>();
  transfers.forEach((transfer, at) => {
    const again = transfers.find((other, index) => index > at && other.stored === transfer.stored);
    const index = transfer.direction === "read" ? transfer.start : Math.min(transfer.done, again?.start ?? Infinity);
    byStep.set(index, [...(byStep.get(index) ?? []), transfer]);
  });
  return byStep;
}

function poison(buffer: Buffer, bytes: ReadBytes): void {
  const view = bytes(buffer.offset, buffer.bytes, buffer.shard);
  new Uint32Array(view.buffer, view.byteOffset, view.byteLength >>> 2).fill(poisonPattern);
}

function executeStep({ step, inputs, outputs, copies }: PlannedStep, bytes: ReadBytes): void {
  const bindings = new Map<Node, Tensor>();
  step.kernel.inputs.forEach((node, index) => {
    const buffer = must(inputs[index], "input buffer");
    bindings.set(node, tensorFromBytes(node, bytes(buffer.offset, buffer.bytes, buffer.shard)));
  });
  const values = evaluate(step.kernel.outputs, bindings);
  values.forEach((value, index) => {
    const buffer = must(outputs[index], "output buffer");
    tensorToBytes(value, bytes(buffer.offset, buffer.bytes, buffer.shard));
  });
  for (const [from, to] of copies) bytes(to.offset, to.bytes, to.shard).set(bytes(from.offset, to.bytes, from.shard));
}
