import { must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { leafOp } from "../ops/leaves.js";
import { boundary } from "./expressions.js";
import type { Kernel } from "./kernels.js";
import type { ForwardBackward } from "./saved.js";
import type { Instance, Step } from "./steps.js";

/** Turns an order of kernels into executions: what is not kept is made again just before backward reads it. */
export function unroll(
  order: readonly Kernel[],
  producers: ReadonlyMap<Node, Kernel>,
  split: ForwardBackward,
): readonly Step[] {
  return new Unrolling(producers, split).run(order);
}

/** Values made again for one stage, on the way to a value of a later one; they are not kept. */
interface Passage {
  readonly stage: number | undefined;
  readonly made: Map<Node, Instance>;
}

/**
 * Where the model is divided into stages, a value made again is kept for the rest of backward only if backward itself
 * reads it, or if it is one of the values that the next chain starts from; all else that a chain through earlier
 * stages makes is there until the chain has passed.
 */
class Unrolling {
  private readonly steps: Step[] = [];
  private readonly current = new Map<Node, Instance>();
  /** Made again, and there until its last reader. */
  private readonly kept = new Map<Node, Instance>();
  private readonly turns = new Map<Node, number>();

  constructor(
    private readonly producers: ReadonlyMap<Node, Kernel>,
    private readonly split: ForwardBackward,
  ) {}

  run(order: readonly Kernel[]): readonly Step[] {
    for (const kernel of order) {
      const forward = this.split.forward.has(kernel);
      const reads = kernel.inputs.map((input) => (forward ? this.original(input) : this.wanted(input)));
      const writes = kernel.outputs.map((node): Instance => ({ node, turn: 0 }));
      for (const write of writes) this.current.set(write.node, write);
      this.steps.push({ kernel, reads, writes, again: false, forward });
    }
    return this.steps;
  }

  private original(node: Node): Instance {
    const known = this.current.get(node);
    if (known !== undefined) return known;
    must(node.op === leafOp ? node : undefined, `value of ${node.op.name} ${node.scope}`);
    const instance = { node, turn: 0 };
    this.current.set(node, instance);
    return instance;
  }

  /** A value as backward reads it. */
  private wanted(node: Node): Instance {
    if (!this.split.recomputed.has(node)) return this.original(node);
    const known = this.kept.get(node);
    if (known !== undefined) return known;
    return this.make(node, { stage: this.stageOf(node), made: this.kept }, this.startsOf(node));
  }

  /** A value as making another one again reads it; `starts` are the values of other stages to keep on the way. */
  private read(node: Node, passage: Passage, starts: ReadonlySet<Node>): Instance {
    if (!this.split.recomputed.has(node)) return this.original(node);
    const known = this.kept.get(node) ?? passage.made.get(node);
    if (known !== undefined) return known;
    const stage = this.stageOf(node);
    if (stage === passage.stage) return this.make(node, passage, starts);
    const made = this.make(node, { stage, made: new Map<Node, Instance>() }, starts);
    (starts.has(node) ? this.kept : passage.made).set(node, made);
    return made;
  }

  private make(node: Node, passage: Passage, starts: ReadonlySet<Node>): Instance {
    const kernel = must(this.producers.get(node), "producer");
    const { recomputed } = this.split;
    const has = (output: Node): boolean => this.kept.has(output) || passage.made.has(output);
    const part = kernelFor(
      kernel,
      kernel.outputs.filter((output) => recomputed.has(output) && !has(output)),
    );
    const reads = part.inputs.map((input) => this.read(input, passage, starts));
    const writes = part.outputs.map((output) => this.next(output));
    for (const write of writes) if (recomputed.has(write.node) && !has(write.node)) passage.made.set(write.node, write);
    this.steps.push({ kernel: part, reads, writes, again: true, forward: false });
    return must(passage.made.get(node), "value made again");
  }

  private next(node: Node): Instance {
    const turn = (this.turns.get(node) ?? 0) + 1;
    this.turns.set(node, turn);
    return { node, turn };
  }

  private stageOf(node: Node): number | undefined {
    return this.split.stages?.get(node);
  }

  /**
   * What to keep of the values that a chain passes from stage to stage: those of the lowest level among them, from
   * which later, shorter chains start.
   */
  private startsOf(node: Node): ReadonlySet<Node> {
    const { levels, recomputed } = this.split;
    const passed = new Set<Node>();
    const seen = new Set<Node>();
    const visit = (value: Node, stage: number | undefined): void => {
      if (seen.has(value) || !recomputed.has(value) || this.kept.has(value)) return;
      seen.add(value);
      const own = this.stageOf(value);
      if (own !== stage) passed.add(value);
      for (const input of must(this.producers.get(value), "producer").inputs) visit(input, own);
    };
    visit(node, this.stageOf(node));
    const levelOf = (value: Node): number => levels?.get(value) ?? 1;
    const lowest = [...passed].reduce((least, value) => Math.min(least, levelOf(value)), Infinity);
    const starts = new Set([...passed].filter((value) => levelOf(value) === lowest));
    // What backward of this very stage starts from is read again by it.
    for (const value of this.entries(node)) starts.add(value);
    return starts;
  }

  /** Values of other stages that making `node` again reads first. */
  private entries(node: Node): Node[] {
    const found: Node[] = [];
    const own = this.stageOf(node);
    const seen = new Set<Node>();
    const visit = (value: Node): void => {
      if (seen.has(value) || !this.split.recomputed.has(value) || this.kept.has(value)) return;
      seen.add(value);
      if (this.stageOf(value) !== own) found.push(value);
      else must(this.producers.get(value), "producer").inputs.forEach(visit);
    };
    visit(node);
    return found;
  }
}

const parts = new WeakMap<Kernel, Map<string, Kernel>>();

/** The same kernel for some of its outputs; the others, if it needs them, are read. Equal requests give one kernel. */
function kernelFor(kernel: Kernel, outputs: readonly Node[]): Kernel {
  if (kernel.kind !== "loops" || outputs.length === kernel.outputs.length) return kernel;
  const known = parts.get(kernel) ?? new Map<string, Kernel>();
  parts.set(kernel, known);
  const key = outputs.map(({ id }) => id).join();
  const part = known.get(key) ?? withOutputs(kernel, outputs);
  known.set(key, part);
  return part;
}

function withOutputs(kernel: Kernel, outputs: readonly Node[]): Kernel {
  const dropped = kernel.outputs.filter((output) => !outputs.includes(output));
  const inside = new Set([...kernel.inputs, ...dropped]);
  return { kind: "loops", outputs, inputs: boundary(outputs, (node) => inside.has(node)) };
}
