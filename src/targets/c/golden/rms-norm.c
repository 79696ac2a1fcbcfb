EXPORT void loops_eef601e03b24c0f6(const int64_t* arguments, Context* context) {
  const char* in0 = (const char*)(uintptr_t)arguments[0]; (void)in0;
  const char* in1 = (const char*)(uintptr_t)arguments[1]; (void)in1;
  const char* in2 = (const char*)(uintptr_t)arguments[2]; (void)in2;
  char* out0 = (char*)(uintptr_t)arguments[3]; (void)out0;
  char* out1 = (char*)(uintptr_t)arguments[4]; (void)out1;
  char* out2 = (char*)(uintptr_t)arguments[5]; (void)out2;
  const int64_t s0 = arguments[6];
  const int64_t s1 = arguments[7];
  const int64_t s2 = arguments[8];
  const int64_t s3 = arguments[9];
  const int64_t s4 = arguments[10];
  const int64_t s5 = arguments[11];
  const int64_t s6 = arguments[12];
  const int64_t s7 = arguments[13];
  const vf number_s3 = bitcast_i_to_f(splat_i((int32_t)s3));
  const vf number_s4 = bitcast_i_to_f(splat_i((int32_t)s4));
  const vf number_s5 = bitcast_i_to_f(splat_i((int32_t)s5));
  {
    int64_t first, last;
    share(s0, 1, context->thread, context->threads, &first, &last);
    int64_t i0 = first;
    for (int64_t task = first; task < last; task++) {
      vf v0_sum0 = splat_f(0.0f), v0_sum1 = splat_f(0.0f), v0_sum2 = splat_f(0.0f), v0_sum3 = splat_f(0.0f);
      vf v1_sum0 = splat_f(0.0f), v1_sum1 = splat_f(0.0f), v1_sum2 = splat_f(0.0f), v1_sum3 = splat_f(0.0f);
      {
        int64_t i1 = 0;
        const int64_t i1_end = s2;
        for (; i1 + 64 <= i1_end; i1 += 16) {
          {
            const vf v2 = load_f32(in0 + (i0 * s1 + i1) * 4);
            const vf v3 = v2 * v2;
            const vf v4 = load_f32(in2 + (i0 * s1 + i1) * 4);
            const vf v5 = load_f32(in1 + (i1) * 4);
            const vf v6 = v4 * v5;
            const vf v7 = v6 * v2;
            v0_sum0 = v0_sum0 + v3;
            v1_sum0 = v1_sum0 + v7;
          }
          i1 += 16;
          {
            const vf v2 = load_f32(in0 + (i0 * s1 + i1) * 4);
            const vf v3 = v2 * v2;
            const vf v4 = load_f32(in2 + (i0 * s1 + i1) * 4);
            const vf v5 = load_f32(in1 + (i1) * 4);
            const vf v6 = v4 * v5;
            const vf v7 = v6 * v2;
            v0_sum1 = v0_sum1 + v3;
            v1_sum1 = v1_sum1 + v7;
          }
          i1 += 16;
          {
            const vf v2 = load_f32(in0 + (i0 * s1 + i1) * 4);
            const vf v3 = v2 * v2;
            const vf v4 = load_f32(in2 + (i0 * s1 + i1) * 4);
            const vf v5 = load_f32(in1 + (i1) * 4);
            const vf v6 = v4 * v5;
            const vf v7 = v6 * v2;
            v0_sum2 = v0_sum2 + v3;
            v1_sum2 = v1_sum2 + v7;
          }
          i1 += 16;
          {
            const vf v2 = load_f32(in0 + (i0 * s1 + i1) * 4);
            const vf v3 = v2 * v2;
            const vf v4 = load_f32(in2 + (i0 * s1 + i1) * 4);
            const vf v5 = load_f32(in1 + (i1) * 4);
            const vf v6 = v4 * v5;
            const vf v7 = v6 * v2;
            v0_sum3 = v0_sum3 + v3;
            v1_sum3 = v1_sum3 + v7;
          }
        }
        for (; i1 + 16 <= i1_end; i1 += 16) {
          const vf v2 = load_f32(in0 + (i0 * s1 + i1) * 4);
          const vf v3 = v2 * v2;
          const vf v4 = load_f32(in2 + (i0 * s1 + i1) * 4);
          const vf v5 = load_f32(in1 + (i1) * 4);
          const vf v6 = v4 * v5;
          const vf v7 = v6 * v2;
          v0_sum0 = v0_sum0 + v3;
          v1_sum0 = v1_sum0 + v7;
        }
        if (i1 < i1_end) {
          const int n = (int)(i1_end - i1); (void)n;
          const vf v2 = load_f32_n(in0 + (i0 * s1 + i1) * 4, n);
          const vf v3 = v2 * v2;
          const vf v4 = load_f32_n(in2 + (i0 * s1 + i1) * 4, n);
          const vf v5 = load_f32_n(in1 + (i1) * 4, n);
          const vf v6 = v4 * v5;
          const vf v7 = v6 * v2;
          v0_sum0 = v0_sum0 + select_f(first_lanes(n), v3, splat_f(0.0f));
          v1_sum0 = v1_sum0 + select_f(first_lanes(n), v7, splat_f(0.0f));
        }
      }
      const vf v0 = splat_f(sum_lanes(((v0_sum0 + v0_sum1) + (v0_sum2 + v0_sum3))));
      const vf v1 = splat_f(sum_lanes(((v1_sum0 + v1_sum1) + (v1_sum2 + v1_sum3))));
      const vf v8 = v0 * number_s3;
      const vf v9 = v8 + number_s4;
      const vf v10 = sqrt_f(v9);
      const vf v11 = splat_f(1.0f) / v10;
      const vf v12 = v1 / v10;
      const vf v13 = v12 * v11;
      const vf v14 = -v13;
      const vf v15 = number_s5 / v10;
      const vf v16 = v14 * v15;
      const vf v17 = v16 * number_s3;
      store_f32_n(out0 + (i0) * 4, v11, 1);
      {
        int64_t i2 = 0;
        const int64_t i2_end = s6;
        for (; i2 + 16 <= i2_end; i2 += 16) {
          const vf v18 = load_f32(in0 + (i0 * s7 + i2) * 4);
          const vf v19 = v18 * v11;
          const vf v20 = load_f32(in1 + (i2) * 4);
          const vf v21 = v19 * v20;
          const vf v22 = load_f32(in2 + (i0 * s7 + i2) * 4);
          const vf v23 = v22 * v20;
          const vf v24 = v23 * v11;
          const vf v25 = v17 * v18;
          const vf v26 = v24 + v25;
          const vf v27 = v26 + v25;
          store_f32(out1 + (i0 * s7 + i2) * 4, v21);
          store_f32(out2 + (i0 * s7 + i2) * 4, v27);
        }
        if (i2 < i2_end) {
          const int n = (int)(i2_end - i2); (void)n;
          const vf v18 = load_f32_n(in0 + (i0 * s7 + i2) * 4, n);
          const vf v19 = v18 * v11;
          const vf v20 = load_f32_n(in1 + (i2) * 4, n);
          const vf v21 = v19 * v20;
          const vf v22 = load_f32_n(in2 + (i0 * s7 + i2) * 4, n);
          const vf v23 = v22 * v20;
          const vf v24 = v23 * v11;
          const vf v25 = v17 * v18;
          const vf v26 = v24 + v25;
          const vf v27 = v26 + v25;
          store_f32_n(out1 + (i0 * s7 + i2) * 4, v21, n);
          store_f32_n(out2 + (i0 * s7 + i2) * 4, v27, n);
        }
      }
      i0++;
    }
  }
}

