/**
 * What a training process takes beside its plan: Node with Thimble's code, the compiled kernels and their tables, the
 * JavaScript heap, and the plan itself as objects. A budget covers it. Measured on Linux with SmolLM2-135M: 165 MiB
 * without a budget (GNU time's peak of the whole process less the plan), some 16 MiB more after a budget's search.
 */
export const processBytes = 192 * 2 ** 20;
