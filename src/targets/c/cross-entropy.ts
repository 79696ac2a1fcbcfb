import { microKernels } from "./contraction-micro.js";
import { contentHash, once } from "./contraction-name.js";
import { readerName, readers } from "./contraction-operand.js";
import { packing } from "./contraction-shared.js";
import type { KernelSource } from "./contraction-types.js";
import { logitFunctions, softmaxFunctions } from "./cross-entropy-blocks.js";
import { planSource, vocabularyBlock } from "./cross-entropy-plan.js";
import type { CrossEntropyArguments, CrossEntropySpec } from "./cross-entropy-types.js";

export { crossEntropyWorkspace, weightGradientWorkspace } from "./cross-entropy-plan.js";
export { renderWeightGradient, weightGradientArguments } from "./cross-entropy-weight.js";
export * from "./cross-entropy-types.js";

/** The kernel's arguments in their order; words of a computed W follow them. */
export function crossEntropyArguments<Word>(values: CrossEntropyArguments<Word>): Word[] {
  const { rows, depth, vocabulary, workspace, x, weight, labels, rowWeights, nll } = values;
  const { inputGradient, normalizer, miss } = values;
  return [
    ...[rows, depth, vocabulary, workspace],
    ...[x.address, x.rowStride, weight.address, weight.rowStride],
    ...[labels, rowWeights, nll],
    ...[inputGradient.address, inputGradient.rowStride, normalizer, miss],
  ];
}

const argumentCount = 15;

/** Where the readers of W begin: at its address, or at the words of a computed W, which are the last arguments. */
function weightBase({ weight }: CrossEntropySpec): string {
  return weight.decoder?.words === undefined ? "(const char*)w[6]" : `(const char*)(w + ${argumentCount})`;
}

/** The running softmax of one group of tokens over one slice of the vocabulary. */
function groupSource(name: string, spec: CrossEntropySpec): string {
  const gradient = spec.inputGradient !== undefined;
  return String.raw`
static void ${name}_group(const ${name}_input* in, const ${name}_plan* plan, const int32_t* list, int64_t valid, const int32_t* labels,
                          int64_t begin, int64_t end, float* maximum, float* sum, float* label_logits, thimble_word_alias* own, float* sums) {
  int64_t tokens = (valid + 15) / 16 * 16;
  thimble_word_alias *panels = own, *area = own + plan->panels;
  float* scores = (float*)(area + 2 * plan->weights);
  float tops[256] __attribute__((aligned(64))), totals[256] __attribute__((aligned(64))), scale[256] __attribute__((aligned(64)));
  for (int64_t t = 0; t < tokens; t++) {
    tops[t] = -__FLT_MAX__;
    totals[t] = 0;
  }
${gradient ? "  __builtin_memset(sums, 0, (size_t)((tokens + 6) * in->padded) * 4);" : "  (void)sums;"}
  ${name}_pack_x(in, list, valid, tokens, panels);
  for (int64_t first = begin; first < end; first += ${vocabularyBlock}) {
    int64_t count = smaller(${vocabularyBlock}, end - first), stride;
    const thimble_word_alias* rows = ${name}_weight_rows(in, first, count, area, &stride);
    ${name}_logits(in, rows, stride, count, panels, tokens, scores);
    ${name}_take_labels(list, valid, tokens, labels, first, count, scores, label_logits);
    ${name}_exponentials(scores, count, tokens, tops, totals, scale, ${gradient ? 1 : 0});
${
  gradient
    ? String.raw`    const thimble_word_alias* columns = ${name}_weight_columns(in, first, count, rows, &stride, area + plan->weights);
    ${name}_add_rows(scores, count, tokens, columns, stride, scale, sums, in->padded);`
    : ""
}
  }
  for (int64_t t = 0; t < valid; t++) {
    maximum[t] = tops[t];
    sum[t] = totals[t];
  }
}`;
}

function storeGradient(spec: CrossEntropySpec): string {
  if (spec.inputGradient === undefined) return "";
  return String.raw`
  float* label_row = buffer;
  for (int64_t k = 0; k < in->depth; k += 256)
    ${readerName(spec.weight, spec.compute)}_values(in->w, labels[row] * in->sw + k, smaller(256, in->depth - k), label_row + k);
  char* out = (char*)w[11] + row * w[12] * ${spec.inputGradient === "f32" ? 4 : 2};
  for (int64_t k = 0; k < in->depth; k += 16) {
    int n = (int)smaller(16, in->depth - k);
    vf value = splat_f(-miss) * load_f32_n(label_row + k, n);
    for (int64_t s = 0; s < plan->slices; s++) {
      vf factor = splat_f(exp_f(splat_f(maximum[s * N] - top))[0] / total);
      value = fma_f(factor, load_f32_n(sums + s * pitch + k, n), value);
    }
    store_${spec.inputGradient}_n(out + k * ${spec.inputGradient === "f32" ? 4 : 2}, value * splat_f(weight), n);
  }`;
}