EXPORT void loops_6ccffce74388a378(const int64_t* arguments, Context* context) {
  const char* in0 = (const char*)(uintptr_t)arguments[0]; (void)in0;
  const char* in1 = (const char*)(uintptr_t)arguments[1]; (void)in1;
  const char* in2 = (const char*)(uintptr_t)arguments[2]; (void)in2;
  char* out0 = (char*)(uintptr_t)arguments[3]; (void)out0;
  char* work = (char*)(uintptr_t)arguments[4]; (void)work;
  const int64_t s0 = arguments[5];
  const int64_t s1 = arguments[6];
  const int64_t s2 = arguments[7];
  if (context->thread == 0) {
    {
      int64_t i0 = 0;
      const int64_t i0_end = s0;
      for (; i0 + 16 <= i0_end; i0 += 16) {
        store_f32(work + (i0) * 4, splat_f(0.0f));
      }
      if (i0 < i0_end) {
        const int n = (int)(i0_end - i0); (void)n;
        store_f32_n(work + (i0) * 4, splat_f(0.0f), n);
      }
    }
    for (int64_t i1 = 0; i1 < s1; i1++) {
      const vf v0 = splat_f(get_f32(in2 + (i1) * 4));
      {
        int64_t i0 = 0;
        const int64_t i0_end = s0;
        for (; i0 + 16 <= i0_end; i0 += 16) {
          const vf v1 = load_f32(in0 + (i0 + i1 * s2) * 4);
          const vf v2 = load_f32(in1 + (i0 + i1 * s2) * 4);
          const vf v3 = v2 * v0;
          const vf v4 = v1 * v3;
          store_f32(work + (i0) * 4, load_f32(work + (i0) * 4) + v4);
        }
        if (i0 < i0_end) {
          const int n = (int)(i0_end - i0); (void)n;
          const vf v1 = load_f32_n(in0 + (i0 + i1 * s2) * 4, n);
          const vf v2 = load_f32_n(in1 + (i0 + i1 * s2) * 4, n);
          const vf v3 = v2 * v0;
          const vf v4 = v1 * v3;
          store_f32_n(work + (i0) * 4, load_f32_n(work + (i0) * 4, n) + v4, n);
        }
      }
    }
  }
  barrier(context);
  {
    int64_t begin, end;
    share(s0, 64, context->thread, context->threads, &begin, &end);
    {
      int64_t i0 = begin;
      const int64_t i0_end = end;
      for (; i0 + 16 <= i0_end; i0 += 16) {
        const vf v5 = load_f32(work + (i0) * 4);
        store_f32(out0 + (i0) * 4, v5);
      }
      if (i0 < i0_end) {
        const int n = (int)(i0_end - i0); (void)n;
        const vf v5 = load_f32_n(work + (i0) * 4, n);
        store_f32_n(out0 + (i0) * 4, v5, n);
      }
    }
  }
}

// loops_eef601e03b24c0f6(@0, @24576, @24960, @99456, @49536, @74112, 64, 96, 96, 1009429163, 925353388, 1056964608, 96, 96)
// loops_6ccffce74388a378(@24960, @0, @99456, @98688, @99072, 96, 64, 96)
