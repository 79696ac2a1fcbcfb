import { invariant, must } from "../errors.js";
import type { Node } from "../ir/node.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { groupsOutputs, isLimited, isScalarInput } from "../passes/bindings.js";
import { storageOf } from "../passes/kernels.js";
import type { Instance, Schedule, Step } from "../passes/schedule.js";
import type { Draft } from "./draft.js";
import { bytesOfValue, checkSize, round } from "./layout.js";
import { Slots } from "./slots.js";
import type { Kind, PersistentLayout, TargetFacts } from "./types.js";

export type { Draft } from "./draft.js";

export interface DraftStep {
  readonly step: Step;
  readonly inputs: readonly Draft[];
  readonly outputs: readonly Draft[];
  readonly workspace: Draft | undefined;
  readonly copies: readonly (readonly [Draft, Draft])[];
}

/** A step while its buffers are found. */
interface Taking {
  readonly step: Step;
  readonly index: number;
  readonly inputs: readonly Draft[];
  readonly copies: [Draft, Draft][];
  /** Its outputs must lie side by side. */
  readonly grouped: boolean;
}

/** Decides which values share a buffer, and how long each buffer lives. */
export class DraftBuffers {
  readonly transient: Draft[] = [];
  readonly slots: Slots;
  readonly #byInstance = new Map<number, Draft>();
  readonly #lastRead = new Map<number, number>();
  readonly #leaves = new Map<string, Draft>();

  constructor(
    private readonly schedule: Schedule,
    private readonly layout: PersistentLayout,
    private readonly facts: TargetFacts,
    private readonly gradients: ReadonlySet<Node>,
    outputs: readonly Node[],
  ) {
    this.slots = new Slots(schedule, layout, facts);
    this.transient.push(...this.slots.drafts);
    schedule.steps.forEach((step, index) => {
      for (const read of step.reads) this.#lastRead.set(keyOf(read), index);
    });
    for (const node of outputs) this.#lastRead.set(keyOf({ node: storageOf(node), turn: 0 }), schedule.steps.length);
  }

  take(step: Step, index: number): DraftStep {
    const inputs = step.reads.map((read) => this.#resolve(read, index));
    for (const draft of inputs) draft.end = Math.max(draft.end, index);
    const copies: [Draft, Draft][] = [];
    const taking: Taking = { step, index, inputs, copies, grouped: groupsOutputs(step.kernel, this.facts) };
    const outputs = step.writes.map((write) => this.#write(write, taking));
    if (taking.grouped) for (const draft of outputs) draft.group = outputs;
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

  #resolve(read: Instance, index: number): Draft {
    const leaf = read.node.op === leafOp ? read.node : this.schedule.assigned.get(read.node);
    const name = leaf === undefined ? "" : leafAttributes(leaf).name;
    if (this.slots.has(name)) return this.slots.at(name, index);
    if (read.node.op === leafOp) return this.#leaf(read.node);
    return must(this.#byInstance.get(keyOf(read)), `memory of ${read.node.op.name} in ${read.node.scope}`);
  }

  #leaf(node: Node): Draft {
    const { name } = leafAttributes(node);
    const known = this.#leaves.get(name);
    if (known !== undefined) return known;
    const persistent = must(this.layout.buffers.get(name), `place of leaf ${name}`);
    const draft: Draft = {
      name,
      kind: persistent.kind,
      bytes: persistent.bytes,
      start: 0,
      end: 0,
      lastRead: -1,
      persistent,
    };
    this.#leaves.set(name, draft);
    return draft;
  }

  #write(write: Instance, taking: Taking): Draft {
    const target = taking.step.again ? undefined : this.schedule.assigned.get(write.node);
    const draft = target === undefined ? this.#makeOrReuse(write, taking) : this.#assign(write, target, taking);
    this.#byInstance.set(keyOf(write), draft);
    draft.lastRead = Math.max(draft.lastRead, this.#lastRead.get(keyOf(write)) ?? -1);
    return draft;
  }

  /** Writes straight into the leaf, unless the kernel still reads the old value at other places. */
  #assign(write: Instance, target: Node, { step, index, inputs, copies, grouped }: Taking): Draft {
    invariant(!isLimited(this.facts) || !isScalarInput(target), "a number that the host sets is assigned");
    const { name } = leafAttributes(target);
    const leaf = this.slots.has(name) ? this.slots.at(name, index) : this.#leaf(target);
    const readers = step.kernel.inputs.filter((_, place) => inputs[place] === leaf);
    const inPlace = readers.length === 0 ? [] : this.facts.inPlace(step.kernel, write.node);
    if (!grouped && readers.every((node) => inPlace.includes(node))) return leaf;
    const temporary = this.#add(leaf.name, "workspace", bytesOfValue(write.node), index);
    copies.push([temporary, leaf]);
    return temporary;
  }

  #makeOrReuse(write: Instance, { step, index, inputs, grouped }: Taking): Draft {
    const bytes = bytesOfValue(write.node);
    const kind = this.#kindOf(step, write, index);
    for (const candidate of grouped ? [] : this.facts.inPlace(step.kernel, write.node)) {
      const place = step.kernel.inputs.indexOf(candidate);
      const read = step.reads[place];
      const draft = inputs[place];
      if (read === undefined || draft === undefined || read.node.op === leafOp) continue;
      const free = this.#lastRead.get(keyOf(read)) === index && draft.persistent === undefined;
      const taken = step.writes.some((other) => this.#byInstance.get(keyOf(other)) === draft);
      // Another value in the same memory may be read after this step.
      const shared = draft.lastRead > index;
      if (!free || taken || shared || draft.bytes !== round(bytes, this.facts.alignment)) continue;
      if (kind === "gradients" || kind === "saved") draft.kind = kind;
      return draft;
    }
    return this.#add(nameOf(write.node), kind, bytes, index);
  }

  #kindOf(step: Step, write: Instance, index: number): Kind {
    if (this.gradients.has(write.node)) return "gradients";
    const last = this.#lastRead.get(keyOf(write)) ?? index;
    const reader = this.schedule.steps[last];
    return reader !== undefined && step.forward && !reader.forward ? "saved" : "workspace";
  }

  #add(name: string, kind: Kind, bytes: number, index: number): Draft {
    invariant(Number.isSafeInteger(bytes), `size of ${name}`);
    const rounded = round(bytes, this.facts.alignment);
    checkSize(name, rounded, this.facts.limits);
    const draft: Draft = { name, kind, bytes: rounded, start: index, end: index, lastRead: -1 };
    this.transient.push(draft);
    return draft;
  }
}

/** Values are made a few times at most; a double holds these numbers exactly. */
const mostTurns = 1024;

function keyOf({ node, turn }: Instance): number {
  invariant(turn < mostTurns, `a value of ${node.scope} is made too often`);
  return node.id * mostTurns + turn;
}

function nameOf(node: Node): string {
  return node.scope === "" ? node.op.name : `${node.scope}:${node.op.name}`;
}
