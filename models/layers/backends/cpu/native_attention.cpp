// softmax(q kT * scale + bias) v and its gradients for windows of at most a few hundred tokens, on a CPU.
//
// A task is one head of one window, processed in tiles of TILE queries. The lanes of a vector are queries: maxima and
// sums need no operation across a vector, keys and values are read without a transposition, and all lanes are used for
// any width of a head. Weights are 2^(score - largest); log2(e) is multiplied into the queries and the bias.
// Compiled and called by native_attention.py, which describes the arguments. Test:
//     python -m pytest tests/models/layers/backends/cpu/test_native_attention.py
//
// Legend: q, k, v queries, keys, values; n tokens of a window, m = n rounded up to TILE, d channels of a head, wide = d
// rounded up to LANES.

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#if defined(__AVX512F__)
constexpr int LANES = 16, ROWS = 8;
#elif defined(__AVX2__)
constexpr int LANES = 8, ROWS = 4;
#else
constexpr int LANES = 4, ROWS = 4;
#endif
// ROWS * VECTORS accumulators, and one column of VECTORS, fit the processor's registers: 32 of AVX-512, 16 of AVX2.
// VECTORS: vectors of a tile; TILE: queries of a tile.
constexpr int VECTORS = 2, TILE = VECTORS * LANES;

typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef float Loose __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef float Four __attribute__((vector_size(16)));
typedef float LooseFour __attribute__((vector_size(16), aligned(4), may_alias));

// Floats i, j, k, l of the eight of a and b. GCC has Clang's function from version 12 on only.
#if defined(__clang__)
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
typedef int32_t FourInts __attribute__((vector_size(16)));
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, FourInts{i, j, k, l})
#endif

constexpr float LOG2E = 1.44269504088896340736f;

static inline Vec load(const float *p) { return *(const Loose *)p; }
static inline void store(float *p, Vec v) { *(Loose *)p = v; }
static inline Vec all(float v) { return v - Vec{}; }
static inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

