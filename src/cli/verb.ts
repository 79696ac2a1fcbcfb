import type { z } from "zod";
import type { RunConfig, RunKey } from "../config/schema.js";
import type { Terminal, World } from "./terminal.js";

export interface Example {
  /** What follows `thimble`. */
  readonly command: string;
  readonly purpose: string;
}

/** A word after the verb that is not a flag. */
export interface Positional {
  readonly name: string;
  readonly description: string;
}

export interface VerbContext<Options> {
  readonly terminal: Terminal;
  readonly world: World;
  /** The settings of the run from the config file and the flags. */
  readonly config: RunConfig;
  /** The verb's own options. */
  readonly options: Options;
  readonly positionals: readonly string[];
}

/** One command of the program as its file declares it; flags, help and docs are derived from this value. */
export interface Verb<Schema extends z.ZodObject = z.ZodObject> {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** What help says below the summary. */
  readonly description: string;
  /** Settings of a run that it takes as flags; with any, it takes `--config` too. */
  readonly settings: readonly RunKey[] | "all";
  /** Options of its own. */
  readonly options: Schema;
  readonly positionals?: readonly Positional[];
  readonly examples: readonly Example[];
  /** The exit status; 0 if none. Failures are thrown. */
  run(context: VerbContext<z.output<Schema>>): Promise<number | undefined>;
}

/** A verb with its options' types checked, as one of a list of verbs. */
export function defineVerb<Schema extends z.ZodObject>(verb: Verb<Schema>): Verb {
  return verb;
}

/** Exit statuses. */
export const status = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const;
