import type { Buffer, Kind } from "./types.js";

/** A buffer before it has a place. */
export interface Draft {
  readonly name: string;
  kind: Kind;
  readonly bytes: number;
  readonly start: number;
  end: number;
  /** The last step that reads any value that was put into it. */
  lastRead: number;
  persistent?: Buffer;
  /** Drafts that must lie side by side with this one, in order, itself included. */
  group?: readonly Draft[];
}