// 2^x: a polynomial for the fraction (relative error below 2e-9), the exponent's bits for the integer part.
static inline Vec exp2(Vec x) {
    x = x < -126.f ? all(-126.f) : x;  // the smallest normal exponent; NaN stays NaN
    const Vec magic = all(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer, in the lowest bits
    const Vec shifted = x + magic, f = x - (shifted - magic);
    Vec p = all(1.5345810970757157e-4f);
    p = p * f + 1.3399930903688073e-3f;
    p = p * f + 9.618489071726799e-3f;
    p = p * f + 5.550328642129898e-2f;
    p = p * f + 2.4022646248340607e-1f;
    p = p * f + 6.931471824645996e-1f;
    p = p * f + 1.f;
    return (Vec)((Ints)p + ((Ints)shifted << 23));
}

// One head of one window: n rows of d floats, `step` floats apart.
struct Rows {
    float *data;
    int64_t step;
    float *operator[](int64_t i) const { return data + i * step; }
};

// A tensor (windows, heads, tokens, channels) whose channels are adjacent in memory; its strides, in floats.
struct Tensor {
    float *data;
    int64_t window, head, token;
    Rows at(int64_t w, int64_t h) const { return {data + w * window + h * head, token}; }
};

struct Sizes {
    int64_t windows, heads, n, d, m, wide;
    explicit Sizes(const int64_t *s)
        : windows(s[0]), heads(s[1]), n(s[2]), d(s[3]), m((s[2] + TILE - 1) / TILE * TILE),
          wide((s[3] + LANES - 1) / LANES * LANES) {}
};

// A thread's memory, handed out in pieces aligned to cache lines.
struct Scratch {
    char *start, *next;
    Scratch(size_t floats, size_t pieces) {
        start = next = (char *)std::aligned_alloc(64, (floats * sizeof(float) + 64 * pieces + 63) / 64 * 64);
    }
    ~Scratch() { std::free(start); }
    float *take(size_t floats) {
        float *piece = (float *)next;
        next += (floats * sizeof(float) + 63) / 64 * 64;
        return piece;
    }
};

// acc[r][v] += sum over t < count of a[r * row + t * term] * b[t * width + v * LANES ...]
template <int R, int V>
static inline void multiply(const float *a, int64_t row, int64_t term, int64_t count, const float *b, int64_t width,
                            Vec (&acc)[R][V]) {
    for (int64_t t = 0; t < count; t++) {
        Vec column[V];
        for (int v = 0; v < V; v++) column[v] = load(b + t * width + v * LANES);
        for (int r = 0; r < R; r++)
            for (int v = 0; v < V; v++) acc[r][v] += a[r * row + t * term] * column[v];
    }
}

// Calls part(r, acc) for each of `rows` rows of the product, which are computed ROWS, then 4, then 1 at a time.
template <int V, typename Part>
static inline void product(int64_t rows, const float *a, int64_t row, int64_t term, int64_t count, const float *b,
                           int64_t width, const Part &part) {
    int64_t r = 0;
    for (; r + ROWS <= rows; r += ROWS) {
        Vec acc[ROWS][V] = {};
        multiply<ROWS, V>(a + r * row, row, term, count, b, width, acc);
        for (int i = 0; i < ROWS; i++) part(r + i, acc[i]);
    }
    for (; ROWS > 4 && r + 4 <= rows; r += 4) {
        Vec acc[4][V] = {};
        multiply<4, V>(a + r * row, row, term, count, b, width, acc);
        for (int i = 0; i < 4; i++) part(r + i, acc[i]);
    }
    for (; r < rows; r++) {
        Vec acc[1][V] = {};
        multiply<1, V>(a + r * row, row, term, count, b, width, acc);
        part(r, acc[0]);
    }
}

// Copies n rows of d channels into adjacent memory: with a large power of two as stride, they would share cache sets.
static Rows gather(const Rows &x, const Sizes &s, float *out) {
    for (int64_t j = 0; j < s.n; j++) {
        // Whole vectors, of which the last one may overlap: a call of memcpy for each row would take longer.
        int64_t c = 0;
        for (; c + LANES <= s.d; c += LANES) store(out + j * s.d + c, load(x[j] + c));
        if (c && c < s.d) store(out + (j + 1) * s.d - LANES, load(x[j] + s.d - LANES));
        if (!c) std::memcpy(out + j * s.d, x[j], s.d * sizeof(float));
    }
    return {out, s.d};
}

// Four rows of four floats, `step` floats apart, transposed and times `factor`.
static inline void transpose4(const float *x, int64_t step, float factor, float *out, int64_t out_step) {
    const Four a = *(const LooseFour *)x, b = *(const LooseFour *)(x + step), c = *(const LooseFour *)(x + 2 * step),
               d = *(const LooseFour *)(x + 3 * step);
    const Four ab = PICK(a, b, 0, 4, 1, 5), cd = PICK(c, d, 0, 4, 1, 5);
    const Four ab_end = PICK(a, b, 2, 6, 3, 7), cd_end = PICK(c, d, 2, 6, 3, 7);
    *(LooseFour *)out = PICK(ab, cd, 0, 1, 4, 5) * factor;
    *(LooseFour *)(out + out_step) = PICK(ab, cd, 2, 3, 6, 7) * factor;
    *(LooseFour *)(out + 2 * out_step) = PICK(ab_end, cd_end, 0, 1, 4, 5) * factor;
    *(LooseFour *)(out + 3 * out_step) = PICK(ab_end, cd_end, 2, 3, 6, 7) * factor;
}

// Rows of `columns` floats, `step` floats apart, to their transpose, times `factor`.
static void transpose_all(const float *x, int64_t step, int64_t rows, int64_t columns, float factor, float *out,
                          int64_t out_step) {
    const int64_t whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4;
    for (int64_t i = 0; i < whole_rows; i += 4)
        for (int64_t c = 0; c < whole_columns; c += 4)
            transpose4(x + i * step + c, step, factor, out + c * out_step + i, out_step);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = i < whole_rows ? whole_columns : 0; c < columns; c++)
            out[c * out_step + i] = x[i * step + c] * factor;
}

