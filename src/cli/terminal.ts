import picocolors from "picocolors";

/** A stream that a command writes to; a terminal tells so, and how wide it is. */
export interface OutputStream extends NodeJS.WritableStream {
  readonly isTTY?: boolean;
  readonly columns?: number;
}

export interface InputStream extends NodeJS.ReadableStream {
  readonly isTTY?: boolean;
}

/** Everything of the world that a command touches beside files; tests replace it. */
export interface World {
  readonly stdin: InputStream;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** Calls `handler` on each press of Ctrl-C (or a polite request to end) until the returned function is called. */
  onInterrupt(handler: () => void): () => void;
  /** Ends the process at once. */
  abort(status: number): void;
}

export type Colors = ReturnType<typeof picocolors.createColors>;

const narrowest = 40;
const usual = 80;
const widest = 120;

/** Where a command writes: text for people on stdout, or on stderr when stdout is for one line of JSON. */
export class Terminal {
  /** What people read. */
  readonly stream: OutputStream;
  readonly colors: Colors;
  /** Whether lines can be redrawn in place. */
  readonly live: boolean;
  readonly width: number;

  constructor(
    readonly world: World,
    readonly json: boolean,
  ) {
    this.stream = json ? world.stderr : world.stdout;
    this.live = this.stream.isTTY === true && world.environment["TERM"] !== "dumb";
    this.colors = colorsFor(this.stream, world.environment);
    this.width = Math.max(narrowest, Math.min(widest, this.stream.columns ?? usual));
  }

  /** A line, or several, for people. */
  print(text = ""): void {
    this.stream.write(`${text}\n`);
  }

  /** Something that a person should know and that is not the result: on stderr. */
  note(text: string): void {
    this.world.stderr.write(`${colorsFor(this.world.stderr, this.world.environment).yellow("!")} ${text}\n`);
  }

  /** What is being done, on stderr. */
  status(text: string): void {
    this.world.stderr.write(`${colorsFor(this.world.stderr, this.world.environment).dim(text)}\n`);
  }

  /** The result as one line on stdout, when JSON is asked for. */
  result(value: object): void {
    if (this.json) this.world.stdout.write(`${JSON.stringify(value)}\n`);
  }
}

/** Colours for terminals only, and for nobody who has set NO_COLOR (https://no-color.org). */
export function colorsFor(stream: OutputStream, environment: World["environment"]): Colors {
  const refused = (environment["NO_COLOR"] ?? "") !== "" || environment["TERM"] === "dumb";
  return picocolors.createColors(stream.isTTY === true && !refused);
}
