import type { World } from "./terminal.js";

/** This process's streams, environment and signals. */
export function realWorld(): World {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", endOnClosedPipe);
  return {
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
    environment: process.env,
    onInterrupt: (handler) => {
      const signals = ["SIGINT", "SIGTERM"] as const;
      for (const signal of signals) process.on(signal, handler);
      return () => {
        for (const signal of signals) process.off(signal, handler);
      };
    },
    abort: (status) => {
      process.exit(status);
    },
  };
}

/** Whoever reads the output (`| head`) has seen enough. */
function endOnClosedPipe(error: NodeJS.ErrnoException): void {
  if (error.code === "EPIPE") process.exit(0);
  throw error;
}