// `valid` rows of d channels, times `factor`, to (d, TILE), padded with zeros.
static void transpose(const Rows &x, int64_t valid, int64_t d, float factor, float *out) {
    if (valid < TILE) std::memset(out, 0, d * TILE * sizeof(float));
    transpose_all(x.data, x.step, valid, d, factor, out, TILE);
}

// (d, TILE) to `valid` rows of d channels.
static void transpose_back(const float *x, int64_t valid, int64_t d, const Rows &out) {
    transpose_all(x, TILE, d, valid, 1, out.data, out.step);
}

// (d, TILE) to (TILE, wide), padded with zeros.
static void widen(const float *x, const Sizes &s, float *out) {
    transpose_all(x, TILE, s.d, TILE, 1, out, s.wide);
    for (int64_t i = 0; i < TILE; i++)
        for (int64_t c = s.d; c < s.wide; c++) out[i * s.wide + c] = 0;
}

// Scores (n, TILE) of a tile, times log2(e), and the largest of each query. bias: rows of m, or null.
static void score(const Sizes &s, const float *queries, const Rows &keys, const float *bias, float *scores,
                  Vec (&best)[VECTORS]) {
    for (int v = 0; v < VECTORS; v++) best[v] = all(-3e38f);
    product<VECTORS>(s.n, keys.data, keys.step, 1, s.d, queries, TILE, [&](int64_t j, const Vec(&acc)[VECTORS]) {
        for (int v = 0; v < VECTORS; v++) {
            const Vec scored = bias ? acc[v] + load(bias + j * s.m + v * LANES) * LOG2E : acc[v];
            best[v] = larger(best[v], scored);
            store(scores + j * TILE + v * LANES, scored);
        }
    });
}

// Sums over the tokens of weights (n, TILE) times rows, times factors: (d, TILE).
static void weigh(const Sizes &s, const Rows &rows, const float *weights, const Vec (&factors)[VECTORS], float *out) {
    product<VECTORS>(s.d, rows.data, 1, rows.step, s.n, weights, TILE, [&](int64_t c, const Vec(&acc)[VECTORS]) {
        for (int v = 0; v < VECTORS; v++) store(out + c * TILE + v * LANES, acc[v] * factors[v]);
    });
}

static void attend_head(const Sizes &s, const Rows &q, const Rows &k, const Rows &v, const float *bias, float scale,
                        const Rows &out, float *lse, float *weights, float *columns) {
    for (int64_t i = 0; i < s.n; i += TILE) {
        const int64_t valid = s.n - i < TILE ? s.n - i : TILE;
        transpose({q[i], q.step}, valid, s.d, scale * LOG2E, columns);
        Vec best[VECTORS], total[VECTORS] = {}, factors[VECTORS];
        score(s, columns, k, bias ? bias + i : nullptr, weights, best);
        for (int64_t j = 0; j < s.n; j++)
            for (int u = 0; u < VECTORS; u++) {
                const Vec weight = exp2(load(weights + j * TILE + u * LANES) - best[u]);
                total[u] += weight;
                store(weights + j * TILE + u * LANES, weight);
            }
        for (int u = 0; u < VECTORS; u++) factors[u] = 1.f / total[u];
        weigh(s, v, weights, factors, columns);
        transpose_back(columns, valid, s.d, {out[i], out.step});
        if (lse)
            for (int64_t r = 0; r < valid; r++)
                lse[i + r] = best[r / LANES][r % LANES] + std::log2(total[r / LANES][r % LANES]);
    }
}

// A thread's tensors in the backward pass.
struct Work {
    float *weights, *slopes;            // (n, TILE): P, and dS = P * (dO vT - sum(dO * O))
    float *keys, *values;               // (n, d)
    float *queries, *grads, *columns;   // (d, TILE)
    float *query_rows, *grad_rows;      // (TILE, wide)
    float *grad_keys, *grad_values;     // (n, wide)
};

