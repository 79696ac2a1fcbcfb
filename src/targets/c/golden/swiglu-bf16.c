#ifndef OP_DBAC394F87D37699
#define OP_DBAC394F87D37699
INLINE vf op_dbac394f87d37699(vf a0) {
  const vf t0 = -a0;
  const vf t1 = max_f(splat_f((-105.0f)), t0);
  const vf t2 = min_f(splat_f(90.0f), t1);
  const vf t3 = t2 * splat_f(1.4426950216293335f);
  const vf t4 = round_even_f(t3);
  const vf t5 = fma_f(t4, splat_f((-0.693145751953125f)), t2);
  const vf t6 = fma_f(t4, splat_f((-0.000001428606765330187f)), t5);
  const vf t7 = fma_f(splat_f(0.00019841270113829523f), t6, splat_f(0.0013888889225199819f));
  const vf t8 = fma_f(t7, t6, splat_f(0.008333333767950535f));
  const vf t9 = fma_f(t8, t6, splat_f(0.0416666679084301f));
  const vf t10 = fma_f(t9, t6, splat_f(0.1666666716337204f));
  const vf t11 = fma_f(t10, t6, splat_f(0.5f));
  const vf t12 = fma_f(t11, t6, splat_f(1.0f));
  const vf t13 = fma_f(t12, t6, splat_f(1.0f));
  const vi t14 = convert_f_to_i(t4);
  const vi t15 = t14 >> splat_i(1);
  const vi t16 = (vi)((vu)t15 + (vu)splat_i(127));
  const vi t17 = (vi)((vu)t16 << (vu)splat_i(23));
  const vf t18 = (vf)t17;
  const vf t19 = t13 * t18;
  const vi t20 = (vi)((vu)t14 - (vu)t15);
  const vi t21 = (vi)((vu)t20 + (vu)splat_i(127));
  const vi t22 = (vi)((vu)t21 << (vu)splat_i(23));
  const vf t23 = (vf)t22;
  const vf t24 = t19 * t23;
  const vf t25 = t24 + splat_f(1.0f);
  const vf t26 = splat_f(1.0f) / t25;
  return t26;
}
#endif
EXPORT void loops_9f27b4b077754cc7(const int64_t* arguments, Context* context) {
  const char* in0 = (const char*)(uintptr_t)arguments[0]; (void)in0;
  const char* in1 = (const char*)(uintptr_t)arguments[1]; (void)in1;
  const char* in2 = (const char*)(uintptr_t)arguments[2]; (void)in2;
  char* out0 = (char*)(uintptr_t)arguments[3]; (void)out0;
  char* out1 = (char*)(uintptr_t)arguments[4]; (void)out1;
  char* out2 = (char*)(uintptr_t)arguments[5]; (void)out2;
  const int64_t s0 = arguments[6];
  {
    int64_t begin, end;
    share(s0, 64, context->thread, context->threads, &begin, &end);
    {
      int64_t i0 = begin;
      const int64_t i0_end = end;
      for (; i0 + 16 <= i0_end; i0 += 16) {
        const vf v0 = load_bf16(in0 + (i0) * 2);
        const vf v1 = op_dbac394f87d37699(v0);
        const vf v2 = v0 * v1;
        const vf v3 = load_bf16(in1 + (i0) * 2);
        const vf v4 = v2 * v3;
        const vf v5 = load_bf16(in2 + (i0) * 2);
        const vf v6 = v5 * v2;
        const vf v7 = v5 * v3;
        const vf v8 = v7 * v1;
        const vf v9 = v7 * v0;
        const vf v10 = splat_f(1.0f) - v1;
        const vf v11 = v1 * v10;
        const vf v12 = v9 * v11;
        const vf v13 = v8 + v12;
        store_bf16(out0 + (i0) * 2, v4);
        store_f32(out1 + (i0) * 4, v6);
        store_f32(out2 + (i0) * 4, v13);
      }
      if (i0 < i0_end) {
        const int n = (int)(i0_end - i0); (void)n;
        const vf v0 = load_bf16_n(in0 + (i0) * 2, n);
        const vf v1 = op_dbac394f87d37699(v0);
        const vf v2 = v0 * v1;
        const vf v3 = load_bf16_n(in1 + (i0) * 2, n);
        const vf v4 = v2 * v3;
        const vf v5 = load_bf16_n(in2 + (i0) * 2, n);
        const vf v6 = v5 * v2;
        const vf v7 = v5 * v3;
        const vf v8 = v7 * v1;
        const vf v9 = v7 * v0;
        const vf v10 = splat_f(1.0f) - v1;
        const vf v11 = v1 * v10;
        const vf v12 = v9 * v11;
        const vf v13 = v8 + v12;
        store_bf16_n(out0 + (i0) * 2, v4, n);
        store_f32_n(out1 + (i0) * 4, v6, n);
        store_f32_n(out2 + (i0) * 4, v13, n);
      }
    }
  }
}

// loops_9f27b4b077754cc7(@0, @12288, @24576, @86016, @36864, @61440, 6144)
