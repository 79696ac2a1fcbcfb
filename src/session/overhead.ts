/**
 * What a training process takes beside its plan: Node with Thimble's code, the compiled kernels and their tables, the
 * JavaScript heap, and the plan itself as objects. A budget covers it.
 */
export const processBytes = 176 * 2 ** 20;