/** From the states of all slices of one token to its loss and gradient. */
function finishSource(name: string, spec: CrossEntropySpec): string {
  return String.raw`
static void ${name}_finish(const int64_t* w, const ${name}_input* in, const ${name}_plan* plan, int64_t row, const float* maximum, const float* sum,
                           float label_logit, const float* sums, int64_t pitch, float* buffer) {
  int64_t N = w[0];
  const int32_t* labels = (const int32_t*)w[8];
  float weight = ((const float*)w[9])[row], top = label_logit, others = 0;
  (void)in; (void)sums; (void)pitch; (void)buffer; (void)labels;
  for (int64_t s = 0; s < plan->slices; s++) top = maximum[s * N] > top ? maximum[s * N] : top;
  for (int64_t s = 0; s < plan->slices; s++) others += sum[s * N] * exp_f(splat_f(maximum[s * N] - top))[0];
  float total = others + exp_f(splat_f(label_logit - top))[0], logarithm = log_f(splat_f(total))[0];
  /* 1 - p of the label, without cancellation. */
  float miss = others / total;
  ((float*)w[10])[row] = weight * ((top - label_logit) + logarithm);
${
  spec.normalizers === true
    ? "  ((float*)w[13])[row] = top + logarithm;\n  ((float*)w[14])[row] = miss;"
    : "  (void)miss;"
}
${storeGradient(spec)}
}`;
}

function clearRow(spec: CrossEntropySpec): string {
  if (spec.inputGradient === undefined) return "";
  const bytes = spec.inputGradient === "f32" ? 4 : 2;
  return `__builtin_memset((char*)w[11] + row * w[12] * ${bytes}, 0, (size_t)in.depth * ${bytes});`;
}

/** Cuts tokens and slices among the threads, and joins the results. */
function kernelSource(name: string, spec: CrossEntropySpec): string {
  const pitch = spec.inputGradient === undefined ? "0" : "N * in.padded";
  return String.raw`
EXPORT void ${name}(const int64_t* w, Context* context) {
  int64_t N = w[0], thread = context->thread, threads = context->threads, V = w[2];
  ${name}_plan plan = ${name}_make_plan(N, w[1]);
  ${name}_input in = {(const char*)w[4], ${weightBase(spec)}, w[5], w[7], w[1], plan.padded, V};
  const int32_t* labels = (const int32_t*)w[8];
  const float* weights = (const float*)w[9];
  float* workspace = (float*)((w[3] + 63) / 64 * 64);
  int32_t* list = (int32_t*)workspace;
  float *label_logits = workspace + N, *maximum = label_logits + N, *sum = maximum + plan.slices * N, *partial = workspace + plan.states;
  thimble_word_alias* own = (thimble_word_alias*)(partial + plan.partial + thread * plan.private);
  float* sums = (float*)own + plan.private - plan.padded - plan.sums;
  float* buffer = (float*)own + plan.private - plan.padded;
  int64_t active = 0, begin, end;
  /* Every thread makes the same list: counting is cheaper than waiting. Only thread 0's is kept. */
  for (int64_t row = 0; row < N; row++) {
    if (weights[row] == 0.0f || labels[row] < 0 || labels[row] >= V) continue;
    if (thread == 0) list[active] = (int32_t)row;
    active++;
  }
  share(N, 1, thread, threads, &begin, &end);
  for (int64_t row = begin; row < end; row++) {
    if (!(weights[row] == 0.0f || labels[row] < 0 || labels[row] >= V)) continue;
    ((float*)w[10])[row] = 0;
    ${clearRow(spec)}${spec.normalizers === true ? "\n    ((float*)w[13])[row] = ((float*)w[14])[row] = 0;" : ""}
  }
  barrier(context);
  int64_t units = (active + 15) / 16;
  share(units * plan.slices, 1, thread, threads, &begin, &end);
  for (int64_t slice = 0; slice < plan.slices; slice++) {
    int64_t from = larger(begin - slice * units, 0) * 16, to = smaller(smaller(end - slice * units, units) * 16, active);
    if (to <= from) continue;
    int64_t low, high, groups = (to - from + plan.tokens - 1) / plan.tokens;
    int64_t size = ((to - from + groups - 1) / groups + 15) / 16 * 16;
    share(V, ${vocabularyBlock}, slice, plan.slices, &low, &high);
    for (int64_t t = from; t < to; t += size) {
      int64_t valid = smaller(size, to - t);
      ${name}_group(&in, &plan, list + t, valid, labels, low, high, maximum + slice * N + t, sum + slice * N + t, label_logits + t, own, sums);
      for (int64_t i = 0; i < valid; i++) {
        if (plan.slices == 1)
          ${name}_finish(w, &in, &plan, list[t + i], maximum + t + i, sum + t + i, label_logits[t + i], sums + i * in.padded, 0, buffer);
        else if (plan.partial)
          __builtin_memcpy(partial + (slice * N + t + i) * in.padded, sums + i * in.padded, (size_t)in.padded * 4);
      }
    }
  }
  if (plan.slices > 1) {
    barrier(context);
    share(active, 1, thread, threads, &begin, &end);
    for (int64_t t = begin; t < end; t++)
      ${name}_finish(w, &in, &plan, list[t], maximum + t, sum + t, label_logits[t], partial + t * in.padded, ${pitch}, buffer);
  }
}
`;
}

/** The C of one fused linear layer and cross-entropy. Equal specs give equal names; sizes and addresses are arguments. */
export function renderCrossEntropy(spec: CrossEntropySpec): KernelSource {
  const name = `cross_entropy_${contentHash(JSON.stringify(spec))}`;
  const source = [
    microKernels,
    packing,
    readers({ dtype: spec.x }, spec.compute),
    readers(spec.weight, spec.compute),
    planSource(name, spec),
    logitFunctions(name, spec),
    softmaxFunctions(name, spec),
    groupSource(name, spec),
    finishSource(name, spec),
    kernelSource(name, spec),
  ].join("\n");
  return { name, source: once(name, source) };
}
