import type { z } from "zod";
import type { Method } from "./types.js";

/** Declares a method: checks the types and freezes the value. */
export function defineMethod<Schema extends z.ZodObject>(method: Method<Schema>): Method<Schema> {
  return Object.freeze(method);
}
