import type { Node } from "../ir/node.js";
import { leafAttributes, leafOp } from "../ops/leaves.js";
import { storageOf } from "../passes/kernels.js";
import type { Instance, Schedule, Step } from "../passes/schedule.js";
import { bytesOfValue, round } from "./layout.js";
import type { TargetFacts } from "./types.js";

/** A value that takes memory of its own while it is alive. */
interface Value {
  readonly bytes: number;
  readonly producer: number;
  readonly readers: number[];
  /** The host reads it after the program. */
  kept: boolean;
}

/** Bytes alive while steps run in some part of an order. */
export interface Load {
  /** The most at one step. */
  readonly peak: number;
  /** The sum over the steps. */
  readonly area: number;
}

/** A schedule as a problem of order: what must come before what, and how many bytes are alive where. */
export class OrderModel {
  /** Step at each position. */
  readonly order: Int32Array;
  /** Position of each step. */
  readonly position: Int32Array;
  /** Steps that must come before, and after, each step. */
  readonly before: readonly ReadonlySet<number>[];
  readonly after: readonly ReadonlySet<number>[];
  /** Values that each step reads, and makes. */
  readonly reads: readonly (readonly number[])[];
  readonly writes: readonly (readonly number[])[];
  readonly values: Value[] = [];
  /** Steps whose loads were added up so far: the measure of the time spent. */
  spent = 0;
  readonly #workspace: Float64Array;
  /** The last position at which each value is needed. */
  readonly #last: Int32Array;
  /** Bytes that live on from the position before each one. */
  readonly #carried: Float64Array;
  /** Of each step, pairs of a read and a written value that may share memory if the read one ends there. */
  readonly #shared: readonly (readonly (readonly [number, number])[])[];

  constructor(
    readonly schedule: Schedule,
    outputs: readonly Node[],
    facts: TargetFacts,
  ) {
    const { steps } = schedule;
    this.order = Int32Array.from(steps, (_, index) => index);
    this.position = Int32Array.from(this.order);
    const known = new Map<Node, Map<number, number>>();
    const valueOf = ({ node, turn }: Instance): number | undefined => known.get(node)?.get(turn);
    const make = (step: Step, index: number): number[] =>
      step.writes.flatMap((write) => {
        if (!step.again && schedule.assigned.has(write.node)) return [];
        const turns = known.get(write.node) ?? new Map<number, number>();
        known.set(write.node, turns.set(write.turn, this.values.length));
        const bytes = round(bytesOfValue(write.node), facts.alignment);
        return this.values.push({ bytes, producer: index, readers: [], kept: false }) - 1;
      });
    this.writes = steps.map(make);
    this.reads = steps.map(({ reads }, index) => {
      const all = [...new Set(reads.flatMap((read) => valueOf(read) ?? []))];
      for (const value of all) this.values[value]?.readers.push(index);
      return all;
    });
    for (const node of outputs) {
      const value = this.values[valueOf({ node: storageOf(node), turn: 0 }) ?? -1];
      if (value !== undefined) value.kept = true;
    }
    this.#workspace = Float64Array.from(steps, ({ kernel }) => round(facts.workspaceBytes(kernel), facts.alignment));
    this.#shared = steps.map((step) => this.#sharedBy(step, valueOf, facts));
    const { before, after } = this.#edges();
    this.before = before;
    this.after = after;
    this.#last = Int32Array.from(this.values, (_, value) => this.#findLast(value));
    this.#carried = new Float64Array(steps.length + 1);
    this.settle(0, steps.length - 1);
  }

