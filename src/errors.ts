/** What a {@link ThimbleError} carries beside its message; every field is for the person who must act on it. */
export interface ErrorDetail {
  /** What was found or passed. */
  readonly given?: string;
  /** What would have been accepted. */
  readonly expected?: string;
  /** Where: a config path, a file and offset, an op and its model scope. */
  readonly where?: string;
  /** What to do about it. */
  readonly fix?: string;
  /** Numbers that a program needs of the error, by name; they are part of its JSON. */
  readonly facts?: Readonly<Record<string, number>>;
  readonly cause?: unknown;
}

/** The one error class for anything a user can cause or mend. `code` is stable; `docs/errors.md` lists the codes. */
export class ThimbleError extends Error {
  readonly code: string;
  readonly given: string | undefined;
  readonly expected: string | undefined;
  readonly where: string | undefined;
  readonly fix: string | undefined;
  readonly facts: Readonly<Record<string, number>>;

  constructor(code: string, message: string, detail: ErrorDetail = {}) {
    super(message, detail.cause === undefined ? undefined : { cause: detail.cause });
    this.name = "ThimbleError";
    this.code = code;
    this.given = detail.given;
    this.expected = detail.expected;
    this.where = detail.where;
    this.fix = detail.fix;
    this.facts = detail.facts ?? {};
  }

  /** The error as a person reads it: one fact a line. */
  describe(): string {
    const lines = [`${this.message} [${this.code}]`];
    if (this.where !== undefined) lines.push(`  where:    ${this.where}`);
    if (this.given !== undefined) lines.push(`  given:    ${this.given}`);
    if (this.expected !== undefined) lines.push(`  expected: ${this.expected}`);
    if (this.fix !== undefined) lines.push(`  fix:      ${this.fix}`);
    return lines.join("\n");
  }

  toJSON(): Record<string, string | number> {
    const { code, message, given, expected, where, fix, facts } = this;
    const entries: [string, string | number | undefined][] = [
      ...Object.entries({ code, message, given, expected, where, fix }),
      ...Object.entries(facts),
    ];
    return Object.fromEntries(entries.filter((entry): entry is [string, string | number] => entry[1] !== undefined));
  }
}

/** Fails with an internal error when an invariant of Thimble itself is broken (never for user input). */
export function invariant(condition: boolean, message: string): asserts condition {
  if (!condition) throw new ThimbleError("internal", message, { fix: "This is a bug in Thimble; please report it." });
}

/** The value, or an internal error naming what was missing: for lookups that cannot fail in a correct program. */
export function must<T>(value: T | undefined | null, what: string): T {
  if (value === undefined || value === null) {
    throw new ThimbleError("internal", `${what} is missing`, { fix: "This is a bug in Thimble; please report it." });
  }
  return value;
}
