import type { EventContext, ExampleBatch } from "./programs.js";

/** Where the examples of a run come from: sources by number. */
export interface SourceTable {
  readonly names: readonly string[];
  /** Examples of each in the training data. */
  readonly counts: readonly number[];
}

/** What is chosen from before a step. */
export interface Draw {
  /** Micro-batches of the step's size; their rows are counted through, from 0. */
  readonly batches: readonly ExampleBatch[];
  /** Rows in all. */
  readonly rows: number;
  /** Source of each row, as the data numbers them; absent where it does not tell them apart. */
  readonly sources?: Int32Array;
  readonly table?: SourceTable;
}

/** Some rows of a draw. */
export interface ChosenExamples {
  /** Their numbers, each once; where they are fewer than the step takes, the rest is padding. */
  readonly rows: readonly number[];
  /** Factors on their losses; absent = 1. The loss is divided by the weights of the tokens without them. */
  readonly factors?: readonly number[];
}

/** What may be read while examples are chosen: a function of the seed, the step, the draw and what persists. */
export interface ChoiceContext extends Omit<EventContext, "batch"> {
  readonly draw: Draw;
  /** Whether there is a persistent tensor of that name. */
  has(tensor: string): boolean;
  /** Rows that the step takes. */
  readonly count: number;
}

/** Which examples of a larger draw enter a step. */
export interface ExampleChoice {
  /** Rows of the step as a share of those that are drawn, above 0 and up to 1. */
  readonly ratio: number;
  /** Refuses sources that it cannot work with, before any weight is read; gives out what a person should know. */
  check(table: SourceTable): readonly string[];
  choose(context: ChoiceContext): Promise<ChosenExamples>;
  /** How often it runs programs of the method's own on a drawn micro-batch of so many rows, by name. */
  runs(rows: number): Readonly<Record<string, number>>;
  /** Whether the chosen rows go into the run's log. */
  readonly logged: boolean;
}
