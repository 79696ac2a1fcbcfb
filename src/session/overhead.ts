/**
 * What a training process takes beside its plan: Node with Thimble's code, the compiled kernels and their tables, the
 * JavaScript heap, and the plan itself as objects. A budget covers it, and the memory that is free must too. Measured on
 * Linux with SmolLM2-135M by bench/compile.ts (`trainProcess` in its result): 167 MiB, of GNU time's peak of the whole
 * process. A budget's search leaves some more behind.
 */
export const processBytes = 192 * 2 ** 20;