// sums (n, wide) += weights (n, TILE) times rows (TILE, wide), for the first V vectors of each row.
template <int V>
static void spread(const Sizes &s, const float *weights, const float *rows, float *sums) {
    product<V>(s.n, weights, TILE, 1, TILE, rows, s.wide, [&](int64_t j, const Vec(&acc)[V]) {
        for (int u = 0; u < V; u++) {
            float *place = sums + j * s.wide + u * LANES;
            store(place, load(place) + acc[u]);
        }
    });
}

static void spread_all(const Sizes &s, const float *weights, const float *rows, float *sums) {
    int64_t c = 0;
    for (; c + 2 * LANES <= s.wide; c += 2 * LANES) spread<2>(s, weights, rows + c, sums + c);
    if (c < s.wide) spread<1>(s, weights, rows + c, sums + c);
}

// Weights and slopes of a tile; adds the slopes to grad_bias, rows of m, unless it is null.
static void differentiate(const Sizes &s, const Work &t, const Rows &k, const Rows &v, const float *bias,
                          const Vec (&lse)[VECTORS], const Vec (&deltas)[VECTORS], float *grad_bias) {
    Vec best[VECTORS];
    score(s, t.queries, k, bias, t.weights, best);
    product<VECTORS>(s.n, v.data, v.step, 1, s.d, t.grads, TILE, [&](int64_t j, const Vec(&acc)[VECTORS]) {
        for (int u = 0; u < VECTORS; u++) {
            const int64_t place = j * TILE + u * LANES;
            const Vec weight = exp2(load(t.weights + place) - lse[u]), slope = weight * (acc[u] - deltas[u]);
            store(t.weights + place, weight);
            store(t.slopes + place, slope);
            if (grad_bias) {
                float *sum = grad_bias + j * s.m + u * LANES;
                store(sum, load(sum) + slope);
            }
        }
    });
}

// heads: q, k, v, out, the gradient of out, and the results: the gradients of q, k and v.
static void differentiate_head(const Sizes &s, const Work &t, const Rows (&heads)[8], const float *bias,
                               const float *lse, float scale, float *grad_bias) {
    const auto &[q, k, v, out, grad, grad_q, grad_k, grad_v] = heads;
    std::memset(t.grad_keys, 0, s.n * s.wide * sizeof(float));
    std::memset(t.grad_values, 0, s.n * s.wide * sizeof(float));
    for (int64_t i = 0; i < s.n; i += TILE) {
        const int64_t valid = s.n - i < TILE ? s.n - i : TILE;
        transpose({q[i], q.step}, valid, s.d, scale * LOG2E, t.queries);
        transpose({grad[i], grad.step}, valid, s.d, 1, t.grads);
        transpose({out[i], out.step}, valid, s.d, 1, t.columns);
        widen(t.queries, s, t.query_rows);
        widen(t.grads, s, t.grad_rows);
        Vec tops[VECTORS], deltas[VECTORS] = {}, factors[VECTORS];
        for (int u = 0; u < VECTORS; u++) {
            factors[u] = all(scale);
            for (int64_t c = 0; c < s.d; c++)
                deltas[u] += load(t.columns + c * TILE + u * LANES) * load(t.grads + c * TILE + u * LANES);
        }
        // Queries after the last token have zero gradients; a large sum keeps their weights finite.
        for (int64_t r = 0; r < TILE; r++) tops[r / LANES][r % LANES] = r < valid ? lse[i + r] : 3e38f;
        differentiate(s, t, k, v, bias ? bias + i : nullptr, tops, deltas, grad_bias ? grad_bias + i : nullptr);
        weigh(s, k, t.slopes, factors, t.columns);
        transpose_back(t.columns, valid, s.d, {grad_q[i], grad_q.step});
        spread_all(s, t.slopes, t.query_rows, t.grad_keys);
        spread_all(s, t.weights, t.grad_rows, t.grad_values);
    }
    for (int64_t j = 0; j < s.n; j++)
        for (int64_t c = 0; c < s.d; c++) {
            grad_k[j][c] = t.grad_keys[j * s.wide + c] * (1 / LOG2E);  // the queries were multiplied by log2(e)
            grad_v[j][c] = t.grad_values[j * s.wide + c];
        }
}