  #sharedBy(
    { kernel, reads, writes }: Step,
    valueOf: (instance: Instance) => number | undefined,
    facts: TargetFacts,
  ): (readonly [number, number])[] {
    return writes.flatMap((write) => {
      const output = valueOf(write);
      if (output === undefined) return [];
      return facts.inPlace(kernel, write.node).flatMap((candidate) => {
        const read = reads[kernel.inputs.indexOf(candidate)];
        const input = read === undefined ? undefined : valueOf(read);
        const fits = input !== undefined && this.#bytes(input) === this.#bytes(output);
        return fits ? [[input, output] as const] : [];
      });
    });
  }

  #bytes(value: number): number {
    return this.values[value]?.bytes ?? 0;
  }

  /** Makers before readers; and whatever reads or writes a leaf stays on its side of every write to that leaf. */
  #edges(): { before: Set<number>[]; after: Set<number>[] } {
    const before = this.reads.map(() => new Set<number>());
    const after = this.reads.map(() => new Set<number>());
    const add = (first: number, second: number): void => {
      if (first === second) return;
      before[second]?.add(first);
      after[first]?.add(second);
    };
    for (const { producer, readers } of this.values) for (const reader of readers) add(producer, reader);
    const places = new Map<string, { writer: number; readers: number[] }>();
    const { steps, assigned } = this.schedule;
    steps.forEach((step, index) => {
      const written = step.again ? [] : step.writes.flatMap(({ node }) => assigned.get(node) ?? []);
      for (const { node } of step.reads) {
        const leaf = node.op === leafOp ? node : assigned.get(node);
        if (leaf === undefined) continue;
        const { name } = leafAttributes(leaf);
        const place = places.get(name) ?? { writer: -1, readers: [] };
        places.set(name, place);
        place.readers.push(index);
        if (place.writer >= 0) add(place.writer, index);
      }
      for (const leaf of written) {
        const { name } = leafAttributes(leaf);
        const place = places.get(name);
        for (const reader of place?.readers ?? []) add(reader, index);
        if (place !== undefined && place.writer >= 0) add(place.writer, index);
        places.set(name, { writer: index, readers: [] });
      }
    });
    return { before, after };
  }

  /** The last position at which a value is needed; one past the end if the host reads it. */
  lastUse(value: number): number {
    return this.#last[value] ?? 0;
  }

  #findLast(value: number): number {
    const found = this.values[value];
    if (found === undefined || found.kept) return this.order.length;
    let last = this.position[found.producer] ?? 0;
    for (const reader of found.readers) last = Math.max(last, this.position[reader] ?? 0);
    return last;
  }

  /** Bytes alive at each position. */
  loads(): Float64Array {
    const loads = new Float64Array(this.order.length);
    this.#run(0, this.order.length - 1, { loads });
    return loads;
  }

  /** What is alive from one position to another, inclusive. */
  load(from: number, to: number): Load {
    return this.#run(from, to);
  }

  /** To be called when the steps between two positions stay as they were moved. */
  settle(from: number, to: number): void {
    this.#run(from, to, { carried: this.#carried });
  }

  #run(from: number, to: number, { loads, carried }: { loads?: Float64Array; carried?: Float64Array } = {}): Load {
    let alive = this.#carried[from] ?? 0;
    let peak = 0;
    let area = 0;
    this.spent += to - from + 1;
    for (let place = from; place <= to; place++) {
      const step = this.order[place] ?? 0;
      const writes = this.writes[step] ?? [];
      const reads = this.reads[step] ?? [];
      for (const value of writes) alive += this.#bytes(value);
      const bytes = alive + (this.#workspace[step] ?? 0) - this.#saved(step, place);
      if (loads !== undefined) loads[place] = bytes;
      peak = Math.max(peak, bytes);
      area += bytes;
      for (const value of writes) if (this.lastUse(value) === place) alive -= this.#bytes(value);
      for (const value of reads) if (this.lastUse(value) === place) alive -= this.#bytes(value);
      if (carried !== undefined) carried[place + 1] = alive;
    }
    return { peak, area };
  }

  /** Bytes that a step's results take over from values that end there. */
  #saved(step: number, place: number): number {
    const pairs = this.#shared[step] ?? [];
    if (pairs.length === 0) return 0;
    let saved = 0;
    const taken = new Set<number>();
    for (const [input, output] of pairs) {
      if (taken.has(input) || taken.has(-1 - output) || this.lastUse(input) !== place) continue;
      taken.add(input).add(-1 - output);
      saved += this.#bytes(output);
    }
    return saved;
  }

  /** Moves the step at one position to another; those in between make room. */
  move(from: number, to: number): void {
    const step = this.order[from] ?? 0;
    if (from < to) this.order.copyWithin(from, from + 1, to + 1);
    else this.order.copyWithin(to + 1, to, from);
    this.order[to] = step;
    const [low, high] = [Math.min(from, to), Math.max(from, to)];
    for (let place = low; place <= high; place++) this.position[this.order[place] ?? 0] = place;
    for (let place = low; place <= high; place++) {
      const moved = this.order[place] ?? 0;
      for (const value of this.reads[moved] ?? []) this.#last[value] = this.#findLast(value);
      for (const value of this.writes[moved] ?? []) this.#last[value] = this.#findLast(value);
    }
  }

  /** The positions between which a step may lie without moving others, inclusive. */
  range(step: number): readonly [number, number] {
    let first = 0;
    let last = this.order.length - 1;
    for (const other of this.before[step] ?? []) first = Math.max(first, (this.position[other] ?? 0) + 1);
    for (const other of this.after[step] ?? []) last = Math.min(last, (this.position[other] ?? 0) - 1);
    return [first, last];
  }
}
