import { invariant, must } from "../errors.js";
import { sizeOf } from "../ir/dtype.js";
import type { Node } from "../ir/node.js";
import { elements } from "../ir/shape.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import type { Kernel } from "../passes/kernels.js";
import { storageOf } from "../passes/kernels.js";
import type { Instance, Schedule, Step } from "../passes/schedule.js";
import { bytesOf as storedBytes } from "../storage/format.js";
import { storageFormat } from "../storage/registry.js";
import { placeIntervals } from "./offsets.js";

/** What a byte of the plan is for. */
export type Kind = "weights" | "gradients" | "states" | "saved" | "workspace";

/** What the planner must know of a target. */
export interface TargetFacts {
  /** Every address is a multiple of this many bytes. */
  readonly alignment: number;
  /** Scratch memory of one kernel, all threads together. */
  workspaceBytes(kernel: Kernel): number;
  /** Inputs whose memory an output may take over while the kernel runs. */
  inPlace(kernel: Kernel, output: Node): readonly Node[];
}

export interface Buffer {
  readonly name: string;
  readonly kind: Kind;
  readonly bytes: number;
  /** From the start of the arena. */
  readonly offset: number;
  /** Steps at which it is alive, inclusive; a persistent buffer is always. */
  readonly start: number;
  readonly end: number;
}

export interface PlannedStep {
  readonly step: Step;
  /** Memory of each read and write, in the order of the kernel's inputs and outputs. */
  readonly inputs: readonly Buffer[];
  readonly outputs: readonly Buffer[];
  readonly workspace: Buffer | undefined;
  /** Copies to make after the kernel: [from, to]. */
  readonly copies: readonly (readonly [Buffer, Buffer])[];
}

/** Memory that outlives a program: weights, states, accumulators, inputs. */
export interface PersistentLayout {
  readonly buffers: ReadonlyMap<string, Buffer>;
  readonly bytes: number;
}

export interface ProgramPlan {
  readonly name: string;
  readonly steps: readonly PlannedStep[];
  readonly buffers: readonly Buffer[];
  /** Host-read outputs. */
  readonly outputs: ReadonlyMap<string, { readonly buffer: Buffer; readonly node: Node }>;
  /** Bytes after the persistent ones. */
  readonly extent: number;
  /** The most bytes alive at one step: what no placement can go below. */
  readonly bound: number;
}

const kindOfRole = { weight: "weights", state: "states", accumulator: "gradients", input: "workspace" } as const;

export const round = (bytes: number, alignment: number): number => Math.ceil(bytes / alignment) * alignment;

/** Bytes of a value as it lies in memory. */
export function bytesOfValue(node: Node): number {
  if (node.op !== leafOp) return elements(node.shape) * sizeOf(node.dtype);
  const { format, shape, dtype } = leafAttributes(node);
  return format === dtype ? elements(shape) * sizeOf(dtype) : storedBytes(storageFormat(format), shape);
}

/** Places every leaf of the programs, one after another. */
export function layOutLeaves(leaves: Iterable<Node>, alignment: number): PersistentLayout {
  const buffers = new Map<string, Buffer>();
  let offset = 0;
  for (const leaf of leaves) {
    const { name, role } = leafAttributes(leaf);
    if (buffers.has(name)) continue;
    const bytes = round(bytesOfValue(leaf), alignment);
    buffers.set(name, { name, kind: kindOfRole[role], bytes, offset, start: 0, end: Infinity });
    offset += bytes;
  }
  return { buffers, bytes: offset };
}

interface Draft {
  readonly name: string;
  kind: Kind;
  readonly bytes: number;
  readonly start: number;
  end: number;
  persistent?: Buffer;
}

/** Decides where every value of a scheduled program lies. */
export function planProgram(
  name: string,
  schedule: Schedule,
  outputs: Readonly<Record<string, Node>>,
  gradients: readonly Node[],
  layout: PersistentLayout,
  facts: TargetFacts,
): ProgramPlan {
  const drafts = new DraftBuffers(schedule, layout, facts, new Set(gradients.map(storageOf)), Object.values(outputs));
  const steps = schedule.steps.map((step, index) => drafts.take(step, index));
  for (const node of Object.values(outputs)) drafts.keep(node, schedule.steps.length);
  const all = drafts.transient;
  const placement = placeIntervals(all);
  const placed = new Map<Draft, Buffer>();
  all.forEach((draft, index) => {
    placed.set(draft, { ...draft, offset: layout.bytes + must(placement.offsets[index], "offset") });
  });
  const buffer = (draft: Draft): Buffer => draft.persistent ?? must(placed.get(draft), "placement");
  return {
    name,
    steps: steps.map((entry) => ({
      step: entry.step,
      inputs: entry.inputs.map(buffer),
      outputs: entry.outputs.map(buffer),
      workspace: entry.workspace === undefined ? undefined : buffer(entry.workspace),
      copies: entry.copies.map(([from, to]) => [buffer(from), buffer(to)] as const),
    })),
    buffers: all.map(buffer),
    outputs: new Map(Object.entries(outputs).map(([key, node]) => [key, { buffer: buffer(drafts.last(node)), node }])),
    extent: placement.extent,
    bound: placement.bound,
  };
}

interface DraftStep {
  readonly step: Step;
  readonly inputs: readonly Draft[];
  readonly outputs: readonly Draft[];
  readonly workspace: Draft | undefined;
  readonly copies: readonly (readonly [Draft, Draft])[];
}