static void differentiate_all(const Sizes &s, const Tensor (&tensors)[8], const float *bias, int64_t bias_step,
                              const float *lse, int64_t lse_step, float scale, float *grad_bias, int64_t parts) {
#pragma omp parallel
    {
        Scratch scratch(2 * s.n * (TILE + s.d + s.wide) + TILE * (3 * s.d + 2 * s.wide), 11);
        Work t;
        for (float **piece : {&t.weights, &t.slopes}) *piece = scratch.take(s.n * TILE);
        for (float **piece : {&t.keys, &t.values}) *piece = scratch.take(s.n * s.d);
        for (float **piece : {&t.queries, &t.grads, &t.columns}) *piece = scratch.take(s.d * TILE);
        for (float **piece : {&t.query_rows, &t.grad_rows}) *piece = scratch.take(TILE * s.wide);
        for (float **piece : {&t.grad_keys, &t.grad_values}) *piece = scratch.take(s.n * s.wide);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < s.heads * parts; task++) {
            const int64_t h = task / parts, part = task % parts;
            for (int64_t w = part * s.windows / parts; w < (part + 1) * s.windows / parts; w++) {
                Rows heads[8];
                for (int i = 0; i < 8; i++) heads[i] = tensors[i].at(w, h);
                heads[1] = gather(heads[1], s, t.keys), heads[2] = gather(heads[2], s, t.values);
                differentiate_head(s, t, heads, bias ? bias + h * bias_step : nullptr,
                                   lse + w * lse_step + h * s.n, scale,
                                   grad_bias ? grad_bias + (part * s.heads + h) * s.n * s.m : nullptr);
            }
        }
    }
}

template <int COUNT>
static void describe(void *const *data, const int64_t *strides, Tensor (&tensors)[COUNT]) {
    for (int i = 0; i < COUNT; i++)
        tensors[i] = {(float *)data[i], strides[3 * i], strides[3 * i + 1], strides[3 * i + 2]};
}

extern "C" {

int native_tile() { return TILE; }

// data, strides: of q, k, v and out. bias: (heads, n, m) with keys before queries, bias_step floats from head to head,
// or null. lse: (windows, heads, n), logarithms to base 2 of the sums of exponentials, or null.
void native_attention(const int64_t *sizes, void *const *data, const int64_t *strides, const float *bias,
                      int64_t bias_step, float scale, float *lse) {
    const Sizes s(sizes);
    Tensor t[4];
    describe(data, strides, t);
#pragma omp parallel
    {
        Scratch scratch(s.n * TILE + s.d * TILE + 2 * s.n * s.d, 4);
        float *keys = scratch.take(s.n * s.d), *values = scratch.take(s.n * s.d);
        float *weights = scratch.take(s.n * TILE), *columns = scratch.take(s.d * TILE);
#pragma omp for schedule(dynamic, 4)
        for (int64_t task = 0; task < s.heads * s.windows; task++) {
            // All windows of a head follow each other, so that the head's bias stays in the cache.
            const int64_t h = task / s.windows, w = task % s.windows;
            attend_head(s, t[0].at(w, h), gather(t[1].at(w, h), s, keys), gather(t[2].at(w, h), s, values),
                        bias ? bias + h * bias_step : nullptr, scale, t[3].at(w, h),
                        lse ? lse + (w * s.heads + h) * s.n : nullptr, weights, columns);
        }
    }
}

// data, strides: of q, k, v, out, the gradient of out, and the gradients of q, k and v to be written. lse: as above,
// lse_step floats from window to window. grad_bias: (parts, heads, n, m) or null: the gradient of each of `parts` groups
// of windows is added to one of them.
void native_attention_backward(const int64_t *sizes, void *const *data, const int64_t *strides, const float *bias,
                               int64_t bias_step, const float *lse, int64_t lse_step, float scale, float *grad_bias,
                               int64_t parts) {
    const Sizes s(sizes);
    Tensor t[8];
    describe(data, strides, t);
    differentiate_all(s, t, bias, bias_step, lse, lse_step, scale, grad_bias, parts);
}
}