class DraftBuffers {
  readonly transient: Draft[] = [];
  readonly #byInstance = new Map<string, Draft>();
  readonly #lastRead = new Map<string, number>();
  readonly #leaves = new Map<string, Draft>();

  constructor(
    private readonly schedule: Schedule,
    private readonly layout: PersistentLayout,
    private readonly facts: TargetFacts,
    private readonly gradients: ReadonlySet<Node>,
    outputs: readonly Node[],
  ) {
    schedule.steps.forEach((step, index) => {
      for (const read of step.reads) this.#lastRead.set(keyOf(read), index);
    });
    for (const node of outputs) this.#lastRead.set(keyOf({ node: storageOf(node), turn: 0 }), schedule.steps.length);
  }

  take(step: Step, index: number): DraftStep {
    const inputs = step.reads.map((read) => this.#resolve(read));
    for (const draft of inputs) draft.end = Math.max(draft.end, index);
    const copies: [Draft, Draft][] = [];
    const outputs = step.writes.map((write) => this.#write(step, write, index, copies));
    const scratch = this.facts.workspaceBytes(step.kernel);
    const workspace = scratch > 0 ? this.#add("scratch", "workspace", scratch, index) : undefined;
    return { step, inputs, outputs, workspace, copies };
  }

  /** Keeps a value until the end, for the host to read. */
  keep(node: Node, end: number): void {
    this.last(node).end = end;
  }

  last(node: Node): Draft {
    const base = storageOf(node);
    if (base.op === leafOp) return this.#leaf(base);
    return must(this.#byInstance.get(keyOf({ node: base, turn: 0 })), `memory of output ${node.op.name}`);
  }

  #resolve(read: Instance): Draft {
    if (read.node.op === leafOp) return this.#leaf(read.node);
    return must(this.#byInstance.get(keyOf(read)), `memory of ${read.node.op.name} in ${read.node.scope}`);
  }

  #leaf(node: Node): Draft {
    const { name } = leafAttributes(node);
    const known = this.#leaves.get(name);
    if (known !== undefined) return known;
    const persistent = must(this.layout.buffers.get(name), `place of leaf ${name}`);
    const draft: Draft = { name, kind: persistent.kind, bytes: persistent.bytes, start: 0, end: 0, persistent };
    this.#leaves.set(name, draft);
    return draft;
  }

  #write(step: Step, write: Instance, index: number, copies: [Draft, Draft][]): Draft {
    const target = step.again ? undefined : this.schedule.assigned.get(write.node);
    const draft =
      target === undefined ? this.#makeOrReuse(step, write, index) : this.#assign(step, write, target, index, copies);
    this.#byInstance.set(keyOf(write), draft);
    return draft;
  }

  /** Writes straight into the leaf, unless the kernel still reads the old value at other places. */
  #assign(step: Step, write: Instance, target: Node, index: number, copies: [Draft, Draft][]): Draft {
    const leaf = this.#leaf(target);
    const reads = step.reads.some((read) => read.node.op === leafOp && this.#leaf(read.node) === leaf);
    if (!reads || this.facts.inPlace(step.kernel, write.node).includes(target)) return leaf;
    const temporary = this.#add(leaf.name, "workspace", bytesOfValue(write.node), index);
    copies.push([temporary, leaf]);
    return temporary;
  }

  #makeOrReuse(step: Step, write: Instance, index: number): Draft {
    const bytes = bytesOfValue(write.node);
    const kind = this.#kindOf(step, write, index);
    for (const candidate of this.facts.inPlace(step.kernel, write.node)) {
      const place = step.kernel.inputs.indexOf(candidate);
      const read = step.reads[place];
      if (read === undefined || read.node.op === leafOp) continue;
      const draft = this.#resolve(read);
      const free = this.#lastRead.get(keyOf(read)) === index && draft.persistent === undefined;
      const taken = [...step.writes].some((other) => this.#byInstance.get(keyOf(other)) === draft);
      if (!free || taken || draft.bytes !== round(bytes, this.facts.alignment) || this.#sharedLater(draft, index))
        continue;
      if (kind === "gradients" || kind === "saved") draft.kind = kind;
      return draft;
    }
    return this.#add(nameOf(write.node), kind, bytes, index);
  }

  /** Whether another value in the same memory is read after this step. */
  #sharedLater(draft: Draft, index: number): boolean {
    for (const [key, other] of this.#byInstance) {
      if (other === draft && (this.#lastRead.get(key) ?? -1) > index) return true;
    }
    return false;
  }

  #kindOf(step: Step, write: Instance, index: number): Kind {
    if (this.gradients.has(write.node)) return "gradients";
    const last = this.#lastRead.get(keyOf(write)) ?? index;
    const reader = this.schedule.steps[last];
    return reader !== undefined && step.forward && !reader.forward ? "saved" : "workspace";
  }

  #add(name: string, kind: Kind, bytes: number, index: number): Draft {
    invariant(Number.isSafeInteger(bytes), `size of ${name}`);
    const draft: Draft = { name, kind, bytes: round(bytes, this.facts.alignment), start: index, end: index };
    this.transient.push(draft);
    return draft;
  }
}

function keyOf(instance: Instance): string {
  return `${instance.node.id}:${instance.turn}`;
}

function nameOf(node: Node): string {
  return node.scope === "" ? node.op.name : `${node.scope}:${node.op.name}`;
}
